"""``creditlab run``: a run and its controls in this process, without the service, with the very same numbers on CPU."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from credit import artifacts, spec, train
from credit.events import Evaluated, Event, Failed, Fetching, Finished, Progress, RunError, Started
from credit.members import run_members
from credit.spec.together import batchable, pays
from lab import datasets, jobs, specs
from lab.errors import StoreUnavailable
from lab.files import open_store
from lab.settings import Settings

JSON = dict[str, Any]
Listener = Callable[[JSON], None]
"""Is told the job, in the shape of the API's, whenever it moves on."""
MOST_TOGETHER = 64
"""Members of one computation."""


def run(chosen: spec.Run, settings: Settings, listener: Listener, out: Path | None = None) -> list[JSON]:
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
    return report(own, twins, out)


def run_seeds(
    chosen: spec.Run, seeds: Sequence[int], settings: Settings, listener: Listener, out: Path | None = None
) -> list[JSON]:
    """Train a run and its controls with each of several seeds; returns the results JSON of each seed.

    Together where that is possible and quicker, else one after the other. Files go to `out`, to a folder per seed. A
    seed that fails has ``error`` instead of results.

    Raises:
        RunError: what ends all seeds alike: the data are not to be had, or the device is not there.
    """
    chosen = specs.resolve(chosen, threads=settings.threads, seed=seeds[0])
    runs = [replace(chosen, training=replace(chosen.training, seed=seed)) for seed in seeds]
    folders = [out and out / f"seed-{seed}" for seed in seeds]
    told = train_all(runs, settings, listener, folders)
    beside: list[list[artifacts.Told]] = [[] for _ in runs]
    for control in chosen.controls:
        twins = [replace(one, method=jobs.CONTROLS[control], controls=()) for one in runs]
        theirs = train_all(twins, settings, listener, [folder and folder / control for folder in folders])
        for row, twin, events in zip(beside, twins, theirs, strict=True):
            if isinstance(events[-1], Finished):
                row.append((twin, events))
    return [
        {"seed": seed} | outcome((one, events), twins, folder)
        for seed, one, events, twins, folder in zip(seeds, runs, told, beside, folders, strict=True)
    ]


def outcome(own: artifacts.Told, twins: Sequence[artifacts.Told], out: Path | None) -> JSON:
    """The results JSON of a run, or why there is none."""
    last = own[1][-1]
    if isinstance(last, Failed):
        error = {"code": last.code, "message": last.message}
        return {"job_id": None, "status": "failed", "method": own[0].method.name, "error": error}
    return report(own, twins, out)[0]


def report(own: artifacts.Told, twins: Sequence[artifacts.Told], out: Path | None) -> list[JSON]:
    """Write the files of a finished run and of its finished twins; returns their results."""
    if out:
        for twin in twins:
            artifacts.write(out / twin[0].method.name, *twin)
        artifacts.write(out, *own, twins)
    return [artifacts.results(*own, twins), *(artifacts.results(*twin) for twin in twins)]


def train_all(
    runs: Sequence[spec.Run], settings: Settings, listener: Listener, outs: Sequence[Path | None]
) -> list[list[Event]]:
    """All events of each of several seeds; the last one is ``Finished`` or ``Failed``."""
    if batchable(runs[0]) is None and pays(runs[0], len(runs)):
        starts = range(0, len(runs), MOST_TOGETHER)
        groups = [slice(start, start + MOST_TOGETHER) for start in starts]
        return [events for group in groups for events in train_together(runs[group], settings, listener, outs[group])]
    told: list[list[Event]] = []
    for one, out in zip(runs, outs, strict=True):
        try:
            told.append(train_one(one, settings, listener, out, title=title(one)))
        except RunError as error:
            if error.code in {"dataset_unavailable", "user_error"}:
                raise
            told.append([Failed(code=error.code, message=str(error))])
    return told


def train_together(
    runs: Sequence[spec.Run], settings: Settings, listener: Listener, outs: Sequence[Path | None]
) -> list[list[Event]]:
    """All events of each of several seeds, trained as one computation. Raises RunError."""
    fetch(runs[0], settings)
    states = [state(one, title(one)) for one in runs]
    told: list[list[Event]] = [[] for _ in runs]
    places = [out for out in outs if out]
    for m, event in run_members(runs, outs=places or None, **folders(settings, places, states[0], listener)):
        told[m].append(event)
        listener(follow(states[m], event))
    return [closed(one, events) for one, events in zip(runs, told, strict=True)]


def train_one(
    one: spec.Run, settings: Settings, listener: Listener, out: Path | None, title: str | None = None
) -> list[Event]:
    """All events of a run; the last one says with which spec. Raises RunError."""
    job = state(one, title)
    events: list[Event] = []
    try:
        fetch(one, settings)
        for event in train.run(one, out=out, **folders(settings, [out] if out else [], job, listener)):
            events.append(event)
            listener(follow(job, event))
    except RunError as error:
        listener(follow(job, Failed(code=error.code, message=str(error))))
        raise
    return closed(one, events)


def state(one: spec.Run, title: str | None) -> JSON:
    """The job, in the shape of the API's, before it starts."""
    return {"status": "running", "spec": specs.to_dict(one), "progress": {}} | ({"title": title} if title else {})


def title(one: spec.Run) -> str:
    return f"{one.method.name}, seed {one.training.seed}"


def folders(settings: Settings, outs: Sequence[Path], job: JSON, listener: Listener) -> dict[str, Any]:
    """Where data come from, and who is told of a download; the folders for files are made."""
    for out in outs:
        out.mkdir(parents=True, exist_ok=True)

    def fetched(received: int, size: int) -> None:
        listener(job | {"fetching": Fetching(received=received, size=size)})

    return {"datasets": settings.datasets_dir, "cache": settings.cache_dir, "progress": fetched}


def closed(one: spec.Run, events: list[Event]) -> list[Event]:
    """Events whose results, where there are any, say with which spec."""
    last = events[-1]
    if not isinstance(last, Finished):
        return events
    environment = last.results["environment"] | {"spec_sha256": specs.sha256(one)}
    return [*events[:-1], replace(last, results=last.results | {"environment": environment})]


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


def follow(job: JSON, event: Event) -> JSON:
    """The job after an event."""
    progress = job["progress"]
    match event:
        case Started():
            progress |= {"epoch": 0.0, "epochs": event.epochs, "steps": event.steps, "fraction": 0.0}
        case Progress() | Evaluated():
            progress |= {"epoch": event.epoch, "step": event.step, "fraction": event.step / progress["steps"]}
        case Finished():
            job["status"] = "succeeded"
        case Failed():
            job |= {"status": "failed", "error": {"code": event.code, "message": event.message}}
    return job
