"""Every write to a job. This is the only module that changes ``jobs.status``.

A transition is one guarded UPDATE: it names the states it leaves from and, for an attempt, the fence it holds. No row
is an answer (``Fenced``), not an accident. Every transition raises the version and writes an event in the same
transaction.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal, null, or_, select, update
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from credit import events, spec
from lab import bell, progress, series, specs, tables, webhooks
from lab.db import now
from lab.errors import JobNotFound, WrongState
from lab.ids import new_id
from lab.states import EDGES, HELD, TERMINAL, Event, State, targets

MAX_MESSAGE = 4000
MAX_BACKOFF_SECONDS = 60.0
NAME_LIMIT = 200
CONTROLS: dict[spec.Control, spec.Method] = {"bp": spec.BP(), "shallow": spec.Shallow()}


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


@dataclass(frozen=True)
class Orders:
    """What the service wants of a running attempt."""

    cancel: bool


@dataclass(frozen=True)
class Artifact:
    """A file that an attempt has made; ``location`` is its path below the artifact store."""

    name: str
    size: int
    sha256: str
    media_type: str
    location: str


# ---- the user's side -------------------------------------------------------------------------------------------------


def submit(tx: Session, run: spec.Run) -> tables.Job:
    """Queue a resolved run, and its controls as jobs of their own."""
    moment = now(tx)
    job = _insert(tx, run, moment)
    for control in run.controls:
        suffix = f" · {control} twin"
        name = (run.name or run.method.name)[: NAME_LIMIT - len(suffix)] + suffix
        twin = _insert(tx, replace(run, method=CONTROLS[control], controls=(), name=name), moment)
        tx.add(tables.Twin(job_id=job.id, method=control, twin_id=twin.id))
    tx.flush()
    return job


def get(tx: Session, job_id: str) -> tables.Job:
    """The job. Raises JobNotFound."""
    job = tx.get(tables.Job, job_id)
    if job is None:
        raise JobNotFound(job_id)
    return job


def cancel(tx: Session, job_id: str) -> tables.Job:
    """Cancel a job: at once where nothing runs, else its worker is told and ends the process.

    Raises:
        JobNotFound: there is none.
        WrongState: it has ended.
    """
    job = tx.scalar(select(tables.Job).where(tables.Job.id == job_id).with_for_update())
    if job is None:
        raise JobNotFound(job_id)
    if job.status == State.CANCELLING:
        return job
    if (State(job.status), Event.CANCEL) not in EDGES:
        raise WrongState("cancel", job.status, [*targets(Event.CANCEL), State.CANCELLING])
    moved = _move(tx, Event.CANCEL, [tables.Job.id == job_id], "cancelled by the user")
    assert moved is not None
    return moved


def delete(tx: Session, job_id: str) -> None:
    """Forget a job that has ended, with its metrics, log and artifacts.

    Raises:
        JobNotFound: there is none.
        WrongState: it has not ended.
    """
    gone = delete_rows(tables.Job).where(tables.Job.id == job_id, tables.Job.status.in_(TERMINAL))
    if tx.scalar(gone.returning(tables.Job.id)) is None:
        raise WrongState("delete", get(tx, job_id).status, sorted(TERMINAL))


# ---- the worker's side -----------------------------------------------------------------------------------------------


def claim(tx: Session, worker: str, *, cuda: bool, lease_seconds: float = 60) -> Attempt | None:
    """Take the queued job that is due next, or None: highest priority first, then the oldest."""
    moment = now(tx)
    due = or_(tables.Job.not_before.is_(None), tables.Job.not_before <= moment)
    best = (
        select(tables.Job.id)
        .where(tables.Job.status == State.QUEUED, due, tables.Job.queue.in_(tables.QUEUES if cuda else ["default"]))
        .order_by(tables.Job.priority.desc(), tables.Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    job = _move(
        tx,
        Event.CLAIM,
        [tables.Job.id == best.scalar_subquery()],
        f"training on {worker}",
        fence=tables.Job.fence + 1,
        attempt=tables.Job.attempt + 1,
        lease_expires_at=moment + timedelta(seconds=lease_seconds),
        started_at=func.coalesce(tables.Job.started_at, moment),
        not_before=None,
    )
    if job is None:
        return None
    tx.add(tables.Attempt(job_id=job.id, number=job.attempt, worker=worker, started_at=moment))
    return Attempt(job.id, job.attempt, job.fence, job.spec, lease_seconds)


def record(tx: Session, attempt: Attempt, batch: Sequence[events.Event]) -> Orders:
    """Store what an attempt has said since the last time, and renew its lease.

    Raises:
        Fenced: nothing was stored.
    """
    job = _held(tx, attempt)
    moment = now(tx)
    job.lease_expires_at = moment + timedelta(seconds=attempt.lease_seconds)
    series.append(tx, job.id, (point for event in batch for point in event.points()))
    for event in batch:
        note = progress.absorb(tx, job, event, moment)
        if note:
            _log(tx, job, moment, note)
    job.version += bool(batch)
    return Orders(cancel=job.status == State.CANCELLING)


def finish(tx: Session, attempt: Attempt, results: dict[str, Any], artifacts: Sequence[Artifact]) -> tables.Job:
    """The training came to its end: results, artifacts and status, together or not at all. Raises Fenced."""
    job = _end(tx, attempt, Event.FINISH, "trained to its end", results=results)
    moment = job.finished_at
    assert moment is not None
    job.progress = progress.complete(job.progress)
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
    if failures >= max_attempts and job.status != State.CANCELLING:
        return _end(tx, attempt, Event.FAIL, message, level="error", code=code, failures=failures)
    backoff = timedelta(seconds=min(2.0**failures, MAX_BACKOFF_SECONDS))
    return _requeue(tx, attempt, Event.LOSE, message, code, failures=failures, not_before=now(tx) + backoff)


def preempt(tx: Session, attempt: Attempt) -> tables.Job:
    """The worker shuts down: the job is queued again, and this attempt does not count as a failure. Raises Fenced."""
    return _requeue(tx, attempt, Event.PREEMPT, "its worker was shut down", "preempted")


def stopped(tx: Session, attempt: Attempt) -> tables.Job:
    """The process of a job that was being cancelled is gone. Raises Fenced."""
    return _end(tx, attempt, Event.STOPPED, "cancelled by the user")


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
    return Orders(cancel=status == State.CANCELLING)


def unrung(tx: Session, older_than: timedelta) -> list[str]:
    """The queues of due jobs for which nobody has rung lately, one for each; they count as rung now."""
    moment = now(tx)
    due = or_(tables.Job.not_before.is_(None), tables.Job.not_before <= moment)
    stale = or_(tables.Job.rung_at.is_(None), tables.Job.rung_at < moment - older_than)
    rung = update(tables.Job).where(tables.Job.status == State.QUEUED, due, stale).values(rung_at=moment)
    return list(tx.scalars(rung.returning(tables.Job.queue)))


# ---- how ------------------------------------------------------------------------------------------------------------


def _insert(tx: Session, run: spec.Run, moment: datetime) -> tables.Job:
    assert run.training.seed is not None
    assert run.training.threads is not None
    queue = "cuda" if run.training.device.startswith("cuda") else "default"
    job = tables.Job(
        id=new_id("job"),
        name=run.name,
        status=State.QUEUED,
        status_reason="waiting for a worker",
        spec=specs.to_dict(run),
        spec_sha256=specs.sha256(run),
        method=run.method.name,
        model=run.model.name,
        dataset=run.dataset.name,
        queue=queue,
        priority=run.priority,
        progress=progress.none_yet(run),
        created_at=moment,
        rung_at=moment,
        last_seq=0,
    )
    tx.add(job)
    tx.flush()
    tx.add_all(tables.Label(job_id=job.id, key=key, value=value) for key, value in run.labels.items())
    _log(tx, job, moment, progress.Note("status", "submitted", {"status": job.status}))
    bell.ring_after_commit(tx, queue)
    return job


def _held(tx: Session, attempt: Attempt) -> tables.Job:
    """The job, locked, if the attempt still owns it."""
    owned = select(tables.Job).where(*_fence(attempt), tables.Job.status.in_(HELD)).with_for_update()
    job = tx.scalar(owned.execution_options(populate_existing=True))
    if job is None:
        raise Fenced(attempt.job_id)
    return job


def _fence(attempt: Attempt) -> list[ColumnElement[bool]]:
    return [tables.Job.id == attempt.job_id, tables.Job.fence == attempt.fence]


def _move(
    tx: Session, event: Event, where: Sequence[ColumnElement[bool]], why: str, level: str = "info", **changes: Any
) -> tables.Job | None:
    """The one transition: the job after it, or None if no job is where ``event`` can leave from."""
    moment = now(tx)
    edges = targets(event)
    ends = [source for source, target in edges.items() if target in TERMINAL]
    keeps = [source for source, target in edges.items() if target in HELD]
    values = {
        "status": case({str(source): str(target) for source, target in edges.items()}, value=tables.Job.status),
        "status_reason": why,
        "finished_at": case((tables.Job.status.in_(ends), moment), else_=null()),
        "lease_expires_at": case((tables.Job.status.in_(keeps), tables.Job.lease_expires_at), else_=null()),
        "version": tables.Job.version + 1,
        "status_changes": tables.Job.status_changes + 1,
    }
    guarded = update(tables.Job).where(*where, tables.Job.status.in_(edges)).values(values | changes)
    guarded = guarded.returning(tables.Job).execution_options(populate_existing=True, synchronize_session=False)
    job = tx.scalar(guarded)
    if job is not None:
        _log(tx, job, moment, progress.Note("status", why, {"status": job.status, "cause": str(event)}, level))
    return job


def _end(
    tx: Session, attempt: Attempt, event: Event, why: str, level: str = "info", code: str | None = None, **changes: Any
) -> tables.Job:
    """The last transition of an attempt. A job that was being cancelled ends cancelled, without an error."""
    why = clean(why)
    if code:
        error = literal({"code": code, "message": why}, tables.Job.error.type)
        changes["error"] = case((tables.Job.status == State.CANCELLING, null()), else_=error)
    job = _move(tx, event, _fence(attempt), why, level, **changes)
    if job is None:
        raise Fenced(attempt.job_id)
    _close(tx, attempt, code or str(event))
    return job


def _requeue(tx: Session, attempt: Attempt, event: Event, why: str, outcome: str, **changes: Any) -> tables.Job:
    """Queue a job again. Without checkpoints the next attempt begins at step 0, so this one's points are deleted."""
    job = _move(tx, event, _fence(attempt), clean(why), "warning", **changes)
    if job is None:
        raise Fenced(attempt.job_id)
    _close(tx, attempt, outcome)
    if job.status == State.QUEUED:
        series.forget(tx, job.id)
        job.results = None
        job.progress = progress.none_yet(specs.from_dict(job.spec))
        job.rung_at = None
        bell.ring_after_commit(tx, job.queue)
    return job


def _close(tx: Session, attempt: Attempt, outcome: str) -> None:
    row = tx.get_one(tables.Attempt, (attempt.job_id, attempt.number))
    row.ended_at, row.outcome = now(tx), outcome


def _log(tx: Session, job: tables.Job, moment: datetime, note: progress.Note) -> None:
    """Write the next event of a job; the caller holds the lock of its row."""
    job.last_seq += 1
    seq, attempt = job.last_seq, job.attempt
    tx.add(tables.Event(job_id=job.id, seq=seq, at=moment, attempt=attempt, **vars(note)))
    webhooks.announce(tx, job, moment, note)


def clean(text: str) -> str:
    """A text that every database can store."""
    return re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)[:MAX_MESSAGE]
