"""Several processes that answer at one address: they accept from one socket, and one that dies is started again."""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from types import FrameType

from api.metrics import SHARED_FOLDER
from lab import processes

LOOK_SECONDS = 0.2
STOP_SECONDS = 15.0

log = logging.getLogger("creditlab.api")


def serve(count: int, host: str, listening: socket.socket) -> int:
    """Until SIGINT or SIGTERM; the exit status."""
    end = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        end.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    inherited = listening.fileno()
    command = (sys.executable, "-m", "api", "--host", host, "--fd", str(inherited))
    with tempfile.TemporaryDirectory(prefix="creditlab-metrics-") as folder:
        env = {**os.environ, SHARED_FOLDER: folder}
        children = [processes.Child(f"api-{number}", command, env, files=[inherited]) for number in range(count)]
        for child in children:
            child.start()
        while not end.wait(LOOK_SECONDS):
            for child, status in processes.tend(children):
                log.error("%s ended with status %s; again in %g s", child.name, status, child.delay)
        processes.stop_all(children, grace=STOP_SECONDS)
    return 0
