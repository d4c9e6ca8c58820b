"""``python -m worker``: the Celery worker with a pool of threads, each of which waits on a training process."""

import argparse
import logging
import os
import signal
import socket
import sys
import warnings
from typing import Any

from celery.signals import worker_ready, worker_shutting_down

from lab import bell, logs, traces
from lab.db import Database
from lab.files import open_store
from lab.reconciler import Reconciler
from lab.settings import Settings
from worker import launch
from worker.courier import Courier
from worker.tasks import Bench, serve

log = logging.getLogger("worker")


def arguments(settings: Settings) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="creditlab worker", description="Trains the jobs of the service.")
    slots = max(1, (os.cpu_count() or 1) // settings.threads)
    parser.add_argument("--concurrency", type=int, default=slots, help="jobs trained at once (default: %(default)s)")
    parser.add_argument("--gpus", choices=["all", "none"], default="all", help="whether to use CUDA devices")
    return parser.parse_args()


def main() -> int:
    settings = Settings.load()
    chosen = arguments(settings)
    logs.configure()
    logging.getLogger("celery").setLevel(logging.WARNING)  # it would write two lines per bell
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")  # nothing is unpickled here
    if not settings.broker_url:
        log.error("CREDITLAB_BROKER_URL is not set")
        return 2
    try:
        store = open_store(settings)
    except ValueError as error:
        log.error("%s", error)  # noqa: TRY400  (it says what to do)
        return 2
    database = Database(settings.database_url, pool_size=chosen.concurrency + 4)
    if not database.is_current():
        log.error("the tables are not those of this version: run `creditlab migrate`")
        return 1
    bell.configure(settings)
    bench = Bench(database, settings, store, slots=chosen.concurrency, gpus=chosen.gpus == "all")
    serve(bench)
    launch.warm()
    traces.configure(settings, "creditlab-worker")
    reconciler = Reconciler(database, settings, store)
    courier = Courier(database, settings)
    bench.heart.start()
    bench.sweep()
    reconciler.start()
    courier.start()
    try:
        return listen(bench)
    finally:
        courier.stop()
        reconciler.stop()
        bench.heart.stop()
        database.dispose()
        traces.stop()


def listen(bench: Bench) -> int:
    """Hear bells until a signal ends it; the pool waits for its supervisors, which end their processes at once."""

    def drain(**_: Any) -> None:
        bench.draining.set()

    def ready(**_: Any) -> None:
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))  # Celery's own would end with status 1
        log.info("worker %s is ready: %d slots, CUDA %s", bench.id, bench.slots, "yes" if bench.cuda else "no")

    worker_shutting_down.connect(drain, weak=False)
    worker_ready.connect(ready, weak=False)
    queues = ["default", "cuda"] if bench.cuda else ["default"]
    worker = bell.app.Worker(
        pool="threads",
        concurrency=bench.slots,
        queues=queues,
        hostname=f"{bench.id}@{socket.gethostname()}",
        without_gossip=True,
        without_mingle=True,
        loglevel="INFO",
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
