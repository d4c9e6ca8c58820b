"""Puts right what no living process will: leases that ran out, and queued jobs whose bell nobody heard.

A thread in every API and worker process; only the one that holds the lease of the duty acts.
"""

import logging
import threading
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lab import bell, counters, jobs, tables
from lab.db import Database, now
from lab.errors import DatabaseUnavailable
from lab.ids import new_id

log = logging.getLogger(__name__)

DUTY = "reconciler"
TICK_SECONDS = 2.0
DUTY_SECONDS = 10.0
MOST_BELLS = 64  # whoever hears one goes on until nothing is left
RING_AGAIN_AFTER = timedelta(seconds=10)


class Reconciler:
    """One candidate for the duty.

    Args:
        database: where the jobs are.
        max_attempts: lost attempts after which a job has failed.
    """

    def __init__(self, database: Database, *, max_attempts: int = 2) -> None:
        self.database = database
        self.max_attempts = max_attempts
        self.holder = new_id("rec")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Tick every two seconds in a thread, until ``stop``."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and give the duty away."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            try:
                self.tick()
            except DatabaseUnavailable as error:
                log.warning("the database is away: %s", error.__cause__)
            except Exception:
                log.exception("the reconciler met a bug; it goes on")

    def tick(self) -> bool:
        """Put everything right once; False where another process has the duty.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self.database.write() as tx:
            if not self._on_duty(tx):
                return False
            for attempt in jobs.expired(tx):
                job = jobs.lose(
                    tx, attempt, "lost_worker", "its worker stopped answering", max_attempts=self.max_attempts
                )
                counters.count(tx, "reconciler_requeues")
                known = {"job_id": job.id, "attempt": attempt.number}
                log.warning("lease expired, the job is now %s", job.status, extra=known)
            for queue in jobs.unrung(tx, RING_AGAIN_AFTER)[:MOST_BELLS]:
                bell.ring_after_commit(tx, queue)
        return True

    def _on_duty(self, tx: Session) -> bool:
        """Take or keep the duty's lease."""
        moment = now(tx)
        lease = tx.scalar(select(tables.Lease).where(tables.Lease.name == DUTY).with_for_update())
        if lease is None:
            lease = tables.Lease(name=DUTY, holder=self.holder, until=moment)
            try:
                with tx.begin_nested():
                    tx.add(lease)
            except IntegrityError:  # another process was first
                return False
        if lease.holder != self.holder and lease.until > moment:
            return False
        lease.holder, lease.until = self.holder, moment + timedelta(seconds=DUTY_SECONDS)
        return True
