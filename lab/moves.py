"""The one transition: the only place that changes ``jobs.status``, and the only one that writes a job's log.

A transition is one guarded UPDATE: it names the states it leaves from and, for an attempt, the fence it holds. No row
is an answer, not an accident. Every transition raises the version and writes an event in the same transaction.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, null, update
from sqlalchemy.orm import Session

from lab import projects, tables, webhooks
from lab.db import now
from lab.progress import Note
from lab.states import HELD, TERMINAL, Event, targets

MAX_MESSAGE = 4000


def move(
    tx: Session, event: Event, where: Sequence[ColumnElement[bool]], why: str, level: str = "info", **changes: Any
) -> tables.Job | None:
    """The job after the transition, or None if no job is where ``event`` can leave from."""
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
        log(tx, job, moment, Note("status", why, {"status": job.status, "cause": str(event)}, level))
    return job


def log(tx: Session, job: tables.Job, moment: datetime, note: Note) -> None:
    """Write the next event of a job; the caller holds the lock of its row."""
    job.last_seq += 1
    write_last(tx, job, moment, note)


def write_last(tx: Session, job: tables.Job, moment: datetime, note: Note) -> None:
    """Write the event whose number the job has as its last one: of a new job, that is its first."""
    caller = projects.caller_of(tx)
    given_by = {"key_id": caller.key_id if caller else None}
    tx.add(tables.Event(job_id=job.id, seq=job.last_seq, at=moment, attempt=job.attempt, **given_by, **vars(note)))
    webhooks.announce(tx, job, moment, note)


def clean(text: str) -> str:
    """A text that every database can store."""
    return re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)[:MAX_MESSAGE]
