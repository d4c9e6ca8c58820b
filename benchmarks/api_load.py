"""How quickly the API answers under load, beside a large database: PostgreSQL, Valkey and the API, with keys.

    python benchmarks/api_load.py [--jobs 100000] [--points 1000000] [--rate 100] [--processes 2] [--quick]

Fills a database of its own with jobs in all states (one of each made by the service's own functions from the events of
a real run, then multiplied inside the database), then sends requests from a process of its own at a constant rate,
whether or not answers come: a latency counts from the moment when its request was due, so a service that stalls is
charged for all who had to wait. The same again beside open event streams. Then one job's metrics are read, some of very
many points. Full runs leave their figures in ``benchmarks/results/api_load.json``.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import platform
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from sqlalchemy import Column, MetaData, String, Table, insert, select, text

from credit import train
from credit.events import Event, Finished, Point
from creditlab.broker import EmbeddedBroker, free_port
from lab import attempts, bell, cursors, jobs, keys, processes, projects, series, specs, tables
from lab.db import Database, Tx
from lab.ids import new_id
from lab.projects import Caller, Quotas
from lab.reads import Filters
from lab.settings import Settings
from lab.states import State
from tests.postgresql import KillablePostgreSQL

RESULTS = Path(__file__).parent / "results" / "api_load.json"
METHODS = ["dfa", "fa", "bp", "sbd", "drtp", "pepita", "mono_forward", "ff"]
SHARES = {
    State.SUCCEEDED: 0.80,
    State.FAILED: 0.07,
    State.CANCELLED: 0.07,
    State.QUEUED: 0.05,
    State.RUNNING: 0.005,
    State.PAUSED: 0.005,
}
PROJECTS = {"vision": 0.8, "speech": 0.15, "empty-handed": 0.05}
"""The first one's key is used."""
TEAMS = 20
SPEC: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [256, 256, 256]},
    "dataset": {"name": "fashion-mnist-mini", "train_samples": 500, "test_samples": 100},
    "training": {"epochs": 2, "batch_size": 50, "seed": 1, "threads": 1, "device": "cpu"},
}
MIX = {"get": 0.6, "list": 0.3, "submit": 0.1}
PAGE = 20
ANSWER_SECONDS = 10.0
WARM_SECONDS = 3.0
READS = 30
STREAMS = 50
QUOTAS = {"quota_queued_jobs": 10**9, "quota_requests_per_minute": 10**9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=1_000_000, help="of one series of one job")
    parser.add_argument("--rate", type=float, default=100, help="requests per second")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--processes", type=int, default=2, help="of the API, at one address")
    parser.add_argument("--quick", action="store_true", help="2,000 jobs, 20,000 points, 3 seconds; leaves no file")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.jobs, chosen.points, chosen.seconds = 2_000, 20_000, 3
    with tempfile.TemporaryDirectory(prefix="creditlab-load-") as folder, KillablePostgreSQL() as server:
        broker = EmbeddedBroker(Path(folder) / "broker")
        given = {"database_url": server.url, "broker_url": broker.start(), "auth": "required", "lease_seconds": 3600}
        given |= {"api_processes": chosen.processes}
        try:
            found = measure(Settings(data_dir=Path(folder), **given, **QUOTAS), chosen)
        finally:
            broker.stop()
    if not chosen.quick:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def measure(settings: Settings, chosen: argparse.Namespace) -> dict[str, Any]:
    """Fill the database, load the API, print a table and return its figures."""
    database = Database(settings.database_url)
    database.migrate()
    bell.configure(settings)
    began = time.perf_counter()
    stored = fill(database, settings, chosen.jobs)
    long_job = write_points(database, stored, chosen.points)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
    database.dispose()
    print(f"{chosen.jobs} jobs and {chosen.points} points stored in {time.perf_counter() - began:.0f} s")
    with api(settings) as port, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as generator:
        load = Load(port, stored.secret, chosen.rate, requests(stored, settings, int(chosen.rate * WARM_SECONDS)))
        generator.submit(send, load).result()  # what the first requests of a process pay once is not counted
        load = replace(load, requests=requests(stored, settings, int(chosen.rate * chosen.seconds)))
        found = {"load": summary(generator.submit(send, load).result())}
        others = requests(stored, settings, len(load.requests) // 2)
        beside = replace(load, streams=stored.unfinished[:STREAMS], requests=others)
        found["beside_streams"] = summary(generator.submit(send, beside).result())
        found["metrics"] = summary([("metrics", *one) for one in read_metrics(port, stored.secret, long_job)])
    report(chosen, found)
    given = {name: getattr(chosen, name) for name in ("jobs", "points", "rate", "processes")}
    return {"machine": machine()} | given | found


# ---- what is stored --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """What is asked for: ids of the project's jobs, oldest first, and its key."""

    project: str
    secret: str
    ids: list[str]
    unfinished: list[str]


def fill(database: Database, settings: Settings, count: int) -> Stored:
    """A job of every method in every state, by the service's own functions, then ``count`` copies of them."""
    with database.write() as tx:
        for name in PROJECTS:
            projects.ensure(tx, name)
        project = next(iter(PROJECTS))
        _, secret = keys.create(tx, "of the benchmark", "write", project=project)
    run, dice = specs.resolve(specs.parse(SPEC | {"method": "dfa"}), threads=1), random.Random(0)
    said = list(train.run(run, datasets=None, cache=settings.cache_dir))
    caller = Caller(project, None, "write", Quotas(10**9, None, None, 10**9))
    templates: dict[State, list[str]] = {}
    for state in sorted(SHARES, key=lambda state: state == State.QUEUED):  # queued ones last: nothing claims them
        templates[state] = [make(caller.of(database), method, state, said) for method in METHODS]
    rows: list[dict[str, str]] = []
    for _ in range(count):
        (state,) = dice.choices(list(SHARES), list(SHARES.values()))
        (of,) = dice.choices(list(PROJECTS), list(PROJECTS.values()))
        rows.append({"template": dice.choice(templates[state]), "id": new_id("job"), "project_id": of, "state": state})
    with database.write() as tx:
        copy(tx, rows)
    mine = [row for row in rows if row["project_id"] == project]
    waiting = [row["id"] for row in mine if row["state"] in {State.QUEUED, State.PAUSED}]
    return Stored(project, secret, [row["id"] for row in mine], waiting)


def make(database: Database, method: str, state: State, said: Sequence[Event]) -> str:
    """A job in this state, with what a run has said by then."""
    run = specs.resolve(specs.parse(SPEC | {"method": method, "model": model_of(method)}), threads=1)
    with database.write() as tx:
        job_id = jobs.submit(tx, run).id
        if state == State.QUEUED:
            return job_id
        if state in {State.CANCELLED, State.PAUSED}:
            (jobs.cancel if state == State.CANCELLED else jobs.pause)(tx, job_id)
            return job_id
        attempt = attempts.claim(tx, "wrk_benchmark", cuda=False, lease_seconds=3600)
        assert attempt
        assert attempt.job_id == job_id
        attempts.record(tx, attempt, said[:-1], 1)
        if state == State.FAILED:
            attempts.fail(tx, attempt, "diverged", "the training loss was nan at step 12")
        elif state == State.SUCCEEDED:
            assert isinstance(said[-1], Finished)
            files = [attempts.Artifact(f"{name}.json", 1000, "0" * 64, "application/json", name) for name in "abcdefgh"]
            attempts.finish(tx, attempt, said[-1].results, files)
    return job_id


def model_of(method: str) -> dict[str, Any]:
    return SPEC["model"] | ({"activation": "relu"} if method in {"ff", "mono_forward", "pepita"} else {})


def copy(tx: Tx, rows: list[dict[str, str]]) -> None:
    """Rows of the templates under other ids; every copy has a team of its own twentieth and a number of its own."""
    names = [Column(name, String) for name in ("template", "id", "project_id", "state")]
    copies = Table("copies", MetaData(), *names, prefixes=["TEMPORARY"])
    copies.create(tx.connection())
    tx.execute(insert(copies), rows)
    for table, key in (
        (tables.Job, "id"),
        (tables.Attempt, "job_id"),
        (tables.Event, "job_id"),
        (tables.Artifact, "job_id"),
    ):
        columns = table.__table__.columns
        own = {key: copies.c.id, "project_id": copies.c.project_id}
        values = [own.get(column.name, column) for column in columns]
        found = select(*values).join_from(copies, table, copies.c.template == columns[key])
        tx.connection().execute(insert(table.__table__).from_select([c.name for c in columns], found))
    labels = [
        {"job_id": row["id"], "key": name, "value": value}
        for number, row in enumerate(rows)
        for name, value in (("team", str(number % TEAMS)), ("number", str(number)))
    ]
    tx.execute(insert(tables.Label), labels)
    ids = [row["id"] for row in rows]
    pairs = zip(ids[::4], ids[1::4], strict=False)
    tx.execute(insert(tables.Twin), [{"job_id": one, "method": "bp", "twin_id": other} for one, other in pairs])


def write_points(database: Database, stored: Stored, count: int) -> str:
    """A job with one series of so many points; its id."""
    job_id, noise = stored.unfinished[-1], random.Random(1)
    with database.write() as tx:
        for start in range(0, count, 50_000):
            steps = range(start + 1, min(start + 50_000, count) + 1)
            series.append(tx, job_id, (Point("train/loss", None, n, n / 1000, noise.gauss(1 / n)) for n in steps))
            tx.flush()
            tx.expunge_all()
    return job_id


# ---- what is asked ---------------------------------------------------------------------------------------------------

Request = tuple[str, bytes]
"""Its kind, and its bytes."""
Answer = tuple[str, int, float]
"""Kind of the request, status (0: none came), seconds since it was due."""


@dataclass(frozen=True)
class Load:
    """Requests, sent at a constant rate, beside open streams of these jobs."""

    port: int
    secret: str
    rate: float
    requests: list[Request]
    streams: Sequence[str] = ()


def requests(stored: Stored, settings: Settings, count: int) -> list[Request]:
    """A mix of everything that users and their dashboards ask."""
    dice = random.Random(count)
    kinds = dice.choices(list(MIX), list(MIX.values()), k=count)
    return [(kind, {"get": get, "list": page, "submit": submit}[kind](stored, settings, dice)) for kind in kinds]


def get(stored: Stored, _settings: Settings, dice: random.Random) -> bytes:
    return http("GET", f"/v1/jobs/{dice.choice(stored.ids)}", stored.secret)


def page(stored: Stored, settings: Settings, dice: random.Random) -> bytes:
    """A page of a list: the first one or one far down, all jobs or some."""
    label = dice.choice([f"team:{dice.randrange(TEAMS)}", f"number:{dice.randrange(len(stored.ids))}"])
    pairs = dice.choice(
        [
            (),
            (("status", dice.choice(list(SHARES))),),
            (("method", dice.choice(METHODS)),),
            (("status", State.FAILED), ("method", dice.choice(METHODS))),
            (("label", label),),
            (("label", label), ("status", State.SUCCEEDED)),
        ]
    )
    query = [*pairs, ("limit", str(PAGE))]
    if dice.random() < 0.5:
        given = dict(pairs)
        statuses = (str(given["status"]),) if "status" in given else ()
        labels = (tuple(given["label"].split(":")),) if "label" in given else ()
        made_for = Filters(status=statuses, method=given.get("method"), labels=labels).plain()  # type: ignore[arg-type]
        signed_for = made_for | {"project": stored.project}
        query.append(("after", cursors.make(settings.secret_key, dice.choice(stored.ids), signed_for)))
    return http("GET", f"/v1/jobs?{urlencode(query)}", stored.secret)


def submit(stored: Stored, _settings: Settings, dice: random.Random) -> bytes:
    method = dice.choice(METHODS)
    body = SPEC | {"method": method, "model": model_of(method), "labels": {"team": "new"}}
    return http("POST", "/v1/jobs", stored.secret, json.dumps(body).encode(), f"Idempotency-Key: {dice.random()}\r\n")


def http(method: str, path: str, secret: str, body: bytes = b"", more: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {secret}\r\n{more}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


# ---- the generator, in a process of its own --------------------------------------------------------------------------


def send(load: Load) -> list[Answer]:
    """Send every request when it is due; the answers in the order of the requests."""
    gc.disable()
    return asyncio.run(send_all(load))


async def send_all(load: Load) -> list[Answer]:
    client = Client(load.port)
    streams = [asyncio.create_task(follow(load, job_id)) for job_id in load.streams]
    await asyncio.sleep(1.0 if streams else 0.1)
    start = asyncio.get_running_loop().time()
    tasks = []
    for number, request in enumerate(load.requests):
        due = start + number / load.rate
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        tasks.append(asyncio.create_task(client.ask(request, due)))
    answers = await asyncio.gather(*tasks)
    ended = [task for task in streams if task.done()]
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    return [*answers, *(("stream", 0, 0.0) for _ in ended)]


class Client:
    """Connections that are kept, as many as there are requests at once: a client that waits for no answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: Request, due: float) -> Answer:
        status = 0
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await self.answer(request[1])
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # no answer: it is among the failed ones
        return request[0], status, asyncio.get_running_loop().time() - due

    async def answer(self, request: bytes) -> int:
        reader, writer = await self.connection()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length, head
        await reader.readexactly(int(length[1]))
        self.idle.append((reader, writer))
        return int(head[9:12])

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():  # the service closes what was idle for long
                return reader, writer
        return await asyncio.open_connection("127.0.0.1", self.port)


async def follow(load: Load, job_id: str) -> None:
    """An event stream, read until it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
    writer.write(http("GET", f"/v1/jobs/{job_id}/events", load.secret, more="Accept: text/event-stream\r\n"))
    while await reader.read(65_536):
        pass


def read_metrics(port: int, secret: str, job_id: str) -> Iterator[tuple[int, float]]:
    """Status and seconds of reading 1,000 points of the longest series, one after the other."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {secret}"}) as client:
        for _ in range(READS):
            began = time.perf_counter()
            answer = client.get(f"/v1/jobs/{job_id}/metrics", params={"series": "train/loss", "max_points": 1000})
            yield answer.status_code, time.perf_counter() - began
            assert 500 < len(answer.json()["series"][0]["points"]) <= 1000


# ---- the service and its figures -------------------------------------------------------------------------------------


@contextmanager
def api(settings: Settings) -> Iterator[int]:
    """The API's process; its port."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CREDITLAB_")}
    with (settings.data_dir / "api.log").open("ab") as log:
        command = [sys.executable, "-m", "api", "--port", str(port)]
        process = processes.start(command, env=environment | settings.environment(), output=log)
        try:
            while not is_ready(port):
                if process.poll() is not None:
                    raise SystemExit("the API did not start")
                time.sleep(0.1)
            yield port
        finally:
            processes.stop(process, grace=30)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except httpx.TransportError:
        return False


def summary(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Milliseconds by kind of request."""
    found = {}
    for kind in sorted({kind for kind, *_ in answers}):
        ours = [(status, seconds) for known, status, seconds in answers if known == kind]
        times = sorted(1000 * seconds for _, seconds in ours)
        at = {f"p{share}_ms": times[min(len(times) - 1, len(times) * share // 100)] for share in (50, 95, 99)}
        failed = sum(not 200 <= status < 300 for status, _ in ours)
        found[kind] = {"requests": len(ours), "failed": failed, **at, "max_ms": times[-1]}
    return found


def report(chosen: argparse.Namespace, found: dict[str, dict[str, dict[str, float]]]) -> None:
    titles = {
        "load": f"{chosen.rate:g} requests/s",
        "beside_streams": f"the same beside {STREAMS} open streams",
        "metrics": f"1,000 of {chosen.points:,} points, one after the other",
    }
    print(f"{'':44}{'requests':>9}{'failed':>8}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}  ms")
    for part, kinds in found.items():
        for kind, row in kinds.items():
            times = "".join(f"{row[name]:9.1f}" for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms"))
            print(f"{titles[part] + ': ' + kind:44}{row['requests']:9}{row['failed']:8}{times}")


def machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}


if __name__ == "__main__":
    main()
