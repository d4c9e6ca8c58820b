"""Who works on what, and what waits for whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from lab import cursors, tables
from lab.db import now, rfc3339
from lab.jobs import get
from lab.reads import Page
from lab.states import HELD, State

ALIVE_SECONDS = 20.0
"""A worker whose heart has not beaten for so long counts as gone; it beats every five seconds."""


@dataclass(frozen=True)
class Worker:
    """A worker and the jobs whose attempts it has, each with its device."""

    row: tables.Worker
    alive: bool
    jobs: list[tuple[str, str]]

    @property
    def free(self) -> int:
        """Slots that would take a job now."""
        return max(0, self.row.slots - len(self.jobs)) if self.alive and not self.row.draining else 0


def workers(tx: Session) -> Page:
    """The workers of this service, the oldest first."""
    data = [worker_view(worker) for worker in fleet(tx)]
    return {"object": "list", "data": data, "has_more": False, "next": None}


def fleet(tx: Session) -> list[Worker]:
    beaten_after = now(tx) - timedelta(seconds=ALIVE_SECONDS)
    rows = list(tx.scalars(select(tables.Worker).order_by(tables.Worker.id)))
    held: dict[str, list[tuple[str, str]]] = {row.id: [] for row in rows}
    current = and_(tables.Attempt.job_id == tables.Job.id, tables.Attempt.number == tables.Job.attempt)
    running = select(tables.Job.id, tables.Job.queue, tables.Attempt.worker, tables.Attempt.environment)
    running = running.join(tables.Attempt, current).where(tables.Job.status.in_(HELD)).order_by(tables.Job.id)
    for job_id, queue, worker, environment in tx.execute(running):
        device = (environment or {}).get("device") or ("cuda" if queue == "cuda" else "cpu")
        held.setdefault(worker, []).append((job_id, device))
    return [Worker(row, row.heartbeat_at > beaten_after, held[row.id]) for row in rows]


def worker_view(worker: Worker) -> dict[str, Any]:
    row = worker.row
    slots: list[dict[str, Any]] = [{"device": device, "job_id": job_id} for job_id, device in worker.jobs]
    idle = {"device": "cuda" if row.cuda else "cpu", "job_id": None}
    return {
        "id": row.id,
        "object": "worker",
        "host": row.host,
        "version": row.version,
        "alive": worker.alive,
        "draining": row.draining,
        "started_at": rfc3339(row.started_at),
        "last_heartbeat_at": rfc3339(row.heartbeat_at),
        "slots": slots + [idle] * (row.slots - len(slots)),
    }


# ---- the queue -------------------------------------------------------------------------------------------------------

SHOWN = (tables.Job.id, tables.Job.queue, tables.Job.priority, tables.Job.not_before, tables.Job.created_at)
"""What the queue needs to know of a job: of thousands that are sorted, a page is shown."""


def queue(tx: Session, limit: int, after: str | None, *, secret: str) -> Page:
    """A page of the queued jobs in the order in which they will be claimed.

    Raises:
        BadCursor: ``after`` was not made by this service.
    """
    waiting = select(*SHOWN).where(tables.Job.status == State.QUEUED)
    before = 0
    if after is not None:
        priority, job_id = cursors.read(secret, after, {"list": "queue"}).split(" ")
        ahead = or_(
            tables.Job.priority > int(priority), and_(tables.Job.priority == int(priority), tables.Job.id <= job_id)
        )
        before = tx.scalar(select(func.count()).where(tables.Job.status == State.QUEUED, ahead)) or 0
        waiting = waiting.where(~ahead)
    rows = list(tx.execute(waiting.order_by(tables.Job.priority.desc(), tables.Job.id).limit(limit + 1)))
    page, has_more = rows[:limit], len(rows) > limit
    cursor = cursors.make(secret, f"{page[-1].priority} {page[-1].id}", {"list": "queue"}) if has_more else None
    return {"object": "list", "data": entries(tx, page, before), "has_more": has_more, "next": cursor}


def queued(tx: Session, job_id: str) -> Page:
    """The entry of one job, or none where it does not wait. Raises JobNotFound."""
    job, data = get(tx, job_id), []
    if job.status == State.QUEUED:
        ahead = or_(
            tables.Job.priority > job.priority, and_(tables.Job.priority == job.priority, tables.Job.id < job.id)
        )
        before = tx.scalar(select(func.count()).where(tables.Job.status == State.QUEUED, ahead)) or 0
        data = entries(tx, [job], before)
    return {"object": "list", "data": data, "has_more": False, "next": None}


def entries(tx: Session, jobs: Sequence[Any], before: int) -> list[dict[str, Any]]:
    """Jobs as the queue shows them; ``before`` of them are ahead of the first."""
    moment, there = now(tx), fleet(tx)
    told = select(tables.Event.job_id, func.max(tables.Event.at)).where(
        tables.Event.job_id.in_([job.id for job in jobs]), tables.Event.type == "status"
    )
    since = {job_id: at for job_id, at in tx.execute(told.group_by(tables.Event.job_id))}  # noqa: C416  (rows)
    return [
        {
            "object": "queued_job",
            "job_id": job.id,
            "position": position,
            "reason": reason(job, position, there, moment),
            "priority": job.priority,
            "queued_at": rfc3339(since.get(job.id, job.created_at)),
            "estimated_start_at": None,
        }
        for position, job in enumerate(jobs, before + 1)
    ]


def reason(job: Any, position: int, there: Sequence[Worker], moment: datetime) -> str | None:
    """Why a job waits; None where a slot is free for it, so that it starts at any moment."""
    if job.not_before is not None and job.not_before > moment:
        return "retry_backoff"
    ready = [worker for worker in there if worker.alive and not worker.row.draining]
    if not ready:
        return "no_worker"
    able = [worker for worker in ready if worker.row.cuda or job.queue != "cuda"]
    if not able:
        return "needs_cuda"
    return "no_free_slot" if position > sum(worker.free for worker in able) else None
