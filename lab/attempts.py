"""The worker's side of a job: claim it, record what its training says, end the attempt.

Every write names the fence that the claim handed out. An attempt whose lease ran out and whose job was given to
somebody else is refused (``Fenced``), however late it comes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, null, or_, select, update
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from credit import events
from lab import bell, checkpoints, counters, fleet, progress, projects, series, tables, together
from lab.checkpoints import Stored
from lab.db import now
from lab.moves import clean, log, move
from lab.states import HELD, Event, State

MAX_BACKOFF_SECONDS = 60.0


class Fenced(Exception):  # noqa: N818  (it is an answer)
    """The attempt no longer owns its job: its lease ran out, or the job has ended."""


@dataclass(frozen=True)
class Attempt:
    """One try to train a job, as the worker that claimed it knows it."""

    job_id: str
    number: int
    fence: int
    spec: dict[str, Any]
    lease_seconds: float
    ran_seconds: float = 0.0
    """How long earlier attempts have run."""
    checkpoints: tuple[Stored, ...] = ()
    """Where it may go on from, the latest first."""
    traceparent: str | None = None
    """The trace of the job's submission."""


@dataclass(frozen=True)
class Orders:
    """What the service wants of a running attempt."""

    cancel: bool = False
    pause: bool = False


@dataclass(frozen=True)
class Artifact:
    """A file that an attempt has made; ``location`` is its path below the artifact store."""

    name: str
    size: int
    sha256: str
    media_type: str
    location: str


