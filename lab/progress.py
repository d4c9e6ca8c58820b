"""What a run's events change on its job: progress, results so far, and lines of its log."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from credit import events, spec
from lab import checkpoints, series, tables

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
    note = None
    match event:
        case events.Fetching():
            note = Note("log", str(event), asdict(event))
        case events.Started():
            note = started(tx, job, event, moment)
        case events.Progress():
            job.progress = job.progress | position(tx, job, event.step, event.epoch, moment)
        case events.Aligned():
            known = (job.results or {}).get("alignment") or {"probe": None}
            learn(job, alignment=known | {"layers": [layer.result() for layer in event.layers]})
        case events.Evaluated():
            learn(job, **{event.split: event.result()})
            note = evaluated(event)
        case events.Checkpointed():
            note = checkpointed(tx, job, event, moment)
        case events.Troubled():
            note = Note("warning", event.message, level="warning")
        case events.Diagnosed():
            found = {"code": event.code, "layer": event.layer, "evidence": event.evidence, "advice": event.advice}
            learn(job, diagnoses=[*(job.results or {}).get("diagnoses", []), found])
            note = Note("diagnosis", f"{event.code}: {event.evidence}", found | {"step": event.step}, "warning")
    return note


def learn(job: tables.Job, **parts: Any) -> None:
    job.results = (job.results or {}) | parts


def started(tx: Session, job: tables.Job, event: events.Started, moment: datetime) -> Note:
    """An attempt says where it goes on from; what earlier ones told beyond that is void."""
    series.truncate(tx, job.id, event.step)
    checkpoints.beyond(tx, job.id, event.step)
    attempt = tx.get_one(tables.Attempt, (job.id, job.attempt))
    attempt.trained_from, attempt.first_step, attempt.environment = moment, event.step, event.environment
    epoch, fraction = event.step * event.epochs / event.steps, event.step / event.steps
    here = {"epoch": epoch, "epochs": event.epochs, "step": event.step, "steps": event.steps, "fraction": fraction}
    job.progress = job.progress | here | {"eta_seconds": None}
    job.results = {
        "alignment": {"probe": event.probe, "layers": []},
        "pairing": {"init_sha256": event.init_sha256, "order_sha256": None},
        "diagnoses": [],
        "environment": event.environment,
        **event.known,
    }
    device = event.environment.get("device")
    message = f"{event.parameters} parameters, {event.steps} steps in {event.epochs} epochs on {device}"
    if event.step:
        message = f"goes on after step {event.step} of {event.steps} on {device}"
    return Note("log", message, {"event": event.type} | asdict(event))


def checkpointed(tx: Session, job: tables.Job, event: events.Checkpointed, moment: datetime) -> Note:
    stored = checkpoints.Stored(event.step, event.file, event.size, event.sha256)
    checkpoints.add(tx, job.id, job.attempt, stored, moment)
    job.progress = job.progress | position(tx, job, event.step, event.epoch, moment)
    data = {"step": event.step, "size": event.size, "sha256": event.sha256, "seconds": event.seconds}
    return Note("checkpoint", f"the state after step {event.step} is stored", data)


def evaluated(event: events.Evaluated) -> Note:
    message = f"epoch {event.epoch:g}: {event.split} accuracy {event.accuracy:.4f}, loss {event.loss:.4f}"
    return Note("epoch", message, asdict(event))


def position(tx: Session, job: tables.Job, step: int, epoch: float, moment: datetime) -> dict[str, Any]:
    """Where the run is. The time left is the time so far per step, times the steps left; unknown in the beginning."""
    steps = job.progress["steps"]
    attempt = tx.get_one(tables.Attempt, (job.id, job.attempt))
    eta, done = None, step - attempt.first_step
    if done >= STEPS_BEFORE_ETA and attempt.trained_from:
        eta = (moment - attempt.trained_from).total_seconds() / done * (steps - step)
    return {"epoch": epoch, "step": step, "fraction": step / steps, "eta_seconds": eta}
