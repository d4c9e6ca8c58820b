"""What the client sends again, and what it does not, over a network that loses answers in front of the real service."""

import asyncio
from contextlib import ExitStack

import pytest

from creditlab.async_client import AsyncClient
from creditlab.client import ApiError, Client, Retries, Unreachable
from creditlab.retries import Tries
from tests.flaky import LOST, answer, flaky
from tests.stack import QUICK_SPEC

QUICK = Retries(first=0.001)


@pytest.fixture
def through(idle):
    """A client behind a network with a plan."""

    def make(*plan, retries=QUICK):
        network = stack.enter_context(flaky(idle.base_url, *plan))
        return stack.enter_context(Client(network.url, retries=retries)), network

    with ExitStack() as stack:
        yield make


def labelled(name):
    return QUICK_SPEC | {"labels": {"retried": name}}


def test_a_submission_whose_answer_is_lost_is_done_once(through, idle):
    client, network = through(LOST, LOST)
    job = client.submit(labelled("submit"))
    assert [one["id"] for one in idle.list(label="retried:submit")] == [job["id"]]
    assert network.connections == 3
    assert client.submit(labelled("submit"))["id"] != job["id"], "another call is another job"


def test_for_asyncio_the_same(idle):
    async def submit():
        with flaky(idle.base_url, LOST, answer(503)) as network:
            async with AsyncClient(network.url, retries=QUICK) as client:
                return await client.submit(labelled("async"))

    job = asyncio.run(submit())
    assert [one["id"] for one in idle.list(label="retried:async")] == [job["id"]]


def test_a_command_whose_answer_is_lost_is_done_once(through, idle):
    job_id = idle.submit(labelled("command"))["id"]
    client, _ = through(LOST)
    assert client.cancel(job_id)["status"] == "cancelled"
    client, _ = through(LOST)
    assert client.retry(job_id)["status"] == "queued", "as another command a second one would be refused"
    assert len(list(idle.events(job_id))) == 3, "submitted, cancelled, queued again"


def test_a_deletion_whose_answer_is_lost_is_done(through, idle):
    job_id = idle.submit(labelled("delete"))["id"]
    idle.cancel(job_id)
    client, _ = through(LOST)
    client.delete(job_id)
    with pytest.raises(ApiError) as caught:
        client.delete(job_id)
    assert caught.value.status == 404


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_asks_for_patience_gets_it(through, status):
    client, network = through(answer(status, "Retry-After: 0"), answer(status))
    assert client.page(limit=1)["object"] == "list"
    assert network.connections == 3


def test_what_is_wrong_stays_wrong(through):
    client, network = through(answer(500), answer(404))
    for status in (500, 404):
        with pytest.raises(ApiError) as caught:
            client.page()
        assert caught.value.status == status
    assert network.connections == 2


def test_what_might_be_done_twice_is_sent_once(through, idle):
    client, network = through(LOST)
    with pytest.raises(Unreachable):
        client.create_webhook("http://127.0.0.1:9/", description="sent once")
    assert network.connections == 1
    assert [hook["description"] for hook in idle.webhooks()["data"]].count("sent once") == 1


def test_tries_are_bounded(through):
    client, network = through(*[LOST] * 9, retries=Retries(times=2, first=0.001))
    with pytest.raises(Unreachable):
        client.page()
    assert network.connections == 3


def test_pauses():
    away, full = Unreachable("away"), ApiError({"status": 429}, retry_after=7.0)
    tries = Tries(Retries(times=4, first=1.0, longest=3.0))
    for longest in (1.0, 2.0, 3.0, 3.0):
        assert longest / 2 <= tries.pause(away) <= longest
    with pytest.raises(Unreachable):
        tries.pause(away)
    tries.reset()
    assert tries.pause(away) <= 1.0
    assert Tries(Retries(times=1)).pause(full) == 7.0
    with pytest.raises(ApiError):
        Tries(Retries(longest=6.0)).pause(full)
    busy = ApiError({"status": 409, "code": "request_in_progress"}, retry_after=1.0)
    assert Tries(Retries()).pause(busy) == 1.0
    with pytest.raises(ApiError):
        Tries(Retries()).pause(ApiError({"status": 409, "code": "wrong_state"}))


def test_a_download_that_breaks_off_begins_anew(service, finished, tmp_path):
    with Client(service.url) as direct:
        whole = direct.download(finished, "model.safetensors", tmp_path).read_bytes()
    with flaky(service.url, 50_000, 20_000) as network, Client(network.url, retries=QUICK) as client:
        assert client.download(finished, "model.safetensors", tmp_path / "again").read_bytes() == whole
        assert network.connections == 3
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "again"}