def claim(
    tx: Session, worker: str, *, cuda: bool, lease_seconds: float = 60, running_jobs: int | None = None
) -> Attempt | None:
    """Take the queued job that is due next, or None: highest priority first, then the oldest.

    Jobs of a project that has as many running as it may, by its own quota or else by ``running_jobs``, are passed over.
    """
    projects.hold_limits(tx, running_jobs)
    moment = now(tx)
    due = or_(tables.Job.not_before.is_(None), tables.Job.not_before <= moment)
    best = (
        select(tables.Job.id)
        .where(tables.Job.status == State.QUEUED, due, tables.Job.queue.in_(tables.QUEUES if cuda else ["default"]))
        .where(projects.has_room(running_jobs))
        .order_by(tables.Job.priority.desc(), tables.Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return _take(tx, worker, best, f"training on {worker}", lease_seconds)


def companions(
    tx: Session, worker: str, first: Attempt, *, lease_seconds: float = 60, running_jobs: int | None = None
) -> list[Attempt]:
    """Take jobs that wait and may train as one computation with one that has just been claimed; free slots get as many.

    They are of its project and priority, and none of them has been tried before: whatever becomes of this computation,
    each goes on alone.
    """
    job = tx.get_one(tables.Job, first.job_id)
    if job.together is None or first.number > 1:
        return []
    same = ("together", "project_id", "priority", "queue")
    waiting = select(tables.Job.id).where(
        tables.Job.status == State.QUEUED,
        tables.Job.attempt == 0,  # so there is no moment that it waits for
        *(getattr(tables.Job, name) == getattr(job, name) for name in same),
    )
    able = (one for one in fleet.fleet(tx) if one.row.cuda or job.queue != "cuda")
    alike = tx.scalar(select(func.count()).select_from(waiting.subquery())) or 0
    share = together.share(1 + alike, sum(one.free for one in able))
    mine = waiting.order_by(tables.Job.id).limit(share - 1).with_for_update(skip_locked=True)
    why = f"training on {worker} together with {job.id}"
    taken = []
    for job_id in list(tx.scalars(mine)):
        one = select(tables.Job.id).where(tables.Job.id == job_id, projects.has_room(running_jobs))
        if attempt := _take(tx, worker, one, why, lease_seconds, together_with=job.id):
            taken.append(attempt)
    if taken:
        tx.get_one(tables.Attempt, (job.id, first.number)).together_with = job.id
    return taken


def _take(tx: Session, worker: str, which: Select[str], why: str, lease_seconds: float, **known: Any) -> Attempt | None:
    """The attempt at the job that was selected; None where there is none any more."""
    moment = now(tx)
    job = move(
        tx,
        Event.CLAIM,
        [tables.Job.id == which.scalar_subquery()],
        why,
        fence=tables.Job.fence + 1,
        attempt=tables.Job.attempt + 1,
        lease_expires_at=moment + timedelta(seconds=lease_seconds),
        started_at=func.coalesce(tables.Job.started_at, moment),
        not_before=None,
    )
    if job is None:
        return None
    tx.add(tables.Attempt(job_id=job.id, number=job.attempt, worker=worker, started_at=moment, **known))
    latest = checkpoints.of(tx, job.id)
    history = (job.ran_seconds, latest, job.traceparent)
    return Attempt(job.id, job.attempt, job.fence, job.spec, lease_seconds, *history)


def record(tx: Session, attempt: Attempt, batch: Sequence[events.Event], number: int | None = None) -> Orders:
    """Store what an attempt has said since the last time, and renew its lease.

    Args:
        tx: the transaction to write in.
        attempt: the owner of the job.
        batch: what it has said.
        number: of the batch, counted from 1. One that is stored already, though its writer never learned that, is
            not stored again.

    Raises:
        Fenced: nothing was stored.
    """
    job = _held(tx, attempt)
    moment = now(tx)
    job.lease_expires_at = moment + timedelta(seconds=attempt.lease_seconds)
    row = tx.get_one(tables.Attempt, (attempt.job_id, attempt.number))
    if number is None or number > row.batches:
        row.batches = number or row.batches
        for event in batch:
            note = progress.absorb(tx, job, event, moment)
            if note:
                log(tx, job, moment, note)
        series.append(tx, job.id, (point for event in batch for point in event.points()))
        job.version += bool(batch)
    return _orders(State(job.status))


def finish(tx: Session, attempt: Attempt, results: dict[str, Any], artifacts: Sequence[Artifact]) -> tables.Job:
    """The training came to its end: results, artifacts and status, together or not at all. Raises Fenced."""
    job = _end(tx, attempt, Event.FINISH, "trained to its end", results=results)
    moment = job.finished_at
    assert moment is not None
    job.progress = progress.complete(job.progress)
    checkpoints.forget(tx, job.id)
    tx.execute(delete_rows(tables.Artifact).where(tables.Artifact.job_id == job.id))
    tx.add_all(
        tables.Artifact(job_id=job.id, attempt=attempt.number, created_at=moment, **vars(artifact))
        for artifact in artifacts
    )
    return job


def fail(tx: Session, attempt: Attempt, code: str, message: str) -> tables.Job:
    """The training failed for a reason that another attempt would meet again. Raises Fenced."""
    return _end(tx, attempt, Event.FAIL, message, level="error", code=code)


def lose(tx: Session, attempt: Attempt, code: str, message: str, *, max_attempts: int = 2) -> tables.Job:
    """The training process or its worker is gone. The job is queued again, or has failed if no attempt is left.

    Raises:
        Fenced: the attempt had lost its job before.
    """
    job = _held(tx, attempt)
    failures = job.failures + 1
    if failures >= max_attempts and job.status == State.RUNNING:
        return _end(tx, attempt, Event.FAIL, message, level="error", code=code, failures=failures)
    not_before = now(tx) + backoff(failures)
    return _requeue(tx, attempt, Event.LOSE, message, code, failures=failures, not_before=not_before)


def defer(tx: Session, attempt: Attempt, code: str, message: str) -> tables.Job:
    """Something outside the job stands in its way, such as a full disk: it waits until that is over. Raises Fenced."""
    not_before = now(tx) + backoff(attempt.number)
    return _requeue(tx, attempt, Event.LOSE, f"waits to be tried again: {message}", code, not_before=not_before)


def preempt(tx: Session, attempt: Attempt) -> tables.Job:
    """The worker shuts down: the job is queued again, and this attempt does not count as a failure. Raises Fenced."""
    return _requeue(tx, attempt, Event.PREEMPT, "its worker was shut down", "preempted", level="info")


def paused(tx: Session, attempt: Attempt) -> tables.Job:
    """The process of a job that was being paused is gone; a cancel that came meanwhile wins. Raises Fenced."""
    if _held(tx, attempt).status == State.CANCELLING:
        return stopped(tx, attempt)
    return _requeue(tx, attempt, Event.PAUSE_DONE, "paused by the user", "paused", level="info")


def stopped(tx: Session, attempt: Attempt) -> tables.Job:
    """The process of a job that was being cancelled is gone. Raises Fenced."""
    return _end(tx, attempt, Event.STOPPED, "cancelled by the user")


def concluded(tx: Session, attempt: Attempt, number: int) -> tables.Job | None:
    """The job, if the attempt has ended with its batch ``number``: a commit whose answer was lost."""
    row = tx.get(tables.Attempt, (attempt.job_id, attempt.number))
    return tx.get(tables.Job, attempt.job_id) if row and row.ended_at and row.batches >= number else None


def refused(tx: Session, attempt: Attempt) -> None:
    """Count a write that came too late. It is the one that a fenced attempt may do, on a row that is its own."""
    late = update(tables.Attempt).where(
        tables.Attempt.job_id == attempt.job_id, tables.Attempt.number == attempt.number
    )
    tx.execute(late.values(refused_writes=tables.Attempt.refused_writes + 1))
    counters.count(tx, "fenced_writes")
    job = tx.scalar(select(tables.Job).where(tables.Job.id == attempt.job_id).with_for_update())
    if job is not None:
        message = f"a write of attempt {attempt.number} was refused: it does not own the job any more"
        log(tx, job, now(tx), progress.Note("warning", message, {"attempt": attempt.number}, "warning"))
        job.version += 1


def expired(tx: Session) -> list[Attempt]:
    """Attempts whose lease has run out; their jobs are locked until the transaction ends."""
    late = select(tables.Job).where(tables.Job.status.in_(HELD), tables.Job.lease_expires_at < now(tx))
    late = late.with_for_update(skip_locked=True)
    return [Attempt(job.id, job.attempt, job.fence, job.spec, 0) for job in tx.scalars(late)]


def orders(tx: Session, attempt: Attempt) -> Orders:
    """What the service wants of a running attempt; writes nothing. Raises Fenced."""
    status = tx.scalar(select(tables.Job.status).where(*_fence(attempt), tables.Job.status.in_(HELD)))
    if status is None:
        raise Fenced(attempt.job_id)
    return _orders(State(status))


def _orders(status: State) -> Orders:
    return Orders(cancel=status == State.CANCELLING, pause=status == State.PAUSING)


def backoff(count: int) -> timedelta:
    """Twice as long each time, up to a minute."""
    return timedelta(seconds=min(2.0 ** min(count, 10), MAX_BACKOFF_SECONDS))


def _held(tx: Session, attempt: Attempt) -> tables.Job:
    """The job, locked, if the attempt still owns it."""
    owned = select(tables.Job).where(*_fence(attempt), tables.Job.status.in_(HELD)).with_for_update()
    job = tx.scalar(owned.execution_options(populate_existing=True))
    if job is None:
        raise Fenced(attempt.job_id)
    return job


def _fence(attempt: Attempt) -> list[ColumnElement[bool]]:
    return [tables.Job.id == attempt.job_id, tables.Job.fence == attempt.fence]


def _end(
    tx: Session, attempt: Attempt, event: Event, why: str, level: str = "info", code: str | None = None, **changes: Any
) -> tables.Job:
    """The last transition of an attempt. A job that was being cancelled ends cancelled, without an error."""
    why = clean(why)
    if code:
        error = literal({"code": code, "message": why}, tables.Job.error.type)
        changes["error"] = case((tables.Job.status == State.CANCELLING, null()), else_=error)
    job = move(tx, event, _fence(attempt), why, level, **changes)
    if job is None:
        raise Fenced(attempt.job_id)
    _close(tx, attempt, job, code or str(event))
    return job


def _requeue(
    tx: Session, attempt: Attempt, event: Event, why: str, outcome: str, level: str = "warning", **changes: Any
) -> tables.Job:
    """Queue a job again, or let it rest; the next attempt says where it goes on, and voids what came after that."""
    job = move(tx, event, _fence(attempt), clean(why), level, **changes)
    if job is None:
        raise Fenced(attempt.job_id)
    _close(tx, attempt, job, outcome)
    job.progress = job.progress | {"eta_seconds": None}
    if job.status == State.QUEUED:
        job.rung_at = None
        bell.ring_after_commit(tx, job.queue)
    return job


def _close(tx: Session, attempt: Attempt, job: tables.Job, outcome: str) -> None:
    row = tx.get_one(tables.Attempt, (attempt.job_id, attempt.number))
    row.ended_at, row.outcome = now(tx), outcome
    counters.count_attempt(tx, outcome)
    job.ran_seconds += max(0.0, (row.ended_at - row.started_at).total_seconds())
