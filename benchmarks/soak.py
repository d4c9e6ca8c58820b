"""Everything is killed at random moments, again and again: is every job what it would be if nothing had happened?

    python benchmarks/soak.py [--kills 200] [--minutes 20] [--jobs 100] [--database postgresql] [--seed 0] [--quick]

Starts a service of its own (database, broker, API, two workers), submits jobs over HTTP while SIGKILL hits training
processes, workers, API, broker and database, and starts again what died. Some jobs diverge, some are cancelled, some
are paused and resumed, some train together where they find each other. At the end every job must be in the state that
its spec deserves, none lost and none doubled, its events 1..n, every metric point there once and equal to the
undisturbed run's (``creditlab run``), its weights the same bits (of jobs that may train together: within float
tolerance), and nothing left behind. Exits with 1 where one of these does not hold.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pyarrow.parquet as pq
from sqlalchemy import func, select

from creditlab.broker import EmbeddedBroker, free_port
from lab import processes, reads, series, tables
from lab.db import Database
from lab.settings import Settings
from lab.states import TERMINAL
from tests.postgresql import KillablePostgreSQL
from tests.service import is_group_leader

RUN: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [32, 32], "dropout": 0.1},
    "dataset": {"name": "fashion-mnist-mini", "train_samples": 500, "test_samples": 100},
    "training": {"epochs": 120, "batch_size": 50, "seed": 1, "threads": 1, "device": "cpu", "log_every": 7},
    "alignment": {"every": 90, "samples": 32},
}
"""1,200 steps, with something to get wrong: masks of dropout, intervals across epochs, probes between them."""
METHODS = ["dfa", "fa", "mono_forward", "kp", "drtp"]
TOGETHER = RUN | {
    "method": "dfa",
    "model": {"name": "mlp", "hidden": [32, 32]},
    "training": RUN["training"] | {"together": True},
}
ENDLESS = RUN | {"method": "dfa", "training": RUN["training"] | {"epochs": 100_000}}
DIVERGING = RUN | {
    "method": "dfa",
    "model": {"name": "mlp", "hidden": [32, 16], "activation": "relu"},
    "optimizer": {"name": "sgd", "lr": 100.0, "momentum": 0.9},
    "loss": "mse",
}
OFTEN: dict[str, Any] = {"checkpoint_seconds": 0.2, "checkpoint_share": 1, "max_attempts": 1000}
SETTINGS: dict[str, Any] = OFTEN | {"threads": 1, "lease_seconds": 4}
WORKERS = ["worker-1", "worker-2"]
VICTIMS = ["training", "worker", "api", "broker", "database"]
AHEAD = 6
"""So many more jobs are submitted than the kills so far ask for."""
SETTLE_SECONDS = 240.0


@dataclass
class Wish:
    """A job that is wanted: what is done to it, and how it should end."""

    number: int
    spec: dict[str, Any]
    deserves: str
    reference: str | None = None
    """The undisturbed run that it is compared with."""
    commands: list[str] = field(default_factory=list)
    """Still to be given, each ``due`` when the one before has had its effect."""
    due: float = 0.0
    id: str = ""


@dataclass(frozen=True)
class Undisturbed:
    weights: str
    points: dict[tuple[str, str | None], list[list[Any]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=20.0, help="the kills are spread over so long")
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments")
    parser.add_argument("--quick", action="store_true", help="6 kills, 8 jobs")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.kills, chosen.jobs, chosen.minutes = 6, 8, 0.4
    dice = random.Random(chosen.seed)
    methods = METHODS[:2] if chosen.quick else METHODS
    specs = {method: RUN | {"method": method} for method in methods} | {"together": TOGETHER}
    with tempfile.TemporaryDirectory(prefix="creditlab-soak-", ignore_cleanup_errors=True) as folder:
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(lambda name: undisturbed(specs[name], Path(folder) / name), specs)
            references = dict(zip(specs, found, strict=True))
        print(f"{len(references)} undisturbed runs are known")
        wishes = wanted(chosen.jobs, methods)
        began = time.monotonic()
        with Stack(Path(folder) / "service", chosen.database) as stack:
            user = User(stack.url, wishes, random.Random(chosen.seed + 1))
            kills = disturb(stack, user, dice, chosen.kills, chosen.minutes * 60)
            settled = user.settle(stack)
            seconds = time.monotonic() - began
            stack.stop()
            wrong = [] if settled else [f"jobs did not end within {SETTLE_SECONDS:.0f} s after the last kill"]
            wrong += violations(stack.settings, wishes, references)
            print_table(stack.settings, kills, len(wishes), seconds, wrong)
        if wrong:
            kept = stack.settings.data_dir.rename(tempfile.mkdtemp(prefix="creditlab-soak-failed-"))
            print(f"data and logs are kept in {kept}")
    return bool(wrong)


def undisturbed(spec: dict[str, Any], folder: Path) -> Undisturbed:
    """What a run comes to when nothing happens."""
    command = [sys.executable, "-m", "creditlab.cli", "run", "-", "--out", str(folder)]
    subprocess.run(command, check=True, input=json.dumps(spec), text=True, stdout=subprocess.DEVNULL)
    points: dict[tuple[str, str | None], list[list[Any]]] = {}
    for row in pq.read_table(folder / "metrics.parquet").to_pylist():
        points.setdefault((row["series"], row["layer"]), []).append([row["step"], row["epoch"], row["value"]])
    return Undisturbed(sha256(folder / "model.safetensors"), points)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wanted(count: int, methods: Sequence[str]) -> list[Wish]:
    """Of every eight jobs one diverges, one is cancelled, one is paused and resumed, three may train together."""
    made = []
    for number in range(count):
        method = methods[number // 2 % len(methods)]
        wish = Wish(number, RUN | {"method": method}, "succeeded", method)
        if number % 8 == 2:
            wish = Wish(number, DIVERGING, "failed")
        elif number % 8 == 4:
            wish = Wish(number, ENDLESS, "cancelled", commands=["cancel"])
        elif number % 8 == 6:
            wish.commands = ["pause", "resume"]
        elif number % 8 in {3, 5, 7}:
            wish = Wish(number, TOGETHER, "succeeded", "together")
        wish.spec = wish.spec | {"labels": {"soak": str(number)}}
        made.append(wish)
    return made


class Stack:
    """Database, broker, API and two workers, each of which can be killed and started again."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.kind = folder, database
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.broker = EmbeddedBroker(folder / "broker")
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.commands = {"api": ["api", "--port", str(self.port)]}
        self.commands |= {name: ["worker", "--concurrency", "1"] for name in WORKERS}

    def __enter__(self) -> Self:
        self.folder.mkdir()
        self.exits = ExitStack()
        self.server = self.exits.enter_context(KillablePostgreSQL()) if self.kind == "postgresql" else None
        given = {"database_url": self.server.url} if self.server else {}
        self.broker.start()
        self.exits.callback(self.broker.stop)
        self.settings = Settings(data_dir=self.folder, broker_url=self.broker.url, **SETTINGS, **given)
        with opened(self.settings) as database:
            database.migrate()
            for name in self.commands:
                self.start(name)
            while not self.ready(database):
                time.sleep(0.1)
        return self

    def ready(self, database: Database) -> bool:
        with suppress(httpx.TransportError), database.read() as tx:
            workers = tx.scalar(select(func.count()).select_from(tables.Worker))
            return workers == 2 and httpx.get(f"{self.url}/readyz").is_success
        return False

    def __exit__(self, *failure: object) -> None:
        self.stop()
        self.exits.close()

    def stop(self) -> None:
        """Workers and API end in good order; the database stays."""
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            processes.stop(child, grace=30)

    def start(self, name: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CREDITLAB_")}
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", *self.commands[name]]
            self.children[name] = processes.start(command, env=environment | self.settings.environment(), output=log)

    def kill(self, victim: str, dice: random.Random) -> Callable[[], object] | None:
        """SIGKILL one process; how to start it again. None where there is none of this kind."""
        if victim == "training":
            if not (running := self.training()):
                return None
            with suppress(psutil.NoSuchProcess):
                dice.choice(running).kill()
            return lambda: None
        if victim == "database":
            assert self.server
            self.server.kill()
            return self.server.start
        name = dice.choice(WORKERS) if victim == "worker" else victim
        process = self.broker.process if victim == "broker" else self.children[name]
        assert process
        process.kill()
        process.wait()
        return self.broker.start if victim == "broker" else lambda: self.start(name)

    def training(self) -> list[psutil.Process]:
        """The training processes: leaders of their own groups below the workers."""
        found = []
        for name in WORKERS:
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(self.children[name].pid).children(recursive=True)
        return [process for process in found if is_group_leader(process.pid)]

    def revive(self) -> None:
        """Start again what ended by itself, as a process manager would: a worker that found no database, say."""
        for name, child in self.children.items():
            if child.poll() is not None:
                self.start(name)


def disturb(stack: Stack, user: "User", dice: random.Random, kills: int, seconds: float) -> Counter[str]:
    """Kill at random moments, so many times in so many seconds, while the user goes on; how often what was killed."""
    killed: Counter[str] = Counter()
    began = time.monotonic()
    moments = sorted(dice.uniform(0.02, 1.0) * seconds for _ in range(kills))
    for number, moment in enumerate(moments):
        while time.monotonic() < began + moment:
            user.act((number + 1) / kills)
            stack.revive()
            time.sleep(0.02)
        victim = dice.choice(VICTIMS if stack.server else VICTIMS[:-1])
        restart = stack.kill(victim, dice)
        if restart is None:
            victim, restart = "worker", stack.kill("worker", dice)
            assert restart
        killed[victim] += 1
        time.sleep(dice.choice([0.0, 0.0, 0.5, 2.0]))  # it stays away for a while
        restart()
        if (number + 1) % 10 == 0:
            submitted = sum(1 for wish in user.wishes if wish.id)
            print(f"{time.monotonic() - began:6.0f} s  {number + 1} kills, {submitted} jobs submitted")
    return killed


class User:
    """Submits jobs and gives commands over HTTP; asks again until there is an answer, under the same key."""

    def __init__(self, url: str, wishes: list[Wish], dice: random.Random) -> None:
        self.wishes, self.dice = wishes, dice
        self.http = httpx.Client(base_url=url, timeout=15.0)

    def act(self, share: float) -> None:
        """One request at most for every job that is due, where ``share`` of the soak is over."""
        for wish in self.wishes[: round(share * len(self.wishes)) + AHEAD]:
            if not wish.id:
                self.submit(wish)
            elif wish.commands and time.monotonic() >= wish.due:
                self.command(wish)

    def submit(self, wish: Wish) -> None:
        if job := self.ask("POST", "/v1/jobs", f"submit-{wish.number}", wish.spec):
            wish.id, wish.due = job["id"], time.monotonic() + self.dice.uniform(0, 8)

    def command(self, wish: Wish) -> None:
        """Give the next command; a pause has its effect when the job rests, or has ended before."""
        command, path = wish.commands[0], f"/v1/jobs/{wish.id}"
        wish.due = time.monotonic() + 0.3
        if command == "resume" and (job := self.ask("GET", path) or {"status": ""})["status"] != "paused":
            wish.commands = [] if job["status"] in TERMINAL else wish.commands
            return
        if self.ask("POST", f"{path}/{command}", f"{command}-{wish.number}") is not None:
            wish.commands = wish.commands[1:]

    def ask(self, method: str, path: str, key: str = "", body: Any = None) -> dict[str, Any] | None:
        """The answer; {} where the job's state forbids it; None where the service is away for now."""
        try:
            answer = self.http.request(method, path, headers={"Idempotency-Key": key} if key else {}, json=body)
        except httpx.TransportError:
            return None
        if answer.is_success:
            told: dict[str, Any] = answer.json()
            return told
        if (code := answer.json()["code"]) == "wrong_state":
            return {}
        if answer.status_code == 503 or code == "request_in_progress":
            return None
        raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")

    def settle(self, stack: Stack) -> bool:
        """Whether all jobs have been submitted and have ended, a while after the last kill."""
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            self.act(1.0)
            stack.revive()
            page = self.ask("GET", "/v1/jobs?limit=1&status=queued&status=running&status=pausing&status=paused")
            busy = any(not wish.id or wish.commands for wish in self.wishes)
            if not busy and page is not None and not page["data"]:
                return True
            time.sleep(0.2)
        return False


# ---- what must hold --------------------------------------------------------------------------------------------------


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    try:
        yield database
    finally:
        database.dispose()


def violations(settings: Settings, wishes: list[Wish], references: dict[str, Undisturbed]) -> list[str]:
    """Everything that is not as it would be if nothing had been killed."""
    wrong = []
    with opened(settings) as database, database.read() as tx:
        labels = select(tables.Label.value, tables.Label.job_id).where(tables.Label.key == "soak")
        known = sorted((int(number), job_id) for number, job_id in tx.execute(labels))
        if known != [(wish.number, wish.id) for wish in wishes]:
            wrong.append(f"jobs are lost or doubled: {Counter(number for number, _ in known)}")
        if tx.scalar(select(func.count()).select_from(tables.Job)) != len(wishes):
            wrong.append("there are jobs that nobody has submitted")
        for wish in wishes:
            if wish.id:
                wrong += [f"job {wish.number} ({wish.id}): {what}" for what in of_job(tx, settings, wish, references)]
    left = list(settings.attempts_dir.iterdir()) if settings.attempts_dir.exists() else []
    return wrong + [f"left behind: {path}" for path in left]


def of_job(tx: Any, settings: Settings, wish: Wish, references: dict[str, Undisturbed]) -> Iterator[str]:
    job = reads.job_view(tx, wish.id)
    code = job["error"] and job["error"]["code"]
    if job["status"] != wish.deserves or code not in {None, "diverged"}:
        yield f"is {job['status']} ({code}), deserves {wish.deserves}"
    seqs = list(tx.scalars(select(tables.Event.seq).where(tables.Event.job_id == wish.id).order_by(tables.Event.seq)))
    if seqs != list(range(1, len(seqs) + 1)):
        yield "its events are not 1..n"
    points = {(row["name"], row["layer"]): row["points"] for row in series.read(tx, wish.id)}
    for key, column in points.items():
        if len({point[0] for point in column}) != len(column):
            yield f"{key} has a point twice"
    if wish.reference and job["status"] == "succeeded":
        yield from of_success(tx, settings.artifacts_dir, wish, references[wish.reference], points)


def of_success(tx: Any, store: Path, wish: Wish, reference: Undisturbed, points: dict[Any, Any]) -> Iterator[str]:
    exact = wish.reference != "together"
    told = {key: [list(point) for point in column] for key, column in points.items()}
    if not (told == reference.points if exact else alike(told, reference.points)):
        yield "its metrics are not the undisturbed run's"
    stored = {store / row.location: row for row in tx.query(tables.Artifact).where(tables.Artifact.job_id == wish.id)}
    weights = [row.sha256 for row in stored.values() if row.name == "model.safetensors"]
    if exact and weights != [reference.weights]:
        yield "its weights are not the undisturbed run's"
    found = {path: sha256(path) for path in (store / wish.id).rglob("*") if path.is_file()}
    if found != {path: row.sha256 for path, row in stored.items()}:
        yield f"its files are not those that were stored: {sorted(str(path) for path in set(found) ^ set(stored))}"


def alike(told: dict[Any, list[Any]], reference: dict[Any, list[Any]]) -> bool:
    """Whether points are at the same steps, and losses and accuracies at the same heights but for roundings."""
    steps = {key: [point[:2] for point in column] for key, column in told.items()}
    heights = (("train/loss", 0.02), ("test/loss", 0.02), ("test/accuracy", 0.05))
    return steps == {key: [point[:2] for point in column] for key, column in reference.items()} and all(
        abs(point[2] - other[2]) <= most
        for name, most in heights
        for point, other in zip(told[name, None], reference[name, None], strict=True)
    )


def print_table(settings: Settings, kills: Counter[str], jobs: int, seconds: float, wrong: list[str]) -> None:
    with opened(settings) as database, database.read() as tx:
        outcome = select(tables.Attempt.outcome, func.count()).group_by(tables.Attempt.outcome)
        outcomes = {str(name): count for name, count in tx.execute(outcome)}
        refused = tx.scalar(select(func.sum(tables.Attempt.refused_writes)))
        most = tx.scalar(select(func.max(tables.Job.attempt)))
        company = tx.scalar(select(func.count()).where(tables.Attempt.together_with.is_not(None)))
        resumed = tx.scalar(select(func.count()).select_from(tables.Attempt).where(tables.Attempt.first_step > 0))
    print("\n| | |\n| --- | --- |")
    print(f"| jobs | {jobs} |")
    print(f"| kills | {kills.total()}: {', '.join(f'{name} {count}' for name, count in sorted(kills.items()))} |")
    print(f"| attempts | {sum(outcomes.values())}: {', '.join(f'{k} {n}' for k, n in sorted(outcomes.items()))} |")
    print(f"| attempts that went on from a checkpoint | {resumed} |")
    print(f"| attempts that trained together | {company} |")
    print(f"| most attempts of one job | {most} |")
    print(f"| refused writes | {refused} |")
    print(f"| time | {seconds:.0f} s |")
    print(f"| violations | {len(wrong)} |\n")
    for one in wrong:
        print(one)


if __name__ == "__main__":
    sys.exit(main())
