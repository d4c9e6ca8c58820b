"""A service without its API, for tests: a database, a broker, real worker processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from creditlab.broker import EmbeddedBroker
from lab import bell, jobs, reads
from lab.db import Database
from lab.settings import Settings
from tests.factories import tiny

LONG = {"training": {"epochs": 5000, "batch_size": 50, "seed": 1, "threads": 1, "device": "cpu"}}
"""A run that does not end by itself while a test looks at it."""
DEADLINE = 30.0


def eventually(condition: Callable[[], Any]) -> Any:
    """The first true value of a condition."""
    until = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < until, f"never came true: {condition}"
        time.sleep(0.02)
    return value


class Service:
    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings
        self.database = Database(settings.database_url)
        self.log = log
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_worker(self, slots: int = 2) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CREDITLAB_")}
        known = self.log.read_text().count("is ready") if self.log.exists() else 0
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker", "--concurrency", str(slots)],
                env=environment | self.settings.environment(),
                stderr=log,
                stdout=log,
            )
        self.workers.append(worker)
        eventually(lambda: worker.poll() is not None or self.log.read_text().count("is ready") > known)
        assert worker.poll() is None, self.log.read_text()
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        for worker in self.workers:
            worker.wait(30)
        self.database.dispose()

    def submit(self, **fields: Any) -> str:
        bell.configure(self.settings)
        with self.database.write() as tx:
            return jobs.submit(tx, tiny(**fields)).id

    def job(self, job_id: str) -> dict[str, Any]:
        with self.database.read() as tx:
            return reads.job_view(tx, job_id)

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job, once it has ended."""
        return eventually(lambda: (job := self.job(job_id))["finished_at"] and job)

    def training(self, job_id: str) -> dict[str, Any]:
        """The job, once it has taken steps."""
        return eventually(lambda: (job := self.job(job_id))["progress"]["step"] > 0 and job)

    def runners(self) -> list[psutil.Process]:
        """The training processes of this service's workers: leaders of their own groups."""
        family = [
            child
            for worker in self.workers
            if worker.poll() is None
            for child in psutil.Process(worker.pid).children(recursive=True)
        ]
        return [process for process in family if is_group_leader(process.pid)]

    def events(self, job_id: str) -> list[dict[str, Any]]:
        with self.database.read() as tx:
            return reads.events(tx, job_id, limit=10_000)["data"]


Kind = TypeVar("Kind", bound=Service)


def is_group_leader(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def serving(
    url: str, folder: Path, broker: EmbeddedBroker, kind: type[Kind] = Service, **settings: Any
) -> Iterator[Kind]:
    """A service on a database that is there, with no worker yet."""
    chosen = {"threads": 1, "lease_seconds": 4.0} | settings
    service = kind(Settings(data_dir=folder, database_url=url, broker_url=broker.url, **chosen), folder / "worker.log")
    try:
        yield service
    finally:
        service.stop()
