"""What a run's events change on its job: progress, results so far, and lines of its log."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from credit import events, spec
from lab import tables

STEPS_BEFORE_ETA = 20


@dataclass(frozen=True)
class Note:
    """A line for the job's log."""

    type: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)
    level: str = "info"


def none_yet(run: spec.Run) -> dict[str, Any]:
    """Progress of a job that has not started; how many steps there are is known when the data are."""
    epochs = run.training.epochs
    return {"epoch": 0, "epochs": epochs, "step": 0, "steps": None, "fraction": 0.0, "eta_seconds": None}


def complete(progress: dict[str, Any]) -> dict[str, Any]:
    """Progress of a job that came to its end."""
    end = {"epoch": progress["epochs"], "step": progress["steps"], "fraction": 1.0, "eta_seconds": 0.0}
    return progress | end


def absorb(tx: Session, job: tables.Job, event: events.Event, moment: datetime) -> Note | None:
    """Write an event into the job's row; returns what the log should say about it."""
    match event:
        case events.Fetching():
            return Note("log", str(event), asdict(event))
        case events.Started():
            return started(tx, job, event, moment)
        case events.Progress():
            job.progress = job.progress | position(tx, job, event.step, event.epoch, moment)
        case events.Aligned():
            known = (job.results or {}).get("alignment") or {"probe": None}
            learn(job, alignment=known | {"layers": [layer.result() for layer in event.layers]})
        case events.Evaluated():
            learn(job, **{event.split: event.result()})
            return evaluated(event)
        case events.Diagnosed():
            found = {"code": event.code, "layer": event.layer, "evidence": event.evidence, "advice": event.advice}
            learn(job, diagnoses=[*(job.results or {}).get("diagnoses", []), found])
            return Note("diagnosis", f"{event.code}: {event.evidence}", found | {"step": event.step}, "warning")
    return None


def learn(job: tables.Job, **parts: Any) -> None:
    job.results = (job.results or {}) | parts


def started(tx: Session, job: tables.Job, event: events.Started, moment: datetime) -> Note:
    attempt = tx.get_one(tables.Attempt, (job.id, job.attempt))
    attempt.trained_from, attempt.environment = moment, event.environment
    job.progress = job.progress | {"epochs": event.epochs, "steps": event.steps}
    job.results = {
        "alignment": {"probe": event.probe, "layers": []},
        "pairing": {"init_sha256": event.init_sha256, "order_sha256": None},
        "diagnoses": [],
        "environment": event.environment,
    }
    device = event.environment.get("device")
    message = f"{event.parameters} parameters, {event.steps} steps in {event.epochs} epochs on {device}"
    return Note("log", message, {"event": event.type} | asdict(event))


def evaluated(event: events.Evaluated) -> Note:
    message = f"epoch {event.epoch:g}: {event.split} accuracy {event.accuracy:.4f}, loss {event.loss:.4f}"
    return Note("epoch", message, asdict(event))


def position(tx: Session, job: tables.Job, step: int, epoch: float, moment: datetime) -> dict[str, Any]:
    """Where the run is. The time left is the time so far per step, times the steps left; unknown in the beginning."""
    steps = job.progress["steps"]
    attempt = tx.get_one(tables.Attempt, (job.id, job.attempt))
    eta = None
    if step >= STEPS_BEFORE_ETA and attempt.trained_from:
        eta = (moment - attempt.trained_from).total_seconds() / step * (steps - step)
    return {"epoch": epoch, "step": step, "fraction": step / steps, "eta_seconds": eta}
