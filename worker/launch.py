"""Starts training processes as forks of one server process that has torch imported; this process never imports it.

The server is multiprocessing's forkserver: exec'd, without a tensor operation or a CUDA call to its name, and without
threads but one of pyarrow's allocator, which takes care of forks itself; so its own forks are sound. Started as
``python -m worker``, a child does not import the main module again.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

GRACE_SECONDS = 1.0

_context = multiprocessing.get_context("forkserver")
# Another thread's clean-up inside start() could consume the exit status that this thread is about to read.
_lock = threading.Lock()


@dataclass(frozen=True)
class Runner:
    """A training process and the pipe that its events come through."""

    process: ForkServerProcess
    pipe: Connection

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def hear(self) -> bytes | None:
        """What the process said next; None where that has not come yet, or never will."""
        with contextlib.suppress(EOFError, ConnectionError):
            return self.pipe.recv_bytes() if self.pipe.poll() else None
        return None

    def wait(self, seconds: float) -> None:
        """Wait until there is something to read, the process has ended, or the time is over."""
        wait([self.pipe, self.process.sentinel], seconds)

    def tell(self, word: str) -> None:
        """Say that its supervisor is ``alive``, or that it shall store a checkpoint and ``stop``."""
        with contextlib.suppress(OSError):  # it is ending; what it said before is heard
            self.pipe.send_bytes(word.encode())

    def ended(self) -> bool:
        """Whether the process has ended; what it said before may still be in the pipe."""
        return bool(wait([self.process.sentinel], 0))

    def stop(self) -> None:
        """End the process and its group: SIGTERM, a second of grace, SIGKILL. Returns when it is gone."""
        self._signal(signal.SIGTERM)
        wait([self.process.sentinel], GRACE_SECONDS)
        self._signal(signal.SIGKILL)
        wait([self.process.sentinel])

    def exit_status(self) -> int:
        """Of a process that has ended: its exit code, or minus the number of the signal that ended it."""
        with _lock:
            self.process.join()
            status = self.process.exitcode
            self.process.close()
        self.pipe.close()
        assert status is not None
        return status

    def _signal(self, number: signal.Signals) -> None:
        """To the group, with whatever the process may have left behind; or to a process that leads no group yet."""
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                if not self.ended():
                    os.kill(self.pid, number)


def warm() -> None:
    """Start the server and wait until it has torch. Call it once, in the main thread.

    Raises:
        RuntimeError: the server could not import ``worker.company_runner``, about which multiprocessing says nothing.
    """
    _context.set_forkserver_preload(["worker.company_runner"])
    runner = start("runner.greet", {})
    try:
        greeting = runner.pipe.recv_bytes()
    except EOFError:
        greeting = b""
    runner.stop()
    runner.exit_status()
    if greeting != b"ready":
        raise RuntimeError("the process server does not have torch; does `import worker.company_runner` work?")


def start(entry: str, order: dict[str, Any]) -> Runner:
    """Start a function, ``<module of worker>.<name>``, on an order of JSON values."""
    ours, theirs = _context.Pipe(duplex=True)
    try:
        return Runner(_start(entry, theirs, json.dumps(order)), ours)
    finally:
        theirs.close()


def alone(order: dict[str, Any]) -> Runner:
    """A process for one attempt, which trains as ordered."""
    return start("runner.main", order)


def _start(entry: str, pipe: Connection, order: str) -> ForkServerProcess:
    with _lock:
        for last_try in (False, True):
            process = _context.Process(target=enter, args=(entry, pipe, order), daemon=True)
            try:
                process.start()
            except (EOFError, ConnectionError):  # the server had just died; the next start makes a new one
                if last_try:
                    raise
            else:
                return process
    raise AssertionError


def enter(entry: str, pipe: Connection, order: str) -> None:
    """First function of the child. The module is named, not imported above: only the child may have torch."""
    module, _, name = entry.partition(".")
    getattr(importlib.import_module(f"worker.{module}"), name)(pipe, json.loads(order))
