"""Who works on what, and what waits for whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, Subquery, and_, func, or_, select
from sqlalchemy.orm import Session

from lab import cursors, projects, schedule, tables
from lab.db import now, rfc3339
from lab.errors import JobNotFound
from lab.jobs import get
from lab.reads import Page
from lab.states import HELD, State

ALIVE_SECONDS = 20.0
"""A worker whose heart has not beaten for so long counts as gone; it beats every five seconds."""


class Held(NamedTuple):
    """A slot with its job, or with jobs that train together."""

    job_ids: tuple[str, ...]
    project_id: str
    device: str


@dataclass(frozen=True)
class Worker:
    """A worker and its slots that are taken, each with its device."""

    row: tables.Worker
    alive: bool
    held: list["Held"]

    @property
    def free(self) -> int:
        """Slots that would take a job now."""
        return max(0, self.row.slots - len(self.held)) if self.ready else 0

    @property
    def ready(self) -> bool:
        """Whether it takes jobs, sooner or later."""
        return self.alive and not self.row.draining

    @property
    def gpus(self) -> list[dict[str, Any]]:
        """What its GPUs do; what they did when it was last heard of is of no use."""
        return self.row.gpus if self.alive else []


def workers(tx: Session, project_id: str | None = None) -> Page:
    """The workers of this service, the oldest first; jobs of other projects than the one named have no name."""
    data = [worker_view(worker, project_id) for worker in fleet(tx)]
    return {"object": "list", "data": data, "has_more": False, "next": None}


def fleet(tx: Session) -> list[Worker]:
    beaten_after = now(tx) - timedelta(seconds=ALIVE_SECONDS)
    rows = list(tx.scalars(select(tables.Worker).order_by(tables.Worker.id)))
    held: dict[str, dict[str, Held]] = {row.id: {} for row in rows}
    current = and_(tables.Attempt.job_id == tables.Job.id, tables.Attempt.number == tables.Job.attempt)
    columns = (
        tables.Job.id,
        tables.Job.project_id,
        tables.Job.queue,
        tables.Attempt.worker,
        tables.Attempt.together_with,
        tables.Attempt.environment,
    )
    running = select(*columns)
    running = running.join(tables.Attempt, current).where(tables.Job.status.in_(HELD)).order_by(tables.Job.id)
    for job_id, project_id, queue, worker, together_with, environment in tx.execute(running):
        device = (environment or {}).get("device") or ("cuda" if queue == "cuda" else "cpu")
        slots, slot = held.setdefault(worker, {}), together_with or job_id
        beside = slots[slot].job_ids if slot in slots else ()
        slots[slot] = Held((*beside, job_id), project_id, device)
    return [Worker(row, row.heartbeat_at > beaten_after, list(held[row.id].values())) for row in rows]


def beats(tx: Session, host: str) -> bool:
    """Whether a worker of this host, or container, is alive."""
    return any(worker.alive and worker.row.host == host for worker in fleet(tx))


def worker_view(worker: Worker, project_id: str | None) -> dict[str, Any]:
    row = worker.row
    slots = [slot_view(held, shown=project_id in {None, held.project_id}) for held in worker.held]
    idle: dict[str, Any] = {"device": "cuda" if row.cuda else "cpu", "job_id": None, "job_ids": [], "busy": False}
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
        "gpus": worker.gpus,
    }


def slot_view(held: Held, *, shown: bool) -> dict[str, Any]:
    job_ids = list(held.job_ids) if shown else []
    return {"device": held.device, "job_id": job_ids[0] if shown else None, "job_ids": job_ids, "busy": True}


# ---- the queue -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """Whose jobs of the queue are shown, and what counts for their reasons; positions count everybody's."""

    project_id: str | None = None
    running_jobs: int | None = None
    """Jobs of a project without a quota of its own that may run at once."""

    def ranked(self) -> Subquery:
        """The queued jobs with their positions: of thousands that are sorted, a page is shown."""
        columns = (tables.Job.id, tables.Job.project_id, tables.Job.queue, tables.Job.priority)
        times = (tables.Job.not_before, tables.Job.created_at)
        position = func.row_number().over(order_by=(tables.Job.priority.desc(), tables.Job.id)).label("position")
        return select(*columns, *times, position).where(tables.Job.status == State.QUEUED).subquery("ranked")

    def shown(self, ranked: Subquery) -> Select[Any]:
        """The rows of this view, in their order."""
        with_room = select(tables.Job.id).where(tables.Job.id == ranked.c.id, projects.has_room(self.running_jobs))
        rows = select(ranked, with_room.correlate(ranked).exists().label("has_room")).order_by(ranked.c.position)
        return rows if self.project_id is None else rows.where(ranked.c.project_id == self.project_id)


