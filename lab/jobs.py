"""The user's side of a job: submit, look at, cancel, pause, resume, retry, delete."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.orm import Session

from credit import spec
from lab import bell, progress, specs, tables, together, traces
from lab.db import now
from lab.errors import JobNotFound, WrongState
from lab.ids import new_id
from lab.moves import move, write_last
from lab.states import EDGES, HELD, TERMINAL, Event, State, targets

NAME_LIMIT = 200
CONTROLS: dict[spec.Control, spec.Method] = {"bp": spec.BP(), "shallow": spec.Shallow()}


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
    return _command(tx, job_id, Event.CANCEL, "cancelled by the user", already=State.CANCELLING)


def pause(tx: Session, job_id: str) -> tables.Job:
    """Pause a job: at once where nothing runs, else its worker stores a checkpoint and ends the process.

    Raises:
        JobNotFound: there is none.
        WrongState: it rests already, is being cancelled or has ended.
    """
    return _command(tx, job_id, Event.PAUSE, "paused by the user", already=State.PAUSING)


def resume(tx: Session, job_id: str) -> tables.Job:
    """Queue a paused job; it goes on from its last checkpoint. Raises JobNotFound, WrongState."""
    return _queue(tx, _command(tx, job_id, Event.RESUME, "resumed by the user; waiting for a worker"))


def retry(tx: Session, job_id: str) -> tables.Job:
    """Queue a failed or cancelled job once more, from its last checkpoint; failures are counted anew.

    Raises:
        JobNotFound: there is none.
        WrongState: it has neither failed nor been cancelled.
    """
    job = _command(tx, job_id, Event.RETRY, "tried again by the user; waiting for a worker")
    job.error, job.failures, job.ran_seconds, job.not_before = None, 0, 0.0, None
    return _queue(tx, job)


def require_end(tx: Session, job_id: str) -> None:
    """Make sure that a job has ended. Raises JobNotFound, WrongState."""
    if (status := get(tx, job_id).status) not in TERMINAL:
        raise WrongState("delete", status, sorted(TERMINAL))


def delete(tx: Session, job_id: str) -> None:
    """Forget a job that has ended, with its metrics and log; its files are removed before.

    Raises:
        JobNotFound: there is none.
        WrongState: it has not ended.
    """
    gone = delete_rows(tables.Job).where(tables.Job.id == job_id, tables.Job.status.in_(TERMINAL))
    if tx.scalar(gone.returning(tables.Job.id)) is None:
        require_end(tx, job_id)


def _command(tx: Session, job_id: str, event: Event, why: str, already: State | None = None) -> tables.Job:
    """The job after a user's command; unchanged if it is ``already`` doing that."""
    job = tx.scalar(select(tables.Job).where(tables.Job.id == job_id).with_for_update())
    if job is None:
        raise JobNotFound(job_id)
    if job.status == already:
        return job
    if (State(job.status), event) not in EDGES:
        raise WrongState(str(event), job.status, [*targets(event), *([already] if already else [])])
    moved = move(tx, event, [tables.Job.id == job_id], why)
    assert moved is not None
    if moved.status in HELD:
        moved.status_reason = f"{why}; its process is being ended"
    return moved


def _queue(tx: Session, job: tables.Job) -> tables.Job:
    """Ring for a job that is due now."""
    job.rung_at = now(tx)
    bell.ring_after_commit(tx, job.queue)
    return job


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
        together=together.key(run),
        progress=progress.none_yet(run),
        rung_at=moment,
        created_at=moment,
        started_at=None,
        finished_at=None,
        error=None,
        last_seq=1,
        traceparent=traces.traceparent(),
    )
    tx.add(job)
    tx.flush()
    tx.add_all(tables.Label(job_id=job.id, key=key, value=value) for key, value in run.labels.items())
    write_last(tx, job, moment, progress.Note("status", "submitted", {"status": job.status}))
    bell.ring_after_commit(tx, job.queue)
    return job
