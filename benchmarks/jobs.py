"""What the service takes beside training: many short jobs at once, and one long one.

    python benchmarks/jobs.py [--jobs 200] [--workers 2] [--minutes 1] [--rounds 3] [--quick]

Starts a broker and workers on a database of its own, submits jobs of about a second, and prints a table: are they all
trained, once each, and how long does a worker take from claim to first step? Then one job trains for about a minute:
what share of its time was not spent in training steps, where it went, and what of it the same run takes without the
service. Last, sixteen seeds of a small net, as jobs that may train together and as jobs that may not. Times are
the database's: from the claim to the arrival of the run's ``started``, which says that its first step is next.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from credit import train
from credit.events import Finished, Started
from creditlab.broker import EmbeddedBroker
from lab import bell, jobs, specs, tables
from lab.db import Database
from lab.settings import Settings
from lab.states import TERMINAL

SPEC: dict[str, Any] = {
    "method": "dfa",
    "model": {"name": "mlp", "hidden": [64, 64]},
    "dataset": {"name": "fashion-mnist-mini", "train_samples": 2000, "test_samples": 500},
    "training": {"epochs": 16, "batch_size": 50, "device": "cpu"},
}
LONG: dict[str, Any] = {
    "method": "dfa",
    "model": {"name": "mlp", "hidden": [512, 512, 512]},
    "dataset": "fashion-mnist-mini",
    "training": {"epochs": 2, "batch_size": 128, "device": "cpu"},
}
"""The net of `make demo`; its first two epochs tell how many a minute takes."""
SEEDS: dict[str, Any] = {
    "method": "dfa",
    "dataset": "fashion-mnist-mini",
    "training": {"epochs": 10, "batch_size": 128, "device": "cpu"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--database-url", help="default: a fresh SQLite file")
    parser.add_argument("--minutes", type=float, default=1, help="of training steps of the long job")
    parser.add_argument("--rounds", type=int, default=3, help="of sixteen seeds together and alone")
    parser.add_argument("--quick", action="store_true", help="ten jobs, a long one of three seconds, one round")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="creditlab-bench-") as folder:
        broker = EmbeddedBroker(Path(folder) / "broker")
        given = {"database_url": chosen.database_url} if chosen.database_url else {}
        settings = Settings(data_dir=Path(folder), broker_url=broker.start(), threads=1, **given)
        try:
            if chosen.quick:
                chosen.jobs, chosen.minutes, chosen.rounds = 10, 0.05, 1
            measure(settings, chosen)
        finally:
            broker.stop()


def measure(settings: Settings, chosen: argparse.Namespace) -> None:
    count, workers = chosen.jobs, chosen.workers
    database = Database(settings.database_url)
    database.migrate()
    bell.configure(settings)
    command = [sys.executable, "-m", "worker", "--concurrency", "1", "--gpus", "none"]
    log = (settings.data_dir / "worker.log").open("ab")
    running = [
        subprocess.Popen(command, env=os.environ | settings.environment(), stdout=log, stderr=log)
        for _ in range(workers)
    ]
    try:
        wait_for_workers(database, workers)
        submit(database, SPEC, 2 * workers, settings.threads)  # what a worker's first jobs pay once is not counted
        wait_for_jobs(database)
        warm = newest(database)
        start = time.perf_counter()
        submit(database, SPEC, count, settings.threads)
        wait_for_jobs(database)
        report(database, warm, count, time.perf_counter() - start)
        report_long(database, settings, chosen.minutes)
        report_seeds(database, settings, chosen.rounds, quick=chosen.quick)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        log.close()
        database.dispose()


def wait_for_workers(database: Database, workers: int) -> None:
    present = 0
    while present < workers:
        time.sleep(0.1)
        with database.read() as tx:
            present = tx.scalar(select(func.count()).select_from(tables.Worker)) or 0


def submit(database: Database, body: dict[str, Any], count: int, threads: int) -> None:
    with database.write() as tx:
        for seed in range(count):
            jobs.submit(tx, specs.resolve(specs.parse(body), threads=threads, seed=seed))


def wait_for_jobs(database: Database) -> None:
    left = 1
    while left:
        time.sleep(0.5)
        with database.read() as tx:
            unfinished = select(func.count()).where(tables.Job.status.not_in(TERMINAL))
            left = tx.scalar(unfinished) or 0


def newest(database: Database) -> str:
    with database.read() as tx:
        return tx.scalar(select(func.max(tables.Job.id))) or ""


def report(database: Database, after: str, count: int, seconds: float) -> None:
    with database.read() as tx:
        rows = list(tx.scalars(select(tables.Job).where(tables.Job.id > after)))
        attempts = list(tx.scalars(select(tables.Attempt).where(tables.Attempt.job_id > after)))
    by_job = Counter(attempt.job_id for attempt in attempts)
    first_steps = [attempt for attempt in attempts if attempt.trained_from]
    overhead = sorted((row.trained_from - row.started_at).total_seconds() * 1000 for row in first_steps)
    ends = [(row.ended_at - row.trained_from).total_seconds() for row in first_steps if row.ended_at]
    trained = [row.results["cost"]["train_seconds"] for row in rows if row.results and row.status == "succeeded"]
    print(f"succeeded                           {sum(row.status == 'succeeded' for row in rows)} of {count}")
    print(f"attempts of one job, at most        {max(by_job.values())}")
    print(f"claim to first step, median         {statistics.median(overhead):.0f} ms")
    print(f"claim to first step, 95th percentile {overhead[int(0.95 * (len(overhead) - 1))]:.0f} ms")
    print(f"training steps of a job, median     {statistics.median(trained):.2f} s")
    print(f"first step to the end, median       {statistics.median(ends):.2f} s")
    print(f"all of them                         {seconds:.1f} s, {count / seconds:.2f} jobs/s")


def report_long(database: Database, settings: Settings, minutes: float) -> None:
    """Train so long in one job, and the same without the service; say what its worker did besides."""
    body = LONG
    for _ in range(2):
        submit(database, body, 1, settings.threads)
        wait_for_jobs(database)
        with database.read() as tx:
            job = tx.get_one(tables.Job, newest(database))
            attempt = tx.get_one(tables.Attempt, (job.id, 1))
            checkpoints = select(tables.Event.data).where(
                tables.Event.job_id == job.id, tables.Event.type == "checkpoint"
            )
            storing = sum(data["seconds"] for data in tx.scalars(checkpoints))
        assert job.results
        assert attempt.trained_from
        assert attempt.ended_at
        training = job.results["cost"]["train_seconds"]
        epochs = max(1, round(60 * minutes * job.spec["training"]["epochs"] / training))
        body = LONG | {"training": LONG["training"] | {"epochs": epochs}}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        steps, alone = process.submit(train_alone, job.spec, settings.cache_dir).result()
    before = (attempt.trained_from - attempt.started_at).total_seconds()
    whole = (attempt.ended_at - attempt.started_at).total_seconds()
    science = (alone - steps) * training / steps
    parts = {"before the first step": before, "checkpoints": storing, "evaluations, probes, results": science}
    parts["anything else, and noise"] = whole - training - sum(parts.values())
    print(f"a job of {training:.0f} s of training steps: {1 - training / whole:.1%} of {whole:.1f} s were others'")
    for name, seconds in parts.items():
        print(f"    {name:40}{seconds:6.2f} s {seconds / whole:6.1%}")
    print(f"evaluations, probes and results are those of the same run without the service, in {alone:.1f} s;")
    print(f"beside it the service took {1 - (training + science) / whole:.1%}")


def report_seeds(database: Database, settings: Settings, rounds: int, *, quick: bool) -> None:
    """Sixteen seeds as jobs, together and one by one: seconds until all have ended."""
    epochs = 2 if quick else SEEDS["training"]["epochs"]
    for width in (64,) if quick else (16, 64, 256):
        ratios = []
        for _ in range(rounds):
            took = {}
            for together in (False, True):
                training = SEEDS["training"] | {"epochs": epochs, "together": together}
                started = time.perf_counter()
                submit(database, SEEDS | {"model": mlp(width), "training": training}, 16, settings.threads)
                wait_for_jobs(database)
                took[together] = time.perf_counter() - started
            ratios.append(took[True] / took[False])
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(
            f"sixteen seeds of three layers of {width:3}: together {took[True]:.1f} s, "
            f"one by one {took[False]:.1f} s, ratios {told}"
        )


def mlp(width: int) -> dict[str, Any]:
    return {"name": "mlp", "hidden": [width] * 3, "activation": "tanh"}


def train_alone(spec: dict[str, Any], cache: Path) -> tuple[float, float]:
    """Seconds of the steps, and of all from the first step to the results, of the run without the service."""
    began = 0.0
    for event in train.run(specs.from_dict(spec), datasets=None, cache=cache):
        if isinstance(event, Started):
            began = time.perf_counter()
        if isinstance(event, Finished):
            return event.results["cost"]["train_seconds"], time.perf_counter() - began
    raise AssertionError("the run did not come to its end")


if __name__ == "__main__":
    main()
