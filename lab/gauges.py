"""How the service is doing, in numbers, from one short transaction."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from lab import counters, fleet, tables
from lab.db import now
from lab.reconciler import MOST_BELLS, RING_AGAIN_AFTER
from lab.states import HELD, State

RECENT_JOBS = 200
"""Of which step times are taken."""


@dataclass(frozen=True)
class Gauges:
    jobs: dict[str, int]
    """By status."""
    queue_depth: dict[str, int]
    queue_age_seconds: float
    """Since the oldest queued job was submitted; 0 where nothing waits."""
    running_attempts: int
    lease_age_seconds: float
    """Since the lease of a running attempt was renewed, of the one that has gone longest without."""
    unrung_bells: int
    """Of the next due jobs, those for which nobody has rung lately."""
    webhook_backlog: int
    workers: int
    free_slots: int
    step_seconds: dict[str, float]
    """Median by method, over the jobs that succeeded last."""
    gpus: list[tuple[str, dict[str, Any]]]
    """Host and GPU, of the workers that are alive; one that several workers tell of, once."""
    counters: dict[str, int]


def take(tx: Session, *, lease_seconds: float) -> Gauges:
    moment = now(tx)
    waiting = tables.Job.status == State.QUEUED
    statuses = select(tables.Job.status, func.count()).group_by(tables.Job.status)
    by_status = {status: count for status, count in tx.execute(statuses)}  # noqa: C416  (rows)
    oldest = tx.scalar(select(tables.Job.created_at).where(waiting).order_by(tables.Job.id).limit(1))
    held = tables.Job.status.in_(HELD)
    first_to_expire = tx.scalar(select(func.min(tables.Job.lease_expires_at)).where(held))
    renewed = first_to_expire and first_to_expire - timedelta(seconds=lease_seconds)
    due = or_(tables.Job.not_before.is_(None), tables.Job.not_before <= moment)
    unheard = or_(tables.Job.rung_at.is_(None), tables.Job.rung_at < moment - RING_AGAIN_AFTER)
    first = select(unheard.label("silent")).where(waiting, due).order_by(tables.Job.priority.desc(), tables.Job.id)
    first_silent = first.limit(MOST_BELLS).subquery()
    unrung = tx.scalar(select(func.count()).where(first_silent.c.silent)) or 0
    queued = select(tables.Job.queue, func.count()).where(waiting).group_by(tables.Job.queue)
    by_queue = {queue: count for queue, count in tx.execute(queued)}  # noqa: C416  (rows)
    there = fleet.fleet(tx)
    return Gauges(
        jobs={status: by_status.get(status, 0) for status in State},
        queue_depth={queue: by_queue.get(queue, 0) for queue in tables.QUEUES},
        queue_age_seconds=age(moment, oldest),
        running_attempts=sum(by_status.get(status, 0) for status in HELD),
        lease_age_seconds=age(moment, renewed),
        unrung_bells=unrung,
        webhook_backlog=tx.scalar(select(func.count()).where(tables.Delivery.status == "pending")) or 0,
        workers=sum(worker.alive for worker in there),
        free_slots=sum(worker.free for worker in there),
        step_seconds=step_seconds(tx),
        gpus=gpus(there),
        counters=counters.read(tx),
    )


def age(moment: datetime, since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (moment - since).total_seconds())


def gpus(there: Sequence[fleet.Worker]) -> list[tuple[str, dict[str, Any]]]:
    known = {(worker.row.host, gpu["index"]): gpu for worker in there for gpu in worker.gpus}
    return [(host, gpu) for (host, _), gpu in sorted(known.items(), key=lambda one: one[0])]


def step_seconds(tx: Session) -> dict[str, float]:
    took = tables.Job.results["cost"]["step_ms_median"].as_float()
    recent = select(tables.Job.method, took).where(tables.Job.status == State.SUCCEEDED)
    by_method: dict[str, list[float]] = {}
    for method, milliseconds in tx.execute(recent.order_by(tables.Job.id.desc()).limit(RECENT_JOBS)):
        if milliseconds is not None:
            by_method.setdefault(method, []).append(milliseconds / 1000)
    return {method: statistics.median(values) for method, values in by_method.items()}
