"""The bell's task: whoever hears it claims jobs and trains them until nothing is left."""

import logging
import os
import platform
import shutil
import socket
import threading
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import delete, select, update

from lab import attempts, bell, datasets, tables
from lab.db import Database, now
from lab.errors import DatabaseUnavailable
from lab.files import Store
from lab.ids import new_id
from lab.settings import Settings
from lab.states import HELD
from worker.supervisor import Supervision

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
FORGOTTEN_AFTER = timedelta(days=1)


class Bench:
    """This worker: its row in the table of workers, its heartbeat, and the claims of its slots.

    Args:
        database: where the jobs are.
        settings: of the service.
        store: where files are kept.
        slots: attempts that may run at once.
        cuda: whether jobs that ask for CUDA may be claimed.
    """

    def __init__(self, database: Database, settings: Settings, store: Store, *, slots: int, cuda: bool) -> None:
        self.database = database
        self.settings = settings
        self.store = store
        self.slots = slots
        self.cuda = cuda
        self.id = new_id("wrk")
        self.draining = threading.Event()
        self._left = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def work(self) -> None:
        """Claim and train, one attempt after the other, until there is no job for this worker or it shuts down."""
        while not self.draining.is_set():
            try:
                with self.database.write() as tx:
                    attempt = attempts.claim(
                        tx,
                        self.id,
                        cuda=self.cuda,
                        lease_seconds=self.settings.lease_seconds,
                        running_jobs=self.settings.quota_running_jobs,
                    )
            except DatabaseUnavailable:
                log.warning("the database is away; nothing is claimed until the next bell")
                return
            if attempt is None:
                return
            Supervision(self.database, self.settings, self.store, attempt, self.draining).run()
            self.sweep()

    def sweep(self) -> None:
        """Remove what this machine needs no more.

        Folders of attempts that hold no job any more, since their workers were killed before they could; copies of data
        sets that have been deleted.
        """
        try:
            folders = list(self.settings.attempts_dir.glob("job_*"))
            copies = list(self.settings.uploads_dir.glob("*.safetensors"))
            with self.database.read() as tx:
                datasets.sweep(tx, copies)
                held = tx.execute(select(tables.Job.id, tables.Job.fence).where(tables.Job.status.in_(HELD)))
                alive = {f"{job_id}-{fence}" for job_id, fence in held}
        except DatabaseUnavailable:
            return  # the next attempt's end is the next occasion
        for folder in folders:
            if folder.name not in alive:
                shutil.rmtree(folder, ignore_errors=True)

    def enter(self) -> None:
        """Write the worker's row and keep its heart beating. Raises DatabaseUnavailable."""
        with self.database.write() as tx:
            moment = now(tx)
            tx.execute(delete(tables.Worker).where(tables.Worker.heartbeat_at < moment - FORGOTTEN_AFTER))
            row = tables.Worker(id=self.id, host=socket.gethostname(), pid=os.getpid(), version=version("creditlab"))
            row.slots, row.cuda, row.started_at, row.heartbeat_at = self.slots, self.cuda, moment, moment
            tx.add(row)
        self._heart.start()
        self.sweep()

    def leave(self) -> None:
        """Take the worker's row away."""
        self._left.set()
        self._heart.join()
        try:
            with self.database.write() as tx:
                tx.execute(delete(tables.Worker).where(tables.Worker.id == self.id))
        except DatabaseUnavailable:
            log.warning("the database is away; this worker's row stays and grows old")

    def _beat(self) -> None:
        while not self._left.wait(HEARTBEAT_SECONDS):
            try:
                with self.database.write() as tx:
                    alive = {"heartbeat_at": now(tx), "draining": self.draining.is_set()}
                    tx.execute(update(tables.Worker).where(tables.Worker.id == self.id).values(alive))
            except DatabaseUnavailable:
                log.warning("the database is away; no heartbeat")


def has_cuda() -> bool:
    """Whether this machine shows an NVIDIA device; asked of the driver's files, since torch is not imported here."""
    return platform.system() == "Linux" and Path("/dev/nvidiactl").exists()


def serve(bench: Bench) -> None:
    """Let the bell's task work at this bench."""

    def work(queue: str) -> None:
        log.debug("the bell of queue %s", queue)
        bench.work()

    bell.app.task(name=bell.TASK)(work)
