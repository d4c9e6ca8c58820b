"""The checkpoints of a job that its next attempt may go on from: the last two, since the last one may be damaged."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from lab import tables

KEPT = 2


@dataclass(frozen=True)
class Stored:
    """A checkpoint in the artifact store."""

    step: int
    location: str
    size: int
    sha256: str


def of(tx: Session, job_id: str) -> tuple[Stored, ...]:
    """The checkpoints of a job, the latest first."""
    rows = select(tables.Checkpoint).where(tables.Checkpoint.job_id == job_id).order_by(tables.Checkpoint.step.desc())
    return tuple(Stored(row.step, row.location, row.size, row.sha256) for row in tx.scalars(rows))


def add(tx: Session, job_id: str, attempt: int, stored: Stored, moment: datetime) -> None:
    """Register the latest checkpoint. Any at its step or beyond come from a future that has been voided."""
    known = of(tx, job_id)
    outdated = [one.step for one in known if one.step >= stored.step]
    outdated += [one.step for one in known if one.step < stored.step][KEPT - 1 :]
    drop(tx, job_id, outdated)
    tx.add(tables.Checkpoint(job_id=job_id, attempt=attempt, created_at=moment, **vars(stored)))


def drop(tx: Session, job_id: str, steps: list[int]) -> None:
    gone = delete(tables.Checkpoint).where(tables.Checkpoint.job_id == job_id, tables.Checkpoint.step.in_(steps))
    tx.execute(gone)


def beyond(tx: Session, job_id: str, step: int) -> None:
    """Forget checkpoints after ``step``: an attempt goes on from there, since they are damaged."""
    drop(tx, job_id, [stored.step for stored in of(tx, job_id) if stored.step > step])


def forget(tx: Session, job_id: str) -> None:
    """Forget all checkpoints of a job."""
    tx.execute(delete(tables.Checkpoint).where(tables.Checkpoint.job_id == job_id))


def locations(tx: Session, job_id: str) -> set[str]:
    """Every file of a job that a row names: checkpoints and artifacts."""
    names = (select(table.location).where(table.job_id == job_id) for table in (tables.Checkpoint, tables.Artifact))
    return {location for rows in names for location in tx.scalars(rows)}
