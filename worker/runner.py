"""The training process: trains one attempt and tells its supervisor what happens, as JSON through a pipe.

It has no database. It ends with its work, with a signal, or when there is nobody left to tell.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch._inductor  # noqa: F401  (a second and more, which torch spends when determinism is first asked for)

from credit import artifacts, data, spec, train
from credit.events import Event, Failed, Fetching, Finished, RunError
from lab import logs, specs

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
FETCHED_SECONDS = 1.0
IMPORTED_BY = os.getpid()

specs.adapter(spec.Run)  # built once, in the server


def main(pipe: Connection, order: dict[str, Any]) -> None:
    """Train as ordered: ``{"spec", "datasets", "cache", "out", "job_id", "attempt"}``."""
    die_with_the_parent()
    watch(pipe)
    logs.configure()
    try:
        for event in events(order, Fetched(pipe)):
            pipe.send_bytes(event.to_json())
    except RunError as error:
        tell(pipe, Failed(code=error.code, message=str(error)))
    except MemoryError:
        tell(pipe, Failed(code="out_of_memory", message="the machine's memory does not suffice"))
    except BrokenPipeError:
        sys.exit("nobody listens any more")
    except Exception as error:
        log.exception("training failed", extra={name: order[name] for name in ("job_id", "attempt")})
        tell(pipe, Failed(code="internal_error", message=f"{type(error).__name__}: {error}"))


def events(order: dict[str, Any], fetched: data.Progress) -> Iterator[Event]:
    """The run's events; that it has finished is told when all files are written."""
    run, out = specs.from_dict(order["spec"]), Path(order["out"])
    out.mkdir(parents=True, exist_ok=True)
    datasets = Path(order["datasets"]) if order["datasets"] else None
    told: list[Event] = []
    for event in train.run(run, datasets=datasets, cache=Path(order["cache"]), out=out, progress=fetched):
        told.append(event)
        if not isinstance(event, Finished):
            yield event
    artifacts.write(out, run, told)
    yield told[-1]


class Fetched:
    """Tells of a download when it begins, at most every so many seconds, and when it is complete."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.due = pipe, 0.0

    def __call__(self, received: int, size: int) -> None:
        if time.monotonic() >= self.due or received == size:
            self.pipe.send_bytes(Fetching(received=received, size=size).to_json())
            self.due = time.monotonic() + FETCHED_SECONDS


def greet(pipe: Connection, order: dict[str, Any]) -> None:  # noqa: ARG001
    """Say that the process server is up, and whether it had this module, and so torch, before the fork."""
    pipe.send_bytes(b"ready" if os.getpid() != IMPORTED_BY else b"not preloaded")


def tell(pipe: Connection, event: Event) -> None:
    """Send a last word, if somebody listens."""
    try:
        pipe.send_bytes(event.to_json())
    except BrokenPipeError:
        sys.exit("nobody listens any more")


def die_with_the_parent() -> None:
    """Become the leader of a group of its own that one signal ends; be killed if the process server dies."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def watch(pipe: Connection) -> None:
    """End this process when the supervisor has closed its end: nothing is ever sent this way but that."""

    def listen() -> None:
        try:
            pipe.poll(None)
            pipe.recv_bytes()
        except (EOFError, OSError):
            os._exit(75)

    threading.Thread(target=listen, name="watch", daemon=True).start()
