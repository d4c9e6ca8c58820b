"""This worker as others see it: its row in the table of workers, kept fresh by a heartbeat."""

import logging
import os
import socket
import threading
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from sqlalchemy import delete, update

from lab import tables
from lab.db import Database, now
from lab.errors import DatabaseUnavailable
from lab.ids import new_id
from lab.ticker import Ticker
from worker.gpus import Gpus

BEAT_SECONDS = 5.0
FORGOTTEN_AFTER = timedelta(days=1)

log = logging.getLogger(__name__)


class Heart(Ticker):
    """A worker's row and its heartbeat.

    Args:
        database: where the row is.
        slots: attempts that may run at once.
        cuda: whether jobs that ask for CUDA may be claimed.
        gpus: whether this worker may use GPUs, and so tells what they do.
        draining: is set when the worker shuts down.
    """

    duty = "heart"

    def __init__(self, database: Database, *, slots: int, cuda: bool, gpus: bool, draining: threading.Event) -> None:
        super().__init__(BEAT_SECONDS)
        self.database = database
        self.slots, self.cuda, self.draining = slots, cuda, draining
        self.worker_id = new_id("wrk")
        self.gpus = Gpus() if gpus else None

    def start(self) -> None:
        """Write the worker's row and keep its heart beating. Raises DatabaseUnavailable."""
        if self.gpus:
            self.gpus.start()
        with self.database.write() as tx:
            moment = now(tx)
            tx.execute(delete(tables.Worker).where(tables.Worker.heartbeat_at < moment - FORGOTTEN_AFTER))
            row = tables.Worker(id=self.worker_id, host=socket.gethostname(), pid=os.getpid())
            row.version, row.slots, row.cuda = version("creditlab"), self.slots, self.cuda
            row.gpus, row.started_at, row.heartbeat_at = self._known_gpus(), moment, moment
            tx.add(row)
        super().start()

    def tick(self) -> None:
        with self.database.write() as tx:
            alive = {"heartbeat_at": now(tx), "draining": self.draining.is_set(), "gpus": self._known_gpus()}
            tx.execute(update(tables.Worker).where(tables.Worker.id == self.worker_id).values(alive))

    def stop(self) -> None:
        """Take the worker's row away."""
        super().stop()
        try:
            with self.database.write() as tx:
                tx.execute(delete(tables.Worker).where(tables.Worker.id == self.worker_id))
        except DatabaseUnavailable:
            log.warning("the database is away; this worker's row stays and grows old")

    def _known_gpus(self) -> list[dict[str, Any]]:
        return self.gpus.known() if self.gpus else []
