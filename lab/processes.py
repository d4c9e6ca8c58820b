"""Child processes: they end when their parent does, however it ends, and are started again when they die."""

import collections
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
LASTING_SECONDS = 60.0
"""A child that lived so long starts its next life without the delays of the earlier ones."""

# Asks Linux for SIGTERM at the parent's death (PR_SET_PDEATHSIG = 1), checks that the parent did not die before the
# question, and becomes the command. A separate interpreter instead of preexec_fn, which is unsafe beside threads.
TETHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | int | None = None,
    files: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own (Ctrl-C reaches only the parent, which then stops it in order).

    On Linux the child gets SIGTERM when the thread that called this dies, so call it from one that lasts. `env` is the
    child's whole environment (None: this process's own), `output` takes its stdout and stderr together, `files` are
    the numbers of open files that it keeps.
    """
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", TETHER, str(os.getpid()), *command]
    return subprocess.Popen(  # noqa: S603  (our own commands)
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,
        pass_fds=files,
    )


def stop(process: subprocess.Popen[bytes], *, grace: float) -> int:
    """SIGTERM, `grace` seconds to end, then SIGKILL. Returns the exit status."""
    process.terminate()
    try:
        return process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class Child:
    """One supervised process."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path | None = None,
        files: Sequence[int] = (),
    ) -> None:
        self.name, self.command, self.env, self.log, self.files = name, command, env, log, files
        self.process: subprocess.Popen[bytes] | None = None
        self.started = self.due = 0.0
        self.delay = FIRST_DELAY

    def start(self) -> None:
        with self.log.open("ab") if self.log else nullcontext() as log:
            self.process = start(self.command, env=self.env, output=log, files=self.files)
        self.started = time.monotonic()

    def died(self) -> int | None:
        """The exit status of a process that is gone; from then on the child is due again after a delay."""
        if self.process is None or self.process.poll() is None:
            return None
        status, self.process = self.process.returncode, None
        lived = time.monotonic() - self.started
        self.delay = FIRST_DELAY if lived > LASTING_SECONDS else min(2 * self.delay, LONGEST_DELAY)
        self.due = time.monotonic() + self.delay
        return status

    def is_due(self) -> bool:
        """Whether it is to be started again."""
        return self.process is None and time.monotonic() >= self.due

    def last_words(self) -> str:
        """The end of its log, if it has one of its own."""
        if self.log is None:
            return ""
        with self.log.open(errors="replace") as lines:
            return "".join(f"  {self.name} | {line}" for line in collections.deque(lines, 8))


def tend(children: Sequence[Child]) -> Iterator[tuple[Child, int]]:
    """Start those that are due; tells who has died since the last time, and with what status."""
    for child in children:
        if (status := child.died()) is not None:
            yield child, status
        if child.is_due():
            child.start()


def stop_all(children: Sequence[Child], *, grace: float) -> None:
    """Stop children together, within so many seconds."""
    for child in children:
        if child.process:
            child.process.terminate()
    deadline = time.monotonic() + grace
    for child in children:
        if child.process:
            stop(child.process, grace=max(0.0, deadline - time.monotonic()))
            child.process = None
