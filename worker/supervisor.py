"""One attempt: start its training process, store what it says, renew the lease, stop it when told, say how it ended."""

import hashlib
import logging
import mimetypes
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from credit.events import Event, Failed, Finished, Started, from_json
from lab import jobs, tables
from lab.db import Database, Tx
from lab.errors import DatabaseUnavailable
from lab.settings import Settings
from worker import launch

LOOK_SECONDS = 0.3
"""How often orders are looked at; a cancelled process is gone within that, its grace and a little."""
BATCH_SECONDS = 0.8
BATCH_POINTS = 500
RETRY_SECONDS = 0.5
MAY_PASS = {"out_of_memory"}
"""Failures that another attempt may be spared."""

log = logging.getLogger(__name__)

T = TypeVar("T")
Ending = Callable[[Tx, int], tables.Job]
"""The last write of an attempt, told the exit status of the process."""


class Supervision:
    """The life of one attempt in this worker.

    Args:
        database: where the job is.
        settings: of the service.
        attempt: as it was claimed.
        draining: is set when the worker shuts down.
    """

    def __init__(
        self, database: Database, settings: Settings, attempt: jobs.Attempt, draining: threading.Event
    ) -> None:
        self.database = database
        self.settings = settings
        self.attempt = attempt
        self.draining = draining
        self.location = Path(attempt.job_id) / f"attempt-{attempt.fence}"
        self.log = logging.LoggerAdapter(log, {"job_id": attempt.job_id, "attempt": attempt.number})
        self.unstored: list[Event] = []
        self.stored_at = self.renewed_at = self.asked_at = time.monotonic()

    def run(self) -> None:
        """Train to the end, whatever that is. Afterwards the job is in its next state, or somebody else's."""
        try:
            job = self._train()
        except jobs.Fenced:
            self.log.warning("attempt ends, the job is not ours any more")
        else:
            self.log.info("attempt ends, job %s: %s", job.status, job.status_reason)

    def _train(self) -> tables.Job:
        runner = launch.start("main", self._order())
        self.log.info("attempt starts, process %d", runner.pid)
        try:
            ending = self._follow(runner)
        finally:
            runner.stop()
            status = runner.exit_status()
        job = self._in(self.database.write, lambda tx: self._conclude(tx, ending, status))
        if job.status != "succeeded":
            shutil.rmtree(self._out, ignore_errors=True)
        return job

    def _order(self) -> dict[str, Any]:
        datasets = self.settings.datasets_dir
        return {
            "job_id": self.attempt.job_id,
            "attempt": self.attempt.number,
            "spec": self.attempt.spec,
            "datasets": datasets and str(datasets),
            "cache": str(self.settings.cache_dir),
            "out": str(self._out),
        }

    @property
    def _out(self) -> Path:
        return self.settings.artifacts_dir / self.location

    def _follow(self, runner: launch.Runner) -> Ending:
        """Listen and obey until there is a reason to end. Raises Fenced."""
        limit = self.attempt.spec["max_runtime_seconds"]
        deadline = time.monotonic() + (limit or float("inf"))
        while True:
            runner.wait(LOOK_SECONDS)
            ended = runner.ended()
            for event in self._hear(runner, everything=ended):
                if isinstance(event, Finished):
                    return self._finished(event)
                if isinstance(event, Failed):
                    return self._failed(event.code, event.message)
                self.unstored.append(event)
            if ended:
                return self._died
            if self.draining.is_set():
                return self._preempted
            if time.monotonic() > deadline:
                return self._failed("timeout", f"training took longer than max_runtime_seconds, {limit:g}")
            if self._is_cancelled():
                return self._stopped

    def _hear(self, runner: launch.Runner, *, everything: bool) -> Iterator[Event]:
        """What the process has said and nobody has read: a batch of it, or everything."""
        points = 0
        try:
            while (everything or points < BATCH_POINTS) and runner.pipe.poll():
                event = from_json(runner.pipe.recv_bytes())
                points += sum(1 for _ in event.points())
                yield event
        except (EOFError, ConnectionError):
            return

    def _is_cancelled(self) -> bool:
        """Store what is due, and ask for orders now and then. Raises Fenced."""
        clock = time.monotonic()
        if self._is_due(clock):
            orders = self._in(self.database.write, lambda tx: jobs.record(tx, self.attempt, self.unstored))
            self.unstored = []
            self.stored_at = self.renewed_at = self.asked_at = time.monotonic()
        elif clock - self.asked_at >= LOOK_SECONDS:
            orders = self._in(self.database.read, lambda tx: jobs.orders(tx, self.attempt))
            self.asked_at = time.monotonic()
        else:
            return False
        return orders.cancel

    def _is_due(self, clock: float) -> bool:
        """Whether to write: at the first step, by age, by size, or to renew the lease."""
        first_step = any(isinstance(event, Started) for event in self.unstored)
        full = sum(1 for event in self.unstored for _ in event.points()) >= BATCH_POINTS
        old = bool(self.unstored) and clock - self.stored_at > BATCH_SECONDS
        return first_step or full or old or clock - self.renewed_at > self.attempt.lease_seconds / 4

    def _in(self, transaction: Callable[[], AbstractContextManager[Tx]], work: Callable[[Tx], T]) -> T:
        """Do something in a transaction, again and again while the database is away and the lease lasts.

        Raises:
            Fenced: the attempt lost its job, or must be taken to have lost it.
        """
        while True:
            try:
                with transaction() as tx:
                    return work(tx)
            except DatabaseUnavailable:
                late = time.monotonic() > self.renewed_at + self.attempt.lease_seconds
                if late or self.draining.is_set():
                    raise jobs.Fenced(self.attempt.job_id) from None
                self.log.warning("the database is away; training goes on")
                time.sleep(RETRY_SECONDS)

    # ---- endings ----------------------------------------------------------------------------------------------------

    def _conclude(self, tx: Tx, ending: Ending, status: int) -> tables.Job:
        """What was not stored yet, and the job's next state, in one transaction."""
        if self.unstored:
            jobs.record(tx, self.attempt, self.unstored)
        return ending(tx, status)

    def _finished(self, event: Finished) -> Ending:
        files = [described(path, self.location) for path in sorted(self._out.iterdir())]
        return lambda tx, _: jobs.finish(tx, self.attempt, event.results, files)

    def _failed(self, code: str, message: str) -> Ending:
        if code in MAY_PASS:
            return lambda tx, _: self._lose(tx, code, message)
        return lambda tx, _: jobs.fail(tx, self.attempt, code, message)

    def _died(self, tx: Tx, status: int) -> tables.Job:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        return self._lose(tx, "killed", f"the training process {how}")

    def _preempted(self, tx: Tx, _status: int) -> tables.Job:
        return jobs.preempt(tx, self.attempt)

    def _stopped(self, tx: Tx, _status: int) -> tables.Job:
        return jobs.stopped(tx, self.attempt)

    def _lose(self, tx: Tx, code: str, message: str) -> tables.Job:
        return jobs.lose(tx, self.attempt, code, message, max_attempts=self.settings.max_attempts)


def described(path: Path, location: Path) -> jobs.Artifact:
    """A file that an attempt has written, as the store registers it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return jobs.Artifact(path.name, path.stat().st_size, digest, media_type, str(location / path.name))
