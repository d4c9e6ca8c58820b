"""Server-sent events: each event once and in order, whatever is cut off, and nothing held meanwhile."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update

from api import sse
from creditlab.broker import free_port
from lab import attempts, jobs, tables
from lab.db import Database, now
from lab.settings import Settings
from tests import factories
from tests.api.conftest import DEADLINE_SECONDS, Service, assert_problem, eventually, serving
from tests.conftest import _administer, fresh_database

STREAM = {"Accept": "text/event-stream"}
Frame = dict[str, Any]


def parse(text: str) -> Iterator[Frame]:
    """The complete frames of a stream; what follows the last blank line is dropped, as EventSource does."""
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            fields["data"] = json.loads(fields["data"])
        if fields:
            yield fields


def read(service: Service, path: str, headers: dict[str, str] | None = None) -> list[Frame]:
    """A stream to its end."""
    answer = service.client.get(path, headers=STREAM | (headers or {}))
    assert answer.status_code == 200, answer.text
    return list(parse(answer.text))


def ids(frames: list[Frame]) -> list[int]:
    return [int(frame["id"]) for frame in frames if "id" in frame]


def write_events(database: Database, job_id: str, last: int, message: str = "said") -> None:
    """Give a job a log of so many events, and end it."""
    with database.write() as tx:
        first = jobs.get(tx, job_id).last_seq + 1
        common = {"job_id": job_id, "type": "log", "level": "info", "at": now(tx), "attempt": 0, "data": {}}
        rows = [common | {"seq": seq, "message": f"{message} {seq}"} for seq in range(first, last)]
        tx.execute(insert(tables.Event), rows)
        tx.execute(update(tables.Job).where(tables.Job.id == job_id).values(last_seq=last - 1))
    with database.write() as tx:
        jobs.cancel(tx, job_id)


def record(service: Service, attempt: attempts.Attempt, *batch: Any) -> None:
    with service.database.write() as tx:
        attempts.record(tx, attempt, batch)


class Reader:
    """A client that keeps a stream open."""

    def __init__(self, client: httpx.Client, path: str, headers: dict[str, str] | None = None) -> None:
        self.open = client.stream("GET", path, headers=STREAM | (headers or {}))
        self.answer = self.open.__enter__()
        self.text = ""
        self.chunks = self.answer.iter_text()

    def until(self, **wanted: Any) -> Frame:
        """The first frame, from the beginning, with these fields."""
        while True:
            for frame in parse(self.text):
                if wanted.items() <= frame.items():
                    return frame
            self.text += next(self.chunks)

    def rest(self) -> list[Frame]:
        self.text += "".join(self.chunks)
        self.close()
        return list(parse(self.text))

    def close(self) -> None:
        self.open.__exit__(None, None, None)


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_a_job_is_told_as_it_goes(service: Service) -> None:
    job_id = service.submit()
    reader = Reader(service.client, f"/v1/jobs/{job_id}/events")
    assert reader.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reader.answer.headers["cache-control"] == "no-cache"
    assert reader.answer.headers["x-accel-buffering"] == "no"
    assert reader.answer.headers["vary"] == "Authorization, Accept"
    assert not {"content-length", "content-encoding"} & set(reader.answer.headers)
    assert reader.until(retry="3000")
    assert reader.until(id="1")["data"]["message"] == "submitted"
    attempt = service.claim()
    reader.until(id="2", event="status")
    record(service, attempt, factories.started(), factories.progress(5, 10), factories.aligned(10))
    moved = reader.until(event="metrics")
    assert "id" not in moved
    assert moved["data"]["job_id"] == job_id
    points = {(one["name"], one["layer"]): one["points"] for one in moved["data"]["series"]}
    assert points["train/loss", None] == [[5, 0.5, 1.0], [10, 1.0, 1.0]]
    assert points["alignment/delta_cosine", "hidden1"] == [[10, 1.0, 0.5]]
    reader.until(id="3")
    record(service, attempt, factories.progress(15), factories.evaluated(15))
    reader.until(id="4", event="epoch")
    with service.database.write() as tx:
        attempts.finish(tx, attempt, factories.results(), [])
    frames = reader.rest()
    assert ids(frames) == [1, 2, 3, 4, 5]
    told = [frame["data"] for frame in frames if "id" in frame]
    assert told == service.client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    losses = [
        point
        for frame in frames
        if frame.get("event") == "metrics"
        for one in frame["data"]["series"]
        if one["name"] == "train/loss"
        for point in one["points"]
    ]
    assert [point[0] for point in losses] == [5, 10, 15]
    assert [f["data"]["progress"]["step"] for f in frames if f.get("event") == "progress"][-1] == 20
    assert frames[-1] == {"event": "end", "data": {"jobs": [{"job_id": job_id, "status": "succeeded"}]}}


def test_points_beyond_a_chunk_and_after_a_restart_are_told(service: Service) -> None:
    job_id = service.submit()
    attempt = service.claim()
    record(service, attempt, factories.started(), factories.progress(*range(1, 1021)))
    reader = Reader(service.client, f"/v1/jobs/{job_id}/events")
    reader.until(event="progress")
    record(service, attempt, factories.progress(*range(1021, 1051)))
    first = reader.until(event="metrics")["data"]["series"][0]
    assert [point[0] for point in first["points"]] == list(range(1021, 1051))
    with service.database.write() as tx:
        attempts.preempt(tx, attempt)
    again = service.claim()
    record(service, again, factories.started(), factories.progress(7))
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    with service.database.write() as tx:
        attempts.stopped(tx, again)
    told = [one["points"] for f in reader.rest() if f.get("event") == "metrics" for one in f["data"]["series"]]
    assert [[7, 0.7, 1.0]] in told


def test_a_deleted_job_ends_its_stream(service: Service) -> None:
    job_id = service.submit()
    reader = Reader(service.client, f"/v1/jobs/{job_id}/events")
    reader.until(id="1")
    with service.database.write() as tx:
        tx.delete(jobs.get(tx, job_id))
    assert reader.rest()[-1]["data"]["jobs"] == [{"job_id": job_id, "status": None}]


def test_silence_is_broken_by_comments(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "COMMENT_SECONDS", 0.01)
    reader = Reader(service.client, f"/v1/jobs/{service.submit()}/events")
    while sse.COMMENT.decode() not in reader.text:
        reader.text += next(reader.chunks)
    reader.close()
    eventually(lambda: service.app.state.watcher.streams == 0)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("application/json;q=0.5, Text/Event-Stream", "text/event-stream; charset=utf-8"),
        ("*/*", "application/json"),
        ("text/event-stream;q=0", "application/json"),
        ("application/json", "application/json"),
    ],
)
def test_the_media_type_decides(service: Service, accept: str, media_type: str) -> None:
    job_id = service.submit()
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    answer = service.client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": accept})
    assert answer.headers["content-type"] == media_type
    assert answer.headers["vary"] == "Authorization, Accept"


def test_head_opens_no_stream(service: Service) -> None:
    answer = service.client.head(f"/v1/jobs/{service.submit()}/events", headers=STREAM)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


# ---- resuming --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ended(service: Service) -> str:
    """A job that has ended and has three events."""
    job_id = service.submit()
    service.claim()
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    with service.database.write() as tx:
        job = jobs.get(tx, job_id)
        attempts.stopped(tx, attempts.Attempt(job.id, job.attempt, job.fence, {}, 0))
    return job_id


def test_both_ways_to_resume(service: Service, ended: str) -> None:
    path = f"/v1/jobs/{ended}/events"
    assert ids(read(service, path)) == [1, 2, 3, 4]
    assert ids(read(service, f"{path}?after_seq=2")) == [3, 4]
    assert ids(read(service, path, {"Last-Event-ID": "3"})) == [4]
    # an EventSource that reconnects keeps its address, and so the parameter of its first connection
    assert ids(read(service, f"{path}?after_seq=2", {"Last-Event-ID": "3"})) == [4]


def test_nothing_left_is_204(service: Service, ended: str) -> None:
    path = f"/v1/jobs/{ended}/events"
    for query, headers in (("?after_seq=4", {}), ("", {"Last-Event-ID": "4"}), ("?after_seq=99", {})):
        answer = service.client.get(path + query, headers=STREAM | headers)
        assert (answer.status_code, answer.content) == (204, b"")
    assert service.client.get(f"{path}?after_seq=4").json()["data"] == []


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "1 2", "٣", "9" * 19])
def test_an_id_that_was_never_sent(service: Service, ended: str, last: str) -> None:
    headers = STREAM | {"Last-Event-ID": last}
    encoded = {name: value.encode() for name, value in headers.items()}
    answer = service.client.get(f"/v1/jobs/{ended}/events", headers=encoded)
    assert_problem(answer, 400, "bad_header")


def test_no_such_job(service: Service, ended: str) -> None:
    assert_problem(service.client.get("/v1/jobs/job_none/events", headers=STREAM), 404, "not_found")
    assert_problem(service.client.get(f"/v1/events?job={ended}&job=job_none"), 404, "not_found")


def test_twenty_thousand_events_cut_at_random_bytes(service: Service) -> None:
    """A client that is cut off again and again, wherever it may be, reads every event once and in order."""
    job_id, chance = service.submit(), random.Random(7)
    write_events(service.database, job_id, 20_000)
    path, seen, cuts, done = f"/v1/jobs/{job_id}/events", [], 0, False
    while not done:
        left, text = chance.randrange(1, 600_000) if cuts < 25 else None, b""
        headers = STREAM | ({"Last-Event-ID": str(seen[-1])} if seen else {})
        with service.client.stream("GET", path, headers=headers) as answer:
            for chunk in answer.iter_bytes():
                text += chunk
                if left is not None and len(text) >= left:
                    text = text[:left]
                    break
        frames = list(parse(text.decode(errors="ignore")))
        seen += ids(frames)
        done = bool(frames) and frames[-1].get("event") == "end"
        cuts += not done
    assert cuts > 5
    assert seen == list(range(1, 20_001))
    eventually(lambda: service.app.state.watcher.streams == 0)


def test_an_api_that_is_restarted(alone: Settings) -> None:
    with serving(alone) as service:
        job_id = service.submit()
        attempt = service.claim()
        reader = Reader(service.client, f"/v1/jobs/{job_id}/events")
        reader.until(id="2")
        service.server.should_exit = True
        before = reader.rest()
    assert before[-1].get("event") != "end"
    with serving(alone) as service:
        record(service, attempt, factories.started(), factories.evaluated(10))
        reader = Reader(service.client, f"/v1/jobs/{job_id}/events", {"Last-Event-ID": str(ids(before)[-1])})
        with service.database.write() as tx:
            attempts.finish(tx, attempt, factories.results(), [])
        after = reader.rest()
    assert ids(before) + ids(after) == [1, 2, 3, 4, 5]


def test_a_stop_ends_all_streams(alone: Settings) -> None:
    port = free_port()
    environment = os.environ | alone.environment()
    process = subprocess.Popen([sys.executable, "-m", "api", "--port", str(port)], env=environment)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_SECONDS) as client:
        eventually(lambda: answers(client))
        job_id = client.post("/v1/jobs", json=factories.TINY).json()["id"]
        readers = [Reader(client, f"/v1/jobs/{job_id}/events") for _ in range(20)]
        for reader in readers:
            reader.until(id="1")
        process.terminate()
        assert [ids(reader.rest()) for reader in readers] == [[1]] * 20
        assert process.wait(DEADLINE_SECONDS) in {0, -signal.SIGTERM}


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").is_success
    except httpx.TransportError:
        return False


def test_a_stream_outlives_an_absence_of_the_database(
    alone: Settings, postgresql_server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with (
        fresh_database("postgresql", request, tmp_path) as url,
        serving(alone.model_copy(update={"database_url": url})) as service,
    ):
        job_id, name = service.submit(), str(service.database.engine.url.database)
        reader = Reader(service.client, f"/v1/jobs/{job_id}/events")
        reader.until(id="1")
        _administer(postgresql_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        gone = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        _administer(postgresql_server, gone)
        eventually(lambda: service.client.get("/v1/jobs").status_code == 503)
        _administer(postgresql_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        eventually(lambda: service.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202)
        assert ids(reader.rest()) == [1, 2]


# ---- many jobs on one connection -------------------------------------------------------------------------------------


def test_many_jobs_on_one_connection(service: Service) -> None:
    job_ids = [service.submit() for _ in range(3)]
    query = "&".join(f"job={job_id}" for job_id in job_ids)
    reader = Reader(service.client, f"/v1/events?{query}&job={job_ids[0]}")
    reader.until(event="status")
    for job_id in job_ids:
        service.client.post(f"/v1/jobs/{job_id}/cancel")
    frames = reader.rest()
    told = [frame for frame in frames if "id" in frame]
    assert sorted((one["data"]["job_id"], one["data"]["seq"]) for one in told) == [
        (job_id, seq) for job_id in job_ids for seq in (1, 2)
    ]
    assert frames[-1]["data"]["jobs"] == [{"job_id": job_id, "status": "cancelled"} for job_id in job_ids]
    for place, frame in enumerate(told):  # from every token on: exactly the rest
        expected = [one["data"] for one in told[place + 1 :]]
        answer = service.client.get(f"/v1/events?{query}", headers={"Last-Event-ID": frame["id"]})
        assert answer.status_code == (200 if expected else 204)
        again = [one["data"] for one in parse(answer.text) if "id" in one]
        assert sorted(again, key=str) == sorted(expected, key=str)
    assert service.client.get("/v1/events", params={"job": job_ids, "after": told[-1]["id"]}).status_code == 204


def test_a_token_is_of_this_service_and_these_jobs(service: Service, ended: str) -> None:
    other = service.submit()
    token = next(frame["id"] for frame in parse(service.client.get(f"/v1/events?job={ended}").text) if "id" in frame)
    assert_problem(service.client.get(f"/v1/events?job={other}&after={token}"), 400, "cursor_mismatch")
    altered = ("A" if token[0] != "A" else "B") + token[1:]
    assert_problem(service.client.get(f"/v1/events?job={ended}&after={altered}"), 400, "bad_cursor")
    assert_problem(service.client.get("/v1/events"), 422, "invalid_parameter")
    many = {"job": [f"job_{number}" for number in range(101)]}
    assert_problem(service.client.get("/v1/events", params=many), 422, "invalid_parameter")


# ---- what is held meanwhile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_fifty_streams_and_fifty_waiters_with_a_pool_of_five(
    kind: str, alone: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("api.app.POOL_SIZE", 5)
    (tmp_path / "own").mkdir()
    with (
        fresh_database(kind, request, tmp_path / "own") as url,
        serving(alone.model_copy(update={"database_url": url})) as service,
    ):
        pool = service.database.engine.pool
        pool._max_overflow = 0
        asyncio.run(crowd(service, pool))
        assert service.app.state.watcher.streams == 0


async def crowd(service: Service, pool: Any) -> None:
    job_ids = [service.submit() for _ in range(50)]
    limits = httpx.Limits(max_connections=None)
    watcher = service.app.state.watcher
    async with httpx.AsyncClient(base_url=service.client.base_url, timeout=DEADLINE_SECONDS, limits=limits) as client:
        streams = [asyncio.create_task(client.get(f"/v1/jobs/{one}/events", headers=STREAM)) for one in job_ids]
        waiters = [asyncio.create_task(client.get(f"/v1/jobs/{one}?wait=60")) for one in job_ids]
        await asyncio.to_thread(eventually, lambda: len(watcher.waiters) == 100 and watcher.streams == 50)
        await asyncio.to_thread(eventually, lambda: pool.checkedout() == 0)
        ordinary = await asyncio.gather(*(client.get("/v1/jobs") for _ in range(20)))
        assert {answer.status_code for answer in ordinary} == {200}
        assert not any(task.done() for task in [*streams, *waiters])
        for one in job_ids:
            assert (await client.post(f"/v1/jobs/{one}/cancel")).status_code == 202
        for one, answer in zip(job_ids, await asyncio.gather(*streams), strict=True):
            frames = list(parse(answer.text))
            assert ids(frames) == [1, 2]
            assert frames[-1]["data"]["jobs"] == [{"job_id": one, "status": "cancelled"}]
        assert {answer.json()["status"] for answer in await asyncio.gather(*waiters)} == {"cancelled"}


def test_a_client_that_hangs_up_is_forgotten(service: Service) -> None:
    reader = Reader(service.client, f"/v1/jobs/{service.submit()}/events")
    reader.until(id="1")
    assert service.app.state.watcher.streams == 1
    reader.close()
    eventually(lambda: service.app.state.watcher.streams == 0 and not service.app.state.watcher.waiters)


def test_a_client_that_does_not_read_is_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.1)
    job_id = service.submit()
    write_events(service.database, job_id, 8_000, message="x" * 2_000)
    port = service.server.servers[0].sockets[0].getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as idle:
        request = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        idle.sendall(request.encode())
        eventually(lambda: service.app.state.watcher.streams == 1)
        eventually(lambda: service.app.state.watcher.streams == 0)
