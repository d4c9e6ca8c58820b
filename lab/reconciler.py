"""Puts right what no living process will: leases that ran out, queued jobs whose bell nobody heard, what has aged.

A thread in every API and worker process; only the one that holds the lease of the duty acts.
"""

import logging
import time
from datetime import datetime, timedelta

from sqlalchemy import or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lab import attempts, bell, checkpoints, counters, idempotency, tables
from lab.db import Database, now
from lab.errors import StoreUnavailable
from lab.files import Store
from lab.ids import new_id
from lab.settings import Settings
from lab.states import HELD, State
from lab.ticker import Ticker

log = logging.getLogger(__name__)

TICK_SECONDS = 2.0
DUTY_SECONDS = 10.0
MOST_BELLS = 16
"""Of a tick. Whoever hears one goes on until nothing is left, and to touch every waiting job would take a tick long."""
RING_AGAIN_AFTER = timedelta(seconds=10)
JUMP_SECONDS = 2.0
"""A clock that moved so much further, or less far, than time itself was set by somebody."""
MOST_EXPIRED = 100
REMOVING_SECONDS = 2.0
"""Of a tick, for files whose time is over; the next tick goes on."""


class Reconciler(Ticker):
    """One candidate for the duty.

    Args:
        database: where the jobs are.
        settings: of the service.
        store: where the files are.
    """

    duty = "reconciler"

    def __init__(self, database: Database, settings: Settings, store: Store) -> None:
        super().__init__(TICK_SECONDS)
        self.database = database
        self.settings = settings
        self.store = store
        self.unpruned: list[tuple[str, int, set[str]]] = []
        self.holder = new_id("rec")
        self.calm = Calm()

    def disturbed(self) -> None:
        self.calm.disturb()

    def tick(self) -> bool:
        """Put everything right once; False where another process has the duty.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self.database.write() as tx:
            if not self._on_duty(tx):
                self.calm.disturb()
                return False
            moment = now(tx)
            bound(tx, moment, self.settings.lease_seconds)
            if self.calm.lasts(moment, self.settings.lease_seconds / 2):
                self._expire(tx)
            for queue in unrung(tx, moment):
                bell.ring_after_commit(tx, queue)
            idempotency.expire(tx)
            self.unpruned += aged(tx, moment, timedelta(days=self.settings.checkpoint_days))
        try:
            self._remove_aged()
        except StoreUnavailable as error:
            log.warning("the artifact store is away, old files stay for now: %s", error.reason)
        return True

    def _remove_aged(self) -> None:
        """Remove the files whose time is over, as many as a tick has time for. Raises StoreUnavailable."""
        until = time.monotonic() + REMOVING_SECONDS
        while self.unpruned and time.monotonic() < until:
            self.store.prune(*self.unpruned[0])
            del self.unpruned[0]
        if not self.settings.artifact_days:
            return
        with self.database.read() as tx:
            rows = expired(tx, timedelta(days=self.settings.artifact_days))
        removed = []
        for row in rows:
            if time.monotonic() > until:
                break
            self.store.remove(row.location)
            removed.append((row.job_id, row.name))
        # the file first: its row promises nothing any more, and who dies here leaves no file that nobody names
        if removed:
            with self.database.write() as tx:
                key = tuple_(tables.Artifact.job_id, tables.Artifact.name)
                tx.execute(update(tables.Artifact).where(key.in_(removed)).values(expired_at=now(tx)))

    def _expire(self, tx: Session) -> None:
        for attempt in attempts.expired(tx):
            job = attempts.lose(
                tx, attempt, "lost_worker", "its worker stopped answering", max_attempts=self.settings.max_attempts
            )
            counters.count(tx, "reconciler_requeues")
            known = {"job_id": job.id, "attempt": attempt.number}
            log.warning("lease expired, the job is now %s", job.status, extra=known)

    def _on_duty(self, tx: Session) -> bool:
        """Take or keep the duty's lease."""
        moment = now(tx)
        lease = tx.scalar(select(tables.Lease).where(tables.Lease.name == self.duty).with_for_update())
        if lease is None:
            lease = tables.Lease(name=self.duty, holder=self.holder, until=moment)
            try:
                with tx.begin_nested():
                    tx.add(lease)
            except IntegrityError:  # another process was first
                return False
        until = moment + timedelta(seconds=DUTY_SECONDS)
        if lease.holder != self.holder and moment < lease.until <= until:
            return False
        lease.holder, lease.until = self.holder, until
        return True


