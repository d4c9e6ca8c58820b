"""When the jobs that wait will start: the order of the claims, played through on the slots that there are.

An estimate: a running job takes as long as it says, one that waits as long as jobs like it took, startup and
evaluations left out; nobody submits, cancels or fails meanwhile. The work is bounded, however many jobs wait.
"""

import functools
import heapq
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Row, and_, func, select
from sqlalchemy.orm import Session

from credit import duration
from lab import specs, tables, together
from lab.states import HELD, State

LOOKED_AT = 200
"""Jobs that wait, from the first one on; what is further back gets no estimate."""
FINISHED = 100
"""Jobs that succeeded last, of which it is learnt how long others take."""
NO_TIME = {"name", "labels", "priority", "controls", "max_runtime_seconds"}
"""Parts of a spec that do not change how long its training takes."""

Slot = str
"""``cpu`` or ``cuda``; empty where a job is held by a worker that will take no other one."""


@dataclass(frozen=True)
class Start:
    """When a job will start, or why that is not known."""

    at: datetime | None = None
    missing: str | None = None


class Waiting(NamedTuple):
    """A queued job: from when on it may start, and how long it will take."""

    id: str
    project_id: str
    slots: tuple[Slot, ...]
    """Kinds of slots that can take it, the one that is taken first at first."""
    ready: float
    seconds: float
    alike: tuple[Any, ...] = ()
    """What it has in common with jobs that start with it, in its slot; nothing: it starts alone."""


class End(NamedTuple):
    """So many seconds from now something is given back: a slot, a place among a project's running jobs, or patience."""

    seconds: float
    project_id: str
    slot: Slot


def starts(
    tx: Session, workers: Sequence[tables.Worker], moment: datetime, running_jobs: int | None
) -> dict[str, Start]:
    """Of the first queued jobs, by their ids; jobs further back are missing.

    Args:
        tx: the transaction to read in; four queries are asked.
        workers: those that take jobs.
        moment: it is now.
        running_jobs: that a project without a quota of its own may have at once.
    """
    first = select(tables.Job.id).where(tables.Job.status == State.QUEUED)
    first = first.order_by(tables.Job.priority.desc(), tables.Job.id).limit(LOOKED_AT)
    columns = ("id", "project_id", "queue", "priority", "not_before", "spec", "progress", "ran_seconds")
    beside = ("together", "attempt")
    queued = select(*(getattr(tables.Job, name) for name in (*columns, *beside))).where(tables.Job.id.in_(first))
    jobs = sorted(tx.execute(queued), key=lambda job: (-job.priority, job.id))
    if not jobs or not workers:
        return {job.id: Start(missing="no_worker") for job in jobs}
    pace = Pace(tx, cuda=any(worker.cuda for worker in workers))
    kinds = {worker.id: "cuda" if worker.cuda else "cpu" for worker in workers}
    running = held(tx)
    last = {slot_of(job): job.id for job in running}
    ends = [
        End(left(job, moment, pace), job.project_id, kinds.get(job.worker, "") if last[slot_of(job)] == job.id else "")
        for job in running
    ]
    free = dict.fromkeys(("cpu", "cuda"), 0)
    for worker in workers:
        free[kinds[worker.id]] += max(0, worker.slots - sum(taken == worker.id for taken, _ in last))
    waiting = [as_waiting(job, moment, pace) for job in jobs]
    told = play(waiting, free, room(tx, {job.project_id for job in jobs}, running, running_jobs), ends)
    missing = {job.id: "needs_cuda" if "cpu" not in job.slots and not pace.cuda else "project_quota" for job in waiting}
    return {
        job_id: Start(at=moment + timedelta(seconds=told[job_id])) if job_id in told else Start(missing=why)
        for job_id, why in missing.items()
    }


def play(
    waiting: Sequence[Waiting], free: dict[Slot, int], room: dict[str, float], ends: Sequence[End]
) -> dict[str, float]:
    """Seconds from now until each job starts; those that never do are missing.

    Args:
        waiting: in the order of the claims.
        free: slots of each kind.
        room: how many jobs more each project may have running; as many as it likes where it is not named.
        ends: of what runs.
    """
    pending = {job.id: job for job in waiting}
    events = [*ends, *(End(job.ready, "", "") for job in waiting if job.ready > 0)]
    heapq.heapify(events)
    started: dict[str, float] = {}
    clock = 0.0
    while True:
        for job in list(pending.values()):
            if not any(free.values()):
                break
            slot = next((kind for kind in job.slots if free[kind]), None)
            left = room.get(job.project_id, math.inf)
            if job.id in pending and slot and job.ready <= clock and left > 0:
                free[slot] -= 1
                starting = company(job, pending.values(), clock, sum(free[kind] for kind in job.slots), left)
                room[job.project_id] = left - len(starting)
                over = clock + sum(one.seconds for one in starting)
                for one in starting:
                    started[one.id] = clock
                    heapq.heappush(events, End(over, one.project_id, slot if one is job else ""))
                    del pending[one.id]
        if not pending or not events:
            return started
        clock = max(clock, events[0].seconds)
        while events and events[0].seconds <= clock:
            _, project_id, slot = heapq.heappop(events)
            room[project_id] = room.get(project_id, math.inf) + 1
            free[slot] = free.get(slot, 0) + bool(slot)


