"""The training process: trains one attempt and tells its supervisor what happens, as JSON through a pipe.

It has no database. It ends with its work, with a signal, or when there is nobody left to tell.
"""

import ctypes
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch._inductor  # noqa: F401  (a second and more, which torch spends when determinism is first asked for)

from credit import artifacts, checkpoint, data, spec, train
from credit.events import Checkpointed, Event, Failed, Fetching, Finished, Recalled, RunError, Troubled
from lab import logs, specs

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
FETCHED_SECONDS = 1.0
IMPORTED_BY = os.getpid()

specs.adapter(spec.Run)  # built once, in the server, as are the images that everybody has
data.preload()
gc.freeze()  # forks share what is here; a collection that looked through it would copy it


def main(pipe: Connection, order: dict[str, Any]) -> None:
    """Train as ordered: see ``worker.supervisor.Supervision`` for what an order holds."""
    die_with_the_parent()
    cadence = cadence_of(order)
    watch(pipe, cadence, order["lease_seconds"])
    logs.configure()
    with logs.bound(**{name: order[name] for name in ("job_id", "attempt", "trace_id")}):
        train_and_tell(pipe, order, cadence)


def train_and_tell(pipe: Connection, order: dict[str, Any], cadence: "Cadence") -> None:
    def tell(event: Event) -> None:
        pipe.send_bytes(event.to_json())

    with failures(tell):
        for event in events(order, Fetched(tell), cadence):
            tell(event)
            if isinstance(event, Checkpointed) and cadence.stopping:
                return


@contextmanager
def failures(tell: Callable[[Failed], None]) -> Iterator[None]:
    """Whatever goes wrong in training is told as its last word; where nobody listens, the process ends."""
    try:
        try:
            yield
        except BrokenPipeError:
            raise
        except RunError as error:
            tell(Failed(code=error.code, message=str(error)))
        except MemoryError:
            tell(Failed(code="out_of_memory", message="the machine's memory does not suffice"))
        except Exception as error:
            log.exception("training failed")
            tell(Failed(code="internal_error", message=f"{type(error).__name__}: {error}"))
    except BrokenPipeError:
        sys.exit("nobody listens any more")


def events(order: dict[str, Any], fetched: data.Progress, cadence: "Cadence") -> Iterator[Event]:
    """The run's events; that it has finished is told when all files are written."""
    run, out = specs.from_dict(order["spec"]), Path(order["folder"]) / "out"
    datasets = Path(order["datasets"]) if order["datasets"] else None
    resume, damaged = latest(order["checkpoints"])
    yield from damaged
    told: list[Event] = [recalled(order["history"], resume.step)] if resume else []
    with storage():
        out.mkdir(parents=True, exist_ok=True)
    folders: dict[str, Any] = {"datasets": datasets, "cache": Path(order["cache"]), "out": out}
    for event in train.run(run, **folders, progress=fetched, resume=resume, save=cadence):
        told.append(event)
        if isinstance(event, Checkpointed):
            cadence.took(event.seconds)
        if not isinstance(event, Finished):
            yield event
    with storage():
        artifacts.write(out, run, told)
    yield told[-1]


def latest(stored: list[dict[str, Any]]) -> tuple[checkpoint.Saved | None, list[Event]]:
    """The latest checkpoint that is what was written, and what is to be said of those that are not."""
    damaged: list[Event] = []
    for one in stored:
        try:
            return checkpoint.read(Path(one["path"]), one["sha256"]), damaged
        except checkpoint.DamagedError as error:
            damaged.append(Troubled(message=f"the checkpoint of step {one['step']} is not used: {error}"))
    return None, damaged


def recalled(history: str, step: int) -> Recalled:
    """What earlier attempts have measured up to a step."""
    return Recalled(series=json.loads(Path(history).read_text()), step=step)


@contextmanager
def storage() -> Iterator[None]:
    """What the disk refuses is no fault of the run. Raises RunError."""
    try:
        yield
    except OSError as error:
        raise RunError("storage_unavailable", f"the run's files could not be written: {error}") from error


class Cadence:
    """When a checkpoint is due: by time, or at once where the run shall stop.

    Args:
        folder: where checkpoints are written, for the supervisor to put them into the store.
        seconds: at least so long between two of them.
        share: of the time that they may take.
    """

    def __init__(self, folder: Path, seconds: float, share: float) -> None:
        self.folder, self.seconds, self.share = folder, seconds, share
        self.number = 0
        self.due = time.monotonic() + seconds
        self.stopping = False

    def __call__(self) -> Path | None:
        if not self.stopping and time.monotonic() < self.due:
            return None
        self.number += 1
        self.due = time.monotonic() + self.seconds  # also where it cannot be written
        return self.folder / f"checkpoint-{self.number}"

    def took(self, seconds: float) -> None:
        """Writing the last one took so long."""
        self.due = time.monotonic() + max(self.seconds, seconds / self.share)


def cadence_of(order: dict[str, Any]) -> Cadence:
    return Cadence(Path(order["folder"]), order["checkpoint_seconds"], order["checkpoint_share"])


class Fetched:
    """Tells of a download when it begins, at most every so many seconds, and when it is complete."""

    def __init__(self, tell: Callable[[Event], object]) -> None:
        self.tell, self.due = tell, 0.0

    def __call__(self, received: int, size: int) -> None:
        if time.monotonic() >= self.due or received == size:
            self.tell(Fetching(received=received, size=size))
            self.due = time.monotonic() + FETCHED_SECONDS


def greet(pipe: Connection, order: dict[str, Any]) -> None:  # noqa: ARG001
    """Say that the process server is up, and whether it had this module, and so torch, before the fork."""
    pipe.send_bytes(b"ready" if os.getpid() != IMPORTED_BY else b"not preloaded")


def die_with_the_parent() -> None:
    """Become the leader of a group of its own that one signal ends; be killed if the process server dies."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def watch(pipe: Connection, cadence: Cadence, lease_seconds: float) -> None:
    """Hear the supervisor, and end this process when it has gone, or has not been heard of for a lease."""

    def listen() -> None:
        try:
            while pipe.poll(lease_seconds):
                cadence.stopping |= pipe.recv_bytes() == b"stop"
        except (EOFError, OSError):
            pass
        os._exit(75)

    threading.Thread(target=listen, name="watch", daemon=True).start()