class Calm:
    """Whether leases can be believed: not right after the database was away, the duty was taken or a clock was set.

    Then everybody's lease looks expired, although their workers live; they get half a lease to renew it.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.seen: tuple[datetime, float] | None = None

    def disturb(self) -> None:
        self.since = self.seen = None

    def lasts(self, moment: datetime, seconds: float) -> bool:
        """Whether nothing has disturbed for so long, at the database's ``moment``."""
        clock = time.monotonic()
        if self.seen:
            moved = (moment - self.seen[0]).total_seconds() - (clock - self.seen[1])
            if abs(moved) > JUMP_SECONDS:
                log.warning("the database's clock was set by %+.0f s; leases are given time", moved)
                self.since = None
        self.seen = moment, clock
        if self.since is None:
            self.since = clock
        return clock - self.since >= seconds


def bound(tx: Session, moment: datetime, lease_seconds: float) -> None:
    """No lease lasts longer than a lease, and no wait longer than the longest, though the clock may have been set back.

    Without this, whatever died before would be missed only when the clock has caught up.
    """
    latest = moment + timedelta(seconds=lease_seconds)
    leased = update(tables.Job).where(tables.Job.status.in_(HELD), tables.Job.lease_expires_at > latest)
    tx.execute(leased.values(lease_expires_at=latest))
    latest = moment + timedelta(seconds=attempts.MAX_BACKOFF_SECONDS)
    waiting = update(tables.Job).where(tables.Job.status == State.QUEUED, tables.Job.not_before > latest)
    tx.execute(waiting.values(not_before=latest))


def unrung(tx: Session, moment: datetime, older_than: timedelta = RING_AGAIN_AFTER) -> list[str]:
    """The queues of the next due jobs for which nobody has rung lately, one for each; they count as rung now."""
    due = or_(tables.Job.not_before.is_(None), tables.Job.not_before <= moment)
    stale = or_(tables.Job.rung_at.is_(None), tables.Job.rung_at < moment - older_than, tables.Job.rung_at > moment)
    waiting = select(tables.Job.id).where(tables.Job.status == State.QUEUED, due, stale)
    first = waiting.order_by(tables.Job.priority.desc(), tables.Job.id).limit(MOST_BELLS)
    rung = update(tables.Job).where(tables.Job.id.in_(first.scalar_subquery())).values(rung_at=moment)
    return list(tx.scalars(rung.returning(tables.Job.queue).execution_options(synchronize_session=False)))


def expired(tx: Session, older_than: timedelta) -> list[tables.Artifact]:
    """The oldest of the artifacts whose time is over and whose files may still be there."""
    old = tables.Artifact.expired_at.is_(None), tables.Artifact.created_at < now(tx) - older_than
    return list(
        tx.scalars(select(tables.Artifact).where(*old).order_by(tables.Artifact.created_at).limit(MOST_EXPIRED))
    )


def aged(tx: Session, moment: datetime, older_than: timedelta) -> list[tuple[str, int, set[str]]]:
    """Forget the checkpoints of jobs that ended long ago; ids, last fences, and the files that stay."""
    kept = select(tables.Checkpoint.job_id)
    old = select(tables.Job).where(tables.Job.finished_at < moment - older_than, tables.Job.id.in_(kept)).limit(100)
    found = []
    for job in list(tx.scalars(old)):
        checkpoints.forget(tx, job.id)
        found.append((job.id, job.fence, checkpoints.locations(tx, job.id)))
    return found
