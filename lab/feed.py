"""What is new of a job since somebody last looked: its events in order, then how far it is and its newest points."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lab import reads, series, tables
from lab.errors import JobNotFound
from lab.states import TERMINAL

PAGE = 500
MAX_POINTS = 1000
"""Of one series in one look; who has slept longer reads the rest from the stored series."""


@dataclass(frozen=True)
class Place:
    """How far a reader has come with a job."""

    job_id: str
    seq: int
    """Of the last event it knows."""
    version: int = 0
    """Of the job, when everything up to it had been told."""
    points: Mapping[int, int] | None = None
    """How many points of each series were there; None: it has not looked yet, and is told only what comes."""


@dataclass(frozen=True)
class News:
    """What a look has found."""

    status: str | None
    """None: there is no such job any more."""
    events: list[dict[str, Any]] = field(default_factory=list)
    progress: dict[str, Any] | None = None
    series: list[dict[str, Any]] = field(default_factory=list)
    more: bool = False
    """Whether there are more events than one look takes."""

    @property
    def last(self) -> bool:
        """Whether nothing will follow."""
        return not self.more and (self.status is None or self.status in TERMINAL)


def look(tx: Session, place: Place) -> tuple[News, Place]:
    """What is new since ``place``, and the place afterwards. Live values are told when all events have been."""
    columns = (tables.Job.status, tables.Job.version, tables.Job.last_seq, tables.Job.progress)
    job = tx.execute(select(*columns).where(tables.Job.id == place.job_id)).one_or_none()
    if job is None:
        return News(None), place
    events = reads.log_of(tx, place.job_id, place.seq, PAGE) if job.last_seq > place.seq else []
    seq = events[-1]["seq"] if events else place.seq
    if events and seq < job.last_seq:
        return News(job.status, events, more=True), replace(place, seq=seq)
    progress = job.progress if job.version != place.version else None
    points = [] if place.points is None else series.beyond(tx, place.job_id, place.points, MAX_POINTS)
    after = Place(place.job_id, seq, job.version, series.totals(tx, place.job_id))
    return News(job.status, events, progress, points), after


def is_over(tx: Session, seqs: Mapping[str, int]) -> bool:
    """Whether nothing is left to tell of these jobs to a reader who knows their events up to these numbers.

    Raises:
        JobNotFound: there is no such job.
    """
    columns = (tables.Job.id, tables.Job.status, tables.Job.last_seq)
    found = {row.id: row for row in tx.execute(select(*columns).where(tables.Job.id.in_(list(seqs))))}
    for job_id in seqs:
        if job_id not in found:
            raise JobNotFound(job_id)
    return all(row.status in TERMINAL and row.last_seq <= seqs[row.id] for row in found.values())
