"""The real service in processes of its own, as ``creditlab up`` runs it, for tests of the whole."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from creditlab.broker import free_port

CREDITLAB = (sys.executable, "-m", "creditlab.cli")
QUICK_SPEC: dict[str, Any] = {
    "name": "quick",
    "method": "dfa",
    "model": {"name": "mlp", "hidden": [32, 16]},
    "dataset": {"name": "fashion-mnist-mini", "train_samples": 1000, "test_samples": 500},
    "training": {"epochs": 2, "batch_size": 100, "seed": 7, "threads": 1},
    "alignment": {"samples": 64},
}
LONG_SPEC = QUICK_SPEC | {"name": "long", "training": QUICK_SPEC["training"] | {"epochs": 100_000}}
DIVERGING_SPEC = QUICK_SPEC | {
    "model": {"name": "mlp", "hidden": [32, 16], "activation": "relu"},
    "optimizer": {"name": "sgd", "lr": 100.0, "momentum": 0.9},
    "loss": "mse",
}


def poll(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of `condition`; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def creditlab(*arguments: str, env: dict[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    settings, command = os.environ | (env or {}), [*CREDITLAB, *arguments]
    return subprocess.run(command, check=False, env=settings, input=stdin, capture_output=True, text=True, timeout=240)


@dataclass
class Up:
    """A running ``creditlab up``."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    env: dict[str, str]

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False

    def processes(self) -> list[psutil.Process]:
        """The service and everything below it."""
        return [me := psutil.Process(self.process.pid), *me.children(recursive=True)]

    def child(self, part: str) -> psutil.Process | None:
        """The living child whose command has this part in it, if there is one."""
        own = [child for child in psutil.Process(self.process.pid).children() if alive(child)]
        with suppress(psutil.NoSuchProcess):
            return next((child for child in own if any(part in word for word in child.cmdline())), None)
        return None

    def cli(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return creditlab(*arguments, env=self.env, stdin=stdin)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait until it and all of its processes are gone; its exit status."""
        everyone = self.processes()
        self.process.send_signal(how)
        status = self.process.wait(40)
        poll(lambda: not any(alive(process) for process in everyone), 20)
        return status


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def up(folder: Path, *command: str, **settings: str) -> Iterator[Up]:
    """``creditlab up`` on a free port, its data in `folder`, with further CREDITLAB_* settings."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {"CREDITLAB_API_URL": url, "CREDITLAB_THREADS": "1"}
    env |= {f"CREDITLAB_{name.upper()}": value for name, value in settings.items()}
    arguments = ["up", "--port", str(port), "--data-dir", str(folder)]
    with (folder.parent / f"{folder.name}.out").open("w") as out:
        process = subprocess.Popen(
            [*(command or CREDITLAB), *arguments], env=os.environ | env, stdout=out, stderr=out, text=True
        )
    service = Up(process, url, folder, env)
    try:
        poll(lambda: service.ready() or process.poll() is not None)
        assert process.poll() is None, Path(out.name).read_text()
        yield service
    finally:
        if process.poll() is None:
            service.stop()