def company(job: Waiting, pending: Iterable[Waiting], clock: float, free: int, room: float) -> list[Waiting]:
    """A job, and those that start with it as one computation; so many slots are free beside."""
    others = [one for one in pending if job.alike and one.alike == job.alike and one.ready <= clock and one is not job]
    return [job, *others][: int(min(together.share(1 + len(others), free), room))]


# ---- what is known ---------------------------------------------------------------------------------------------------


def held(tx: Session) -> list[Row[Any]]:
    """The jobs that are in somebody's hands, with their attempts: no more than there are slots, or places in them."""
    columns = ("id", "project_id", "status", "spec", "progress", "ran_seconds")
    current = and_(tables.Attempt.job_id == tables.Job.id, tables.Attempt.number == tables.Job.attempt)
    running = select(
        *(getattr(tables.Job, name) for name in columns),
        *(getattr(tables.Attempt, name) for name in ("worker", "together_with", "started_at")),
    )
    return list(tx.execute(running.join(tables.Attempt, current).where(tables.Job.status.in_(HELD))))


def slot_of(job: Row[Any]) -> tuple[str, str]:
    """Where a job trains: jobs that train together are in one slot, which all of them leave at once."""
    return job.worker, job.together_with or job.id


def room(tx: Session, ids: set[str], running: Sequence[Row[Any]], default: int | None) -> dict[str, float]:
    """How many jobs more each of these projects may have running, where it is limited."""
    limit = func.coalesce(tables.Project.running_jobs, default)
    limits = select(tables.Project.id, limit).where(tables.Project.id.in_(ids))
    return {
        project_id: most - sum(job.project_id == project_id for job in running)
        for project_id, most in tx.execute(limits)
        if most is not None
    }


def as_waiting(job: Row[Any], moment: datetime, pace: "Pace") -> Waiting:
    ready = (job.not_before - moment).total_seconds() if job.not_before else 0.0
    slots = ("cuda",) if job.queue == "cuda" else ("cpu", "cuda")
    alike = (job.together, job.project_id, job.priority) if job.together and not job.attempt else ()
    return Waiting(job.id, job.project_id, slots, max(0.0, ready), allowed(job, pace.rest(job), job.ran_seconds), alike)


def left(job: Row[Any], moment: datetime, pace: "Pace") -> float:
    """Seconds until a running job gives its slot back; nothing where it has been told to."""
    if job.status != State.RUNNING:
        return 0.0
    eta = job.progress["eta_seconds"]
    ran = job.ran_seconds + (moment - job.started_at).total_seconds()
    return allowed(job, pace.rest(job) if eta is None else eta, ran)


def allowed(job: Row[Any], seconds: float, ran: float) -> float:
    """So many seconds, or as many as ``max_runtime_seconds`` leaves."""
    limit = job.spec["max_runtime_seconds"]
    return seconds if limit is None else max(0.0, min(seconds, limit - ran))


class Pace:
    """How long jobs take: by arithmetic, corrected by what jobs of the same kind took that succeeded lately.

    Args:
        tx: the transaction to read in.
        cuda: whether ``auto`` means a GPU.
    """

    def __init__(self, tx: Session, *, cuda: bool) -> None:
        self.cuda = cuda
        took = tables.Job.results["cost"]["train_seconds"].as_float()
        done = select(tables.Job.spec, took).where(tables.Job.status == State.SUCCEEDED)
        found: dict[Any, list[float]] = defaultdict(list)
        for spec, seconds in tx.execute(done.order_by(tables.Job.id.desc()).limit(FINISHED)):
            if seconds and (expected := self.by_arithmetic(spec)):
                found[kind(spec)].append(seconds / expected)
        self.factors = {one: statistics.median(paces) for one, paces in found.items()}

    def rest(self, job: Row[Any]) -> float:
        """Seconds of what a job has not trained yet."""
        whole = self.by_arithmetic(job.spec) * self.factors.get(kind(job.spec), 1.0)
        return float(whole * (1 - job.progress["fraction"]))

    def by_arithmetic(self, spec: dict[str, Any]) -> float:
        device = spec["training"]["device"]
        cuda = device.startswith("cuda") or (device == "auto" and self.cuda)
        timed = {name: part for name, part in spec.items() if name not in NO_TIME}
        return calculated(json.dumps(timed | {"training": spec["training"] | {"seed": 0}}), cuda=cuda)


def kind(spec: dict[str, Any]) -> tuple[Any, ...]:
    """Jobs of one kind differ from the arithmetic by the same factor, as ``lab.forecast`` has it."""
    training = {"together": False} | spec["training"]
    alike = (training[name] for name in ("device", "precision", "threads", "together"))
    return (spec["method"]["name"], spec["model"]["name"], *alike)


@functools.lru_cache(4096)
def calculated(spec: str, *, cuda: bool) -> float:
    """Seconds by arithmetic; none for a spec of another version that this one would refuse, which will fail at once."""
    try:
        run = specs.from_dict(json.loads(spec))
    except ValidationError:
        return 0.0
    return duration.seconds(run, duration.CUDA if cuda else duration.CPU)
