"""Child processes that end when their parent does, however the parent ends."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

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
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own (Ctrl-C reaches only the parent, which then stops it in order).

    On Linux the child gets SIGTERM when the thread that called this dies, so call it from one that lasts. `env` is the
    child's whole environment (None: this process's own), `output` takes its stdout and stderr together.
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
    )


def stop(process: subprocess.Popen[bytes], *, grace: float) -> int:
    """SIGTERM, `grace` seconds to end, then SIGKILL. Returns the exit status."""
    process.terminate()
    try:
        return process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
