"""``creditlab run``: a run and its controls in this process, without the service, with the very same numbers on CPU."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from credit import artifacts, spec, train
from credit.events import Evaluated, Event, Fetching, Finished, Progress, RunError, Started
from lab import datasets, jobs, specs
from lab.errors import StoreUnavailable
from lab.files import open_store
from lab.settings import Settings

Listener = Callable[[dict[str, Any]], None]
"""Is told the job, in the shape of the API's, whenever it moves on."""


def run(chosen: spec.Run, settings: Settings, listener: Listener, out: Path | None = None) -> list[dict[str, Any]]:
    """Train a run, then each of its controls; returns the results JSON of each, the run's own first.

    Files go to `out`, those of a control to a folder in it that bears its method's name. A control that fails has no
    results, as in the service.

    Raises:
        RunError: the run itself cannot go on, for a reason its user should read.
    """
    chosen = specs.resolve(chosen, threads=settings.threads)
    own = (chosen, train_one(chosen, settings, listener, out))
    twins = []
    for control in chosen.controls:
        twin, folder = replace(chosen, method=jobs.CONTROLS[control], controls=()), out and out / control
        with suppress(RunError):  # the listener has been told
            twins.append((twin, train_one(twin, settings, listener, folder)))
            if folder:
                artifacts.write(folder, *twins[-1])
    if out:
        artifacts.write(out, *own, twins)
    return [artifacts.results(*own, twins), *(artifacts.results(*twin) for twin in twins)]


def train_one(one: spec.Run, settings: Settings, listener: Listener, out: Path | None) -> list[Event]:
    """All events of a run; the last one says with which spec. Raises RunError."""
    job: dict[str, Any] = {"status": "running", "spec": specs.to_dict(one), "progress": {}}
    events: list[Event] = []
    if out:
        out.mkdir(parents=True, exist_ok=True)

    def fetched(received: int, size: int) -> None:
        listener(job | {"fetching": Fetching(received=received, size=size)})

    folders: dict[str, Any] = {"datasets": settings.datasets_dir, "cache": settings.cache_dir, "out": out}
    try:
        fetch(one, settings)
        for event in train.run(one, **folders, progress=fetched):
            events.append(event)
            listener(follow(job, event))
    except RunError as error:
        listener(job | {"status": "failed", "error": {"code": error.code, "message": str(error)}})
        raise
    last = events.pop()
    assert isinstance(last, Finished)
    environment = last.results["environment"] | {"spec_sha256": specs.sha256(one)}
    return [*events, replace(last, results=last.results | {"environment": environment})]


def fetch(one: spec.Run, settings: Settings) -> None:
    """Have a user's own data set on this machine, from the service's store. Raises RunError."""
    if not isinstance(one.dataset, spec.Uploaded):
        return
    try:
        datasets.fetch(open_store(settings), settings, one.dataset)
    except StoreUnavailable as error:
        raise RunError(error.code, f"the artifact store does not answer: {error.reason}") from error
    except ValueError as error:
        raise RunError("dataset_unavailable", str(error)) from error


def follow(job: dict[str, Any], event: Event) -> dict[str, Any]:
    """The job after an event."""
    progress = job["progress"]
    match event:
        case Started():
            progress |= {"epoch": 0.0, "epochs": event.epochs, "steps": event.steps, "fraction": 0.0}
        case Progress() | Evaluated():
            progress |= {"epoch": event.epoch, "step": event.step, "fraction": event.step / progress["steps"]}
        case Finished():
            job["status"] = "succeeded"
    return job