def queue(tx: Session, limit: int, after: str | None, *, secret: str, view: View = View()) -> Page:
    """A page of the queued jobs in the order in which they will be claimed.

    Raises:
        BadCursor: ``after`` was not made by this service.
    """
    made_for = {"list": "queue", "project": view.project_id}
    ranked = view.ranked()
    waiting = view.shown(ranked)
    if after is not None:
        priority, job_id = cursors.read(secret, after, made_for).split(" ")
        same = and_(ranked.c.priority == int(priority), ranked.c.id > job_id)
        waiting = waiting.where(or_(ranked.c.priority < int(priority), same))
    rows = list(tx.execute(waiting.limit(limit + 1)))
    page, has_more = rows[:limit], len(rows) > limit
    cursor = cursors.make(secret, f"{page[-1].priority} {page[-1].id}", made_for) if has_more else None
    return {"object": "list", "data": entries(tx, page, view), "has_more": has_more, "next": cursor}


def queued(tx: Session, job_id: str, *, view: View = View()) -> Page:
    """The entry of one job, or none where it does not wait. Raises JobNotFound."""
    if view.project_id not in {None, get(tx, job_id).project_id}:
        raise JobNotFound(job_id)
    ranked = view.ranked()
    data = entries(tx, list(tx.execute(view.shown(ranked).where(ranked.c.id == job_id))), view)
    return {"object": "list", "data": data, "has_more": False, "next": None}


def entries(tx: Session, jobs: Sequence[Any], view: View) -> list[dict[str, Any]]:
    """Jobs as the queue shows them."""
    moment, there = now(tx), fleet(tx)
    near = any(job.position <= schedule.LOOKED_AT for job in jobs)
    ready = [worker.row for worker in there if worker.ready]
    starts = schedule.starts(tx, ready, moment, view.running_jobs) if near else {}
    unknown = schedule.Start(missing="too_far_back" if ready else "no_worker")
    told = select(tables.Event.job_id, func.max(tables.Event.at)).where(
        tables.Event.job_id.in_([job.id for job in jobs]), tables.Event.type == "status"
    )
    since = {job_id: at for job_id, at in tx.execute(told.group_by(tables.Event.job_id))}  # noqa: C416  (rows)
    return [
        {
            "object": "queued_job",
            "job_id": job.id,
            "position": job.position,
            "reason": reason(job, there, moment),
            "priority": job.priority,
            "queued_at": rfc3339(since.get(job.id, job.created_at)),
            "estimated_start_at": rfc3339(starts.get(job.id, unknown).at),
            "estimate_missing": starts.get(job.id, unknown).missing,
        }
        for job in jobs
    ]


def reason(job: Any, there: Sequence[Worker], moment: datetime) -> str | None:
    """Why a job waits; None where a slot is free for it, so that it starts at any moment."""
    if job.not_before is not None and job.not_before > moment:
        return "retry_backoff"
    if not job.has_room:
        return "project_quota"
    ready = [worker for worker in there if worker.ready]
    if not ready:
        return "no_worker"
    able = [worker for worker in ready if worker.row.cuda or job.queue != "cuda"]
    if not able:
        return "needs_cuda"
    return "no_free_slot" if job.position > sum(worker.free for worker in able) else None
