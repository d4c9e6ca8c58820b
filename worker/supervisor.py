"""One attempt: start its training process, store what it says, renew the lease, stop it when told, say how it ended."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from credit.events import Checkpointed, Event, Failed, Finished, RunError, Started, from_json
from lab import attempts, checkpoints, logs, series, tables
from lab.db import Database, Tx
from lab.errors import DatabaseUnavailable, StoreUnavailable
from lab.files import Store
from lab.settings import Settings
from worker import launch
from worker.company import Seat
from worker.spans import AttemptSpans
from worker.transfer import Transfer

LOOK_SECONDS = 0.3
"""How often orders are looked at; a cancelled process is gone within that, its grace and a little."""
BATCH_SECONDS = 0.8
BATCH_POINTS = 500
RETRY_SECONDS = 0.5
LAST_CHECKPOINT_SECONDS = 12.0
"""A process that shall stop may take so long over its last checkpoint, and then the store over taking it."""
PATIENCE_SECONDS = 600.0
"""Training goes on for so long while the database is away; nobody else can claim the job meanwhile."""
MAY_PASS = {"out_of_memory", "killed"}
"""Failures that another attempt may be spared."""
NOT_ITS_FAULT = {"storage_unavailable"}
"""Failures that no attempt of any job is to blame for."""

log = logging.getLogger(__name__)

T = TypeVar("T")
Start = Callable[[dict[str, Any]], launch.Runner | Seat]
Ending = Callable[[Tx, int], tables.Job]
"""The last write of an attempt, told the exit status of the process."""


class UnreachableError(Exception):
    """The database does not answer, and there is no time to wait for it."""


class Ends(Exception):  # noqa: N818  (it is an answer)
    """The attempt ends before its process could start, or while the store was waited for."""

    def __init__(self, ending: Ending) -> None:
        super().__init__()
        self.ending = ending


class Supervision:
    """The life of one attempt in this worker.

    Args:
        database: where the job is.
        settings: of the service.
        store: where files are kept.
        attempt: as it was claimed.
        draining: is set when the worker shuts down.
        start: has a process train as ordered: one of its own, unless it is told otherwise.
        began: when the attempt's claim was begun, in nanoseconds since 1970; for its trace.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        store: Store,
        attempt: attempts.Attempt,
        draining: threading.Event,
        start: Start = launch.alone,
        began: int | None = None,
    ) -> None:
        self.start = start
        self.database = database
        self.settings = settings
        self.attempt = attempt
        self.draining = draining
        self.store = store
        self.folder = settings.attempts_dir / f"{attempt.job_id}-{attempt.fence}"
        self.spans = AttemptSpans(attempt, began)
        self.transfer = Transfer(store, attempt, self.folder)
        self.unstored: list[Event] = []
        self.batch = 1
        self.started = False
        self.runner: launch.Runner | Seat | None = None
        self.last: Ending | None = None
        """How the attempt ends once the last checkpoint is there, or its time is over."""
        self.last_until = 0.0
        self.outcome: str | None = None
        """As its row has it, or why it has none."""
        self.stored_at = self.renewed_at = self.asked_at = self.greeted_at = time.monotonic()

    def run(self) -> None:
        """Train to the end, whatever that is. Afterwards the job is in its next state, or somebody else's."""
        known = {"job_id": self.attempt.job_id, "attempt": self.attempt.number}
        with logs.bound(**known, trace_id=self.spans.attempt.trace_id):
            try:
                self._run()
            finally:
                self.spans.end(self.outcome)

    def _run(self) -> None:
        try:
            job = self._train()
        except attempts.Fenced:
            self.outcome = "fenced"
            log.warning("attempt ends, the job is not ours any more")
            self._count_refusal()
        except UnreachableError:
            self.outcome = "database_unavailable"
            log.warning("attempt ends, the database was away for too long; the job's lease will run out")
        else:
            log.info("attempt ends, job %s: %s", job.status, job.status_reason)
            self._clear()
            self.transfer.unnamed.clear()
            self.transfer.do(self._prune).result()
        finally:
            self._clear()
            self.transfer.close()

    def _clear(self) -> None:
        """Remove the attempt's folder; what is still waiting for its way to the store does not find its file."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _train(self) -> tables.Job:
        """Raises Fenced, UnreachableError."""
        try:
            runner = self.start(self._order())
        except (Ends, OSError, EOFError) as error:
            told = f"no training process could be started: {error}"
            ending = error.ending if isinstance(error, Ends) else self._failed("storage_unavailable", told)
            return self._in(self.database.write, lambda tx: self._conclude(tx, ending, 0))
        log.info("attempt starts, process %d", runner.pid)
        self.runner = runner
        try:
            ending = self._follow(runner)
        except Ends as early:
            ending = early.ending
        finally:
            self.runner = None
            runner.stop()
            status = runner.exit_status()
        self.unstored += self.transfer.kept()
        return self._in(self.database.write, lambda tx: self._conclude(tx, ending, status))

    def _order(self) -> dict[str, Any]:
        """Raises Ends, Fenced, UnreachableError."""
        placed = self.settings.datasets_dir
        self.folder.mkdir(parents=True, exist_ok=True)
        return {
            "job_id": self.attempt.job_id,
            "attempt": self.attempt.number,
            "trace_id": self.spans.attempt.trace_id,
            "spec": self.attempt.spec,
            "datasets": placed and str(placed),
            "cache": str(self.settings.cache_dir),
            "folder": str(self.folder),
            "checkpoints": self._fetched(),
            "history": self._history(),
            "checkpoint_seconds": self.settings.checkpoint_seconds,
            "checkpoint_share": self.settings.checkpoint_share,
            "lease_seconds": self.attempt.lease_seconds,
        }

    def _fetched(self) -> list[dict[str, Any]]:
        """Have from the store what the run needs: its data set, and the checkpoints that it may go on from.

        Raises:
            Ends: that cannot be had, or somebody wants the attempt to end first.
        """
        try:
            return self._patiently(lambda: self.transfer.fetch(self.settings))
        except StoreUnavailable as error:
            told = f"what the run needs could not be fetched: {error.reason}"
            raise Ends(self._failed(error.code, told)) from error
        except RunError as error:
            raise Ends(self._failed(error.code, str(error))) from error

    def _patiently(self, work: Callable[[], T], reprieve: float = 0.0) -> T:
        """Have the store do something, however long it takes; lease and process are looked after meanwhile.

        Raises:
            Ends: the job is cancelled; or it is paused, or the worker shuts down, and the ``reprieve`` is over.
        """
        task, until = self.transfer.do(work), None
        while wait([task], LOOK_SECONDS).not_done:
            self._greet()
            orders = self._obey() or attempts.Orders()
            if orders.cancel:
                raise Ends(self._stopped)
            if orders.pause or self.draining.is_set():
                until = until or time.monotonic() + reprieve
                if time.monotonic() >= until:
                    raise Ends(self._paused if orders.pause else self._preempted)
        return task.result()

    def _history(self) -> str | None:
        """A file with the points that were stored before the checkpoint: the figures show the whole run."""
        if not self.attempt.checkpoints:
            return None
        job_id, last = self.attempt.job_id, self.attempt.checkpoints[0].step
        points = self._in(self.database.read, lambda tx: series.read(tx, job_id, to_step=last))
        file = self.folder / "history.json"
        file.write_text(json.dumps(points))
        return str(file)

    def _follow(self, runner: launch.Runner | Seat) -> Ending:
        """Listen and obey until there is a reason to end. Raises Fenced."""
        limit = self.attempt.spec["max_runtime_seconds"]
        deadline = time.monotonic() + (limit - self.attempt.ran_seconds if limit else float("inf"))
        while True:
            runner.wait(LOOK_SECONDS)
            ended = runner.ended()
            for event in self._hear(runner, everything=ended):
                if ending := self._listen(event):
                    return ending
            self.unstored += self.transfer.kept()
            if ended:
                return self._settled(self.last or self._died)
            if self.last and (time.monotonic() > self.last_until or not self.started):
                return self.last
            self._greet()
            if self.draining.is_set():
                self._end_with_checkpoint(runner, self._preempted)
            elif time.monotonic() > deadline:
                timeout = f"training took longer than max_runtime_seconds, {limit:g}"
                self._end_with_checkpoint(runner, self._failed("timeout", timeout))
            orders = self._obey()
            if orders and orders.cancel:
                return self._stopped
            if orders and orders.pause:
                self._end_with_checkpoint(runner, self._paused)

    def _hear(self, runner: launch.Runner | Seat, *, everything: bool) -> Iterator[Event]:
        """What the process has said and nobody has read: a batch of it, or everything."""
        points = 0
        while (everything or points < BATCH_POINTS) and (said := runner.hear()):
            event = from_json(said)
            points += sum(1 for _ in event.points())
            yield event

    def _listen(self, event: Event) -> Ending | None:
        """Take a word of the process; the ending, if it was the last one."""
        self.spans.hear(event)
        if isinstance(event, Finished):
            return self._finished(event)
        if isinstance(event, Failed):
            return self._settled(self._failed(event.code, event.message))
        if isinstance(event, Checkpointed):
            self.transfer.keep(event)
            return None
        self.started |= isinstance(event, Started)
        self.unstored.append(event)
        return None

    def _greet(self) -> None:
        """Let the process know now and then that its supervisor lives."""
        if self.runner and time.monotonic() - self.greeted_at > self.attempt.lease_seconds / 4:
            self.runner.tell("alive")
            self.greeted_at = time.monotonic()

    def _end_with_checkpoint(self, runner: launch.Runner | Seat, ending: Ending) -> None:
        """Ask the process for a last checkpoint, after which the attempt ends; the first reason to end stands."""
        if self.last is None:
            self.last, self.last_until = ending, time.monotonic() + LAST_CHECKPOINT_SECONDS
            runner.tell("stop")

    def _settled(self, ending: Ending) -> Ending:
        """How the attempt ends, once the checkpoints on their way are in the store or have had their time."""
        until = time.monotonic() + LAST_CHECKPOINT_SECONDS
        while self.transfer.busy(LOOK_SECONDS) and time.monotonic() < until:
            self.unstored += self.transfer.kept()
            if (orders := self._obey()) and orders.cancel:
                return self._stopped
        return ending

    def _obey(self) -> attempts.Orders | None:
        """Store what is due, and ask for orders now and then; None where it is too early. Raises Fenced."""
        clock = time.monotonic()
        if self._is_due(clock):
            batch, number = self.unstored, self.batch
            orders = self._in(self.database.write, lambda tx: attempts.record(tx, self.attempt, batch, number))
            self.unstored, self.batch = [], number + 1
            self.stored_at = self.renewed_at = self.asked_at = time.monotonic()
            if named := {event.file for event in batch if isinstance(event, Checkpointed)}:
                self.transfer.unnamed -= named
                self.transfer.do(self._prune)
            return orders
        if clock - self.asked_at >= LOOK_SECONDS:
            orders = self._in(self.database.read, lambda tx: attempts.orders(tx, self.attempt))
            self.asked_at = time.monotonic()
            return orders
        return None

    def _is_due(self, clock: float) -> bool:
        """Whether to write: at the first step, by age, by size, or to renew the lease."""
        first_step = any(isinstance(event, Started) for event in self.unstored)
        full = sum(1 for event in self.unstored for _ in event.points()) >= BATCH_POINTS
        old = bool(self.unstored) and clock - self.stored_at > BATCH_SECONDS
        return first_step or full or old or clock - self.renewed_at > self.attempt.lease_seconds / 4

    def _in(self, transaction: Callable[[], AbstractContextManager[Tx]], work: Callable[[Tx], T]) -> T:
        """Do something in a transaction, again and again while the database is away.

        Raises:
            UnreachableError: it was away for too long, or the worker shuts down.
        """
        while True:
            try:
                with transaction() as tx:
                    return work(tx)
            except DatabaseUnavailable:
                late = time.monotonic() > self.renewed_at + self.attempt.lease_seconds + PATIENCE_SECONDS
                if late or self.draining.is_set():
                    raise UnreachableError from None
                log.warning("the database is away; training goes on")
                self._greet()
                time.sleep(RETRY_SECONDS)

    def _count_refusal(self) -> None:
        try:
            with self.database.write() as tx:
                attempts.refused(tx, self.attempt)
        except DatabaseUnavailable:
            log.warning("the database is away; the refusal is not counted")

    def _prune(self) -> None:
        """Remove files that no row names or is about to: older checkpoints, and what attempts before have left."""
        unnamed = set(self.transfer.unnamed)  # read first: what is named in between is among the rows then
        try:
            with self.database.read() as tx:
                keep = checkpoints.locations(tx, self.attempt.job_id)
            self.store.prune(self.attempt.job_id, self.attempt.fence, keep | unnamed)
        except (DatabaseUnavailable, StoreUnavailable) as error:
            log.warning("old files stay: %s", getattr(error, "reason", error))

    # ---- endings ----------------------------------------------------------------------------------------------------

    def _conclude(self, tx: Tx, ending: Ending, status: int) -> tables.Job:
        """What was not stored yet, and the job's next state, in one transaction; once, however often it is tried."""
        job = attempts.concluded(tx, self.attempt, self.batch)
        if job is None:
            attempts.record(tx, self.attempt, self.unstored, self.batch)
            job = ending(tx, status)
        self.outcome = tx.get_one(tables.Attempt, (job.id, self.attempt.number)).outcome
        return job

    def _finished(self, event: Finished) -> Ending:
        """Raises Ends."""
        try:
            with self.spans.part("store artifacts"):
                files = self._patiently(self.transfer.artifacts, LAST_CHECKPOINT_SECONDS)
        except StoreUnavailable as error:
            return self._failed(error.code, f"the run's files could not be stored: {error.reason}")
        except OSError as error:
            return self._failed("storage_unavailable", f"the run's files could not be read: {error}")
        return lambda tx, _: attempts.finish(tx, self.attempt, event.results, files)

    def _failed(self, code: str, message: str) -> Ending:
        if code in MAY_PASS:
            return lambda tx, _: self._lose(tx, code, message)
        if code in NOT_ITS_FAULT:
            return lambda tx, _: attempts.defer(tx, self.attempt, code, message)
        return lambda tx, _: attempts.fail(tx, self.attempt, code, message)

    def _died(self, tx: Tx, status: int) -> tables.Job:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        return self._lose(tx, "killed", f"the training process {how}")

    def _preempted(self, tx: Tx, _status: int) -> tables.Job:
        return attempts.preempt(tx, self.attempt)

    def _paused(self, tx: Tx, _status: int) -> tables.Job:
        return attempts.paused(tx, self.attempt)

    def _stopped(self, tx: Tx, _status: int) -> tables.Job:
        return attempts.stopped(tx, self.attempt)

    def _lose(self, tx: Tx, code: str, message: str) -> tables.Job:
        return attempts.lose(tx, self.attempt, code, message, max_attempts=self.settings.max_attempts)
