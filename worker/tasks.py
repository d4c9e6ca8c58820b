"""The bell's task: whoever hears it claims jobs and trains them until nothing is left."""

import logging
import platform
import shutil
import threading
import time
from pathlib import Path

from sqlalchemy import select

from lab import attempts, bell, datasets, tables
from lab.db import Database, Tx
from lab.errors import DatabaseUnavailable
from lab.files import Store
from lab.settings import Settings
from lab.states import HELD
from worker import company, launch
from worker.heart import Heart
from worker.supervisor import Start, Supervision

log = logging.getLogger(__name__)


class Bench:
    """This worker: its heart, and the claims of its slots.

    Args:
        database: where the jobs are.
        settings: of the service.
        store: where files are kept.
        slots: attempts that may run at once.
        gpus: whether this worker may use GPUs; where there are some, it claims jobs that ask for CUDA.
    """

    def __init__(self, database: Database, settings: Settings, store: Store, *, slots: int, gpus: bool) -> None:
        self.database = database
        self.settings = settings
        self.store = store
        self.slots = slots
        self.cuda = gpus and has_cuda()
        self.draining = threading.Event()
        self.heart = Heart(database, slots=slots, cuda=self.cuda, gpus=gpus, draining=self.draining)
        self.id = self.heart.worker_id

    def work(self) -> None:
        """Claim and train, one attempt after the other, until there is no job for this worker or it shuts down."""
        while not self.draining.is_set():
            began = time.time_ns()
            try:
                with self.database.write() as tx:
                    claimed = self._claim(tx)
            except DatabaseUnavailable:
                log.warning("the database is away; nothing is claimed until the next bell")
                return
            if not claimed:
                return
            self._train(claimed, began)
            self.sweep()

    def _claim(self, tx: Tx) -> list[attempts.Attempt]:
        """An attempt; or several that will train as one computation; or none."""
        lease, most = self.settings.lease_seconds, self.settings.quota_running_jobs
        first = attempts.claim(tx, self.id, cuda=self.cuda, lease_seconds=lease, running_jobs=most)
        if first is None:
            return []
        return [first, *attempts.companions(tx, self.id, first, lease_seconds=lease, running_jobs=most)]

    def _train(self, claimed: list[attempts.Attempt], began: int) -> None:
        """Supervise an attempt, or several that train as one computation, to the end."""

        def supervise(attempt: attempts.Attempt, start: Start) -> None:
            Supervision(self.database, self.settings, self.store, attempt, self.draining, start, began).run()

        if len(claimed) == 1:
            supervise(claimed[0], launch.alone)
        else:
            company.train(claimed, supervise)

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


def has_cuda() -> bool:
    """Whether this machine shows an NVIDIA device; asked of the driver's files, since torch is not imported here."""
    return platform.system() == "Linux" and Path("/dev/nvidiactl").exists()


def serve(bench: Bench) -> None:
    """Let the bell's task work at this bench."""

    def work(queue: str) -> None:
        log.debug("the bell of queue %s", queue)
        bench.work()

    bell.app.task(name=bell.TASK)(work)
