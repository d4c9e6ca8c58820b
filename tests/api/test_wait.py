"""Waiting for a change of status, conditional requests, and what they hold meanwhile."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from lab import attempts, jobs
from lab.settings import Settings
from tests import factories
from tests.api.conftest import DEADLINE_SECONDS, Service, assert_problem, eventually, serving

LONG = 60
"""Seconds that no test waits: an answer before the client's own deadline came early."""


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def ask(
    background: ThreadPoolExecutor, service: Service, path: str, headers: dict[str, str] | None = None
) -> Future[httpx.Response]:
    """Send a request that waits; returns when the service has it among those who wait."""
    waiting = len(service.app.state.watcher.waiters)
    answer = background.submit(service.client.get, path, headers=headers)
    eventually(lambda: len(service.app.state.watcher.waiters) > waiting)
    return answer


def record(service: Service, attempt: attempts.Attempt) -> None:
    with service.database.write() as tx:
        attempts.record(tx, attempt, [factories.started(), factories.progress(10)])


def test_answers_at_the_change(service: Service, background: ThreadPoolExecutor) -> None:
    job_id = service.submit()
    answer = ask(background, service, f"/v1/jobs/{job_id}?wait={LONG}")
    service.claim()
    assert answer.result().json()["status"] == "running"
    assert answer.result().headers["preference-applied"] == "wait=60"
    assert not service.app.state.watcher.waiters


def test_header_is_as_good_as_the_parameter(service: Service, background: ThreadPoolExecutor) -> None:
    job_id = service.submit()
    answer = ask(background, service, f"/v1/jobs/{job_id}", {"Prefer": "respond-async, wait=59"})
    service.claim()
    assert answer.result().json()["status"] == "running"
    assert answer.result().headers["preference-applied"] == "wait=59"


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=10", "wait=10"),
        ("wait=999", "wait=60"),
        ('Wait = "7"', "wait=7"),
        ("handling=lenient; foo, wait=5", "wait=5"),
        ("wait=soon", None),
        ("wait=-1", None),
        ("wait", None),
        ("wait=1.5", None),
        ("await=5", None),
        ("wait=0", None),
        ("", None),
    ],
)
def test_header_is_a_preference(service: Service, prefer: str, applied: str | None) -> None:
    job_id = service.submit()
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    answer = service.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": prefer})
    assert answer.status_code == 200
    assert answer.headers.get("preference-applied") == applied


def test_ended_job_answers_at_once(service: Service) -> None:
    job_id = service.submit()
    tag = service.client.post(f"/v1/jobs/{job_id}/cancel") and service.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    assert service.client.get(f"/v1/jobs/{job_id}?wait={LONG}").status_code == 200
    same = service.client.get(f"/v1/jobs/{job_id}?wait={LONG}", headers={"If-None-Match": tag})
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == tag


def test_at_the_limit_the_job_as_it_is(service: Service) -> None:
    job_id = service.submit()
    answer = service.client.get(f"/v1/jobs/{job_id}?wait=0.2")
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert answer.headers["preference-applied"] == "wait=0.2"
    unchanged = service.client.get(f"/v1/jobs/{job_id}?wait=0.2", headers={"If-None-Match": answer.headers["etag"]})
    assert unchanged.status_code == 304
    assert unchanged.headers["preference-applied"] == "wait=0.2"


def test_a_change_between_two_calls_is_not_missed(service: Service) -> None:
    job_id = service.submit()
    tag = service.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    service.claim()
    answer = service.client.get(f"/v1/jobs/{job_id}?wait={LONG}", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.json()["status"]) == (200, "running")


def test_progress_alone_wakes_nobody(service: Service, background: ThreadPoolExecutor) -> None:
    job_id = service.submit()
    attempt = service.claim()
    tag = service.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    answer = ask(background, service, f"/v1/jobs/{job_id}?wait={LONG}", {"If-None-Match": tag})
    record(service, attempt)
    moved = service.client.get(f"/v1/jobs/{job_id}?wait=0.5", headers={"If-None-Match": tag})
    assert moved.json()["progress"]["step"] == 10
    assert not answer.done()
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.result().json()["status"] == "cancelling"


