"""What a job would cost before it runs: arithmetic, corrected by what finished jobs took; and what cannot be."""

import statistics
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from credit import duration, estimate, memory, spec
from credit.spec.together import alone
from lab import specs, tables
from lab.errors import InvalidSpec
from lab.states import State

LATELY = 200
"""Jobs of a method that are looked through for finished ones on the same kind of model."""
ENOUGH = 20
MARGIN = 2.0
"""The estimate's own: what exceeds a limit by less is warned of, since it may do."""
LABEL_BYTES = 8


@dataclass(frozen=True)
class Forecast:
    """What a job would be and cost; names and units are those of ``results.cost``."""

    parameters: int
    flops_per_step: int
    peak_memory_bytes: int
    saved_activation_bytes: int
    estimated_seconds: float
    """Of the training steps, as ``train_seconds``: without evaluations and probes."""
    estimated_from: Literal["analytic", "measured"]
    warnings: list[dict[str, str]] = field(default_factory=list)


def analytic(run: spec.Run, machine: duration.Machine = duration.CPU) -> Forecast:
    """By arithmetic alone, for a machine that nobody has measured."""
    return Forecast(
        parameters=estimate.parameters(run),
        flops_per_step=estimate.flops_per_step(run),
        peak_memory_bytes=memory.peak_bytes(run),
        saved_activation_bytes=memory.saved_bytes(run),
        estimated_seconds=duration.seconds(run, machine),
        estimated_from="analytic",
    )


def forecast(tx: Session, run: spec.Run, *, memory_limit: int) -> Forecast:
    """The cost of a resolved run on this service, with a warning of each limit that it may exceed.

    Raises:
        InvalidSpec: it cannot fit into the memory, or would take more than twice its ``max_runtime_seconds``.
    """
    told = analytic(run, machine_of(tx, run))
    pace = pace_of(tx, run)
    if pace is not None:
        told = replace(told, estimated_seconds=told.estimated_seconds * pace, estimated_from="measured")
    return replace(told, warnings=warnings(run, told, memory_limit))


def check(tx: Session, run: spec.Run, *, memory_limit: int) -> None:
    """Refuse what ``forecast`` would; the database is only asked where a limit of time needs it. Raises InvalidSpec."""
    if run.max_runtime_seconds is None:
        refuse([too_large(run, memory.peak_bytes(run), memory_limit)])
    else:
        forecast(tx, run, memory_limit=memory_limit)


def machine_of(tx: Session, run: spec.Run) -> duration.Machine:
    """What ``auto`` would come to: CUDA where a worker has it."""
    device = run.training.device
    if device == "auto" and tx.scalar(select(tables.Worker.id).where(tables.Worker.cuda).limit(1)):
        device = "cuda"
    return duration.CUDA if device.startswith("cuda") else duration.CPU


def pace_of(tx: Session, run: spec.Run) -> float | None:
    """Median of measured over calculated seconds of finished jobs like this one; None where there are none.

    Alike are jobs of the same method, kind of model, device, precision, engine and numbers of threads and of devices.
    """
    recent = select(tables.Job.id).where(tables.Job.method == run.method.name).order_by(tables.Job.id.desc())
    done = (
        select(tables.Job.spec, tables.Job.results)
        .where(tables.Job.id.in_(recent.limit(LATELY)))
        .where(tables.Job.model == run.model.name, tables.Job.status == State.SUCCEEDED)
        .order_by(tables.Job.id.desc())
        .limit(ENOUGH)
    )
    machine = machine_of(tx, run)
    paces = [pace(finished, machine) for finished in tx.execute(done) if alike(finished.spec, run)]
    known = [one for one in paces if one]
    return statistics.median(known) if known else None


def alike(known: dict[str, Any], run: spec.Run) -> bool:
    ours, theirs = run.training, {"devices": 1, "engine": "auto", "together": False} | known["training"]
    same = ("device", "precision", "engine", "threads", "devices", "together")
    return all(theirs[name] == getattr(ours, name) for name in same)


def pace(finished: Any, machine: duration.Machine) -> float | None:
    """Measured over calculated seconds of a finished job."""
    measured = (finished.results.get("cost") or {}).get("train_seconds")
    return measured / duration.seconds(specs.from_dict(finished.spec), machine) if measured else None


# ---- limits ----------------------------------------------------------------------------------------------------------


def warnings(run: spec.Run, told: Forecast, memory_limit: int) -> list[dict[str, str]]:
    """What may exceed a limit, or is asked for in vain. Raises InvalidSpec for what certainly exceeds one."""
    found = [too_large(run, told.peak_memory_bytes, memory_limit), too_long(run, told), not_together(run)]
    refuse(found)
    return [{name: one[name] for name in ("pointer", "code", "detail")} for one in found if one]


def refuse(found: list[dict[str, Any] | None]) -> None:
    """Raises InvalidSpec where a limit is certainly exceeded."""
    refused = [{"pointer": one["pointer"], "detail": one["detail"]} for one in found if one and one["refused"]]
    if refused:
        raise InvalidSpec(refused)


def too_large(run: spec.Run, step: int, limit: int) -> dict[str, Any] | None:
    """Step and data set together against the memory; the pointer is to what takes most of it.

    Processes that train together on the CPU each hold both; on CUDA each has a device of its own.
    """
    data = run.dataset
    pixels = data.shape[0] * data.shape[1] * data.shape[2]
    images = (pixels + LABEL_BYTES) * (data.train_images + data.validation_images + data.test_images)
    processes = 1 if run.training.device.startswith("cuda") else run.training.devices
    needed = processes * (step + images)
    if needed <= limit / MARGIN:
        return None
    state = memory.state_bytes(run)
    shares = {"#/dataset": images, "#/model": state, "#/training/batch_size": step - state}
    figures = ", ".join(f"{size} for {name[2:]}" for name, size in shares.items())
    each = f" in each of {processes} processes" if processes > 1 else ""
    detail = f"needs about {needed} bytes of memory ({figures}{each}), and the limit is {limit}"
    return {
        "pointer": max(shares, key=shares.__getitem__),
        "code": "memory",
        "detail": detail,
        "refused": needed > limit,
    }


def too_long(run: spec.Run, told: Forecast) -> dict[str, Any] | None:
    limit = run.max_runtime_seconds
    if limit is None or told.estimated_seconds <= limit:
        return None
    takes = f"training would take about {told.estimated_seconds:.3g} s ({told.estimated_from})"
    return {
        "pointer": "#/max_runtime_seconds",
        "code": "runtime",
        "detail": f"{takes}, and {limit:g} s are allowed",
        "refused": told.estimated_seconds > MARGIN * limit,
    }


def not_together(run: spec.Run) -> dict[str, Any] | None:
    reason = alone(run) if run.training.together else None
    if reason is None:
        return None
    detail = f"the job will train alone: {reason}"
    return {"pointer": "#/training/together", "code": "alone", "detail": detail, "refused": False}