def test_a_deleted_job_answers_those_who_wait(service: Service, background: ThreadPoolExecutor) -> None:
    job_id = service.submit()
    answer = ask(background, service, f"/v1/jobs/{job_id}?wait={LONG}")
    with service.database.write() as tx:
        tx.delete(jobs.get(tx, job_id))
    assert_problem(answer.result(), 404, "not_found")


def test_a_client_that_hangs_up_is_forgotten(service: Service) -> None:
    job_id = service.submit()
    with httpx.Client(base_url=service.client.base_url, timeout=0.5) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.get(f"/v1/jobs/{job_id}?wait={LONG}")
    eventually(lambda: not service.app.state.watcher.waiters)


def test_a_stop_answers_those_who_wait(alone: Settings, background: ThreadPoolExecutor) -> None:
    with serving(alone) as service:
        job_id = service.submit()
        answer = ask(background, service, f"/v1/jobs/{job_id}?wait={LONG}")
        service.server.should_exit = True
        assert answer.result().json()["status"] == "queued"


def test_hundred_waiters_hold_no_connection_and_no_thread(service: Service) -> None:
    with service.database.write() as tx:
        ids = [jobs.submit(tx, factories.tiny()).id for _ in range(100)]

    async def scenario() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=service.client.base_url, timeout=DEADLINE_SECONDS, limits=limits
        ) as client:
            waiting = [asyncio.create_task(client.get(f"/v1/jobs/{job_id}?wait={LONG}")) for job_id in ids]
            await asyncio.to_thread(eventually, lambda: len(service.app.state.watcher.waiters) == 100)
            await asyncio.to_thread(eventually, lambda: service.database.engine.pool.checkedout() == 0)
            assert (await client.get("/v1/jobs")).status_code == 200
            assert not any(task.done() for task in waiting)
            for _ in ids:
                await asyncio.to_thread(service.claim)
            answers = await asyncio.gather(*waiting)
            assert [answer.json()["id"] for answer in answers] == ids
            assert {answer.json()["status"] for answer in answers} == {"running"}

    asyncio.run(scenario())
    assert not service.app.state.watcher.waiters


# ---- ETag ------------------------------------------------------------------------------------------------------------


def test_etag_counts_versions_and_changes_of_status(service: Service) -> None:
    job_id = service.submit()
    path = f"/v1/jobs/{job_id}"
    first = service.client.get(path)
    again = service.client.get(path)
    assert again.headers["etag"] == first.headers["etag"]
    assert again.content == first.content
    assert first.headers["cache-control"] == "private, no-cache"
    attempt = service.claim()
    running = service.client.get(path).headers["etag"]
    record(service, attempt)
    moved = service.client.get(path).headers["etag"]
    changes = [tag.strip('W/"').split("-")[1] for tag in (first.headers["etag"], running, moved)]
    assert len({first.headers["etag"], running, moved}) == 3
    assert changes[0] != changes[1] == changes[2]


@pytest.mark.parametrize("part", ["", "/metrics", "/alignment", "/results"])
def test_not_modified(service: Service, part: str) -> None:
    path = f"/v1/jobs/{service.submit()}{part}"
    tag = service.client.get(path).headers["etag"]
    for known in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
        answer = service.client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    for other in ('"x"', tag.replace('"', ""), "nonsense", ""):
        assert service.client.get(path, headers={"If-None-Match": other}).status_code == 200
    attempt = service.claim()
    record(service, attempt)
    changed = service.client.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_retry_after_while_it_lasts(service: Service) -> None:
    path = f"/v1/jobs/{service.submit()}"
    assert 1 <= int(service.client.get(path).headers["retry-after"]) <= 60
    service.client.post(f"{path}/cancel")
    assert "retry-after" not in service.client.get(path).headers
