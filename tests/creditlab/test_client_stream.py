"""The log of a job as it grows: frames out of bytes, and every event once however often the connection is cut."""

import asyncio
import json
import os
import subprocess

import pytest

from creditlab.async_client import AsyncClient
from creditlab.client import ApiError, Client, Retries
from creditlab.sse import Frame, Parser
from tests.flaky import LOST, answer, flaky
from tests.stack import CREDITLAB, LONG_SPEC, creditlab, poll

QUICK = Retries(first=0.001)
TEXT = (
    ": hello\n\nretry: 3\n\nid: 1\nevent: log\ndata: a\u2028b\ndata:c\n\n"
    "event: progress\r\ndata: {}\r\n\r\ndata\r\rid: 2\nevent: log\ndata: cut"
).encode()
FRAMES = [Frame("log", "a\u2028b\nc", "1"), Frame("progress", "{}", None), Frame("message", "", None)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(TEXT)])
def test_frames_do_not_depend_on_where_chunks_end(size):
    parser = Parser()
    chunks = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    assert [frame for chunk in chunks for frame in parser.feed(chunk)] == FRAMES


def test_every_event_comes_once_over_any_number_of_cuts(service, finished):
    with Client(service.url) as direct:
        events = list(direct.events(finished))
        assert list(direct.stream(finished)) == events
        assert list(direct.stream(finished, after_seq=3)) == events[3:]
        assert list(direct.stream(finished, after_seq=len(events))) == []
    cuts = [LOST, answer(503, "Retry-After: 0"), *range(100, 2000, 130)]
    with flaky(service.url, *cuts) as network, Client(network.url, retries=QUICK) as client:
        assert list(client.stream(finished)) == events
        assert network.connections > 5


def test_for_asyncio_the_same(service, finished):
    async def follow():
        with flaky(service.url, *range(100, 2000, 130)) as network:
            async with AsyncClient(network.url, retries=QUICK) as client:
                return [event async for event in client.stream(finished)], [e async for e in client.events(finished)]

    streamed, listed = asyncio.run(follow())
    assert streamed == listed


def test_a_running_job_is_watched_until_it_ends(service):
    with Client(service.url) as client:
        job = client.submit(LONG_SPEC)
        told = []
        for event in client.stream(job["id"], live=True):
            told.append(event)
            if event["type"] == "metrics" and client.get(job["id"])["status"] == "running":
                client.cancel(job["id"])
        numbered = [event for event in told if "seq" in event]
        assert numbered == list(client.events(job["id"]))
        assert {"progress", "metrics"} <= {event["type"] for event in told}
        assert client.get(job["id"])["status"] == "cancelled"


def test_many_jobs_are_one_stream(service, finished):
    with Client(service.url) as client:
        ids = [finished, *(twin["job_id"] for twin in client.get(finished)["twins"])]
        told = list(client.stream_many(ids))
        for job_id in ids:
            assert [event for event in told if event["job_id"] == job_id] == list(client.events(job_id))


def test_no_such_job_is_an_error_at_once(idle):
    with pytest.raises(ApiError) as caught:
        next(idle.stream("job_00000000000000000000000000"))
    assert caught.value.status == 404


def test_logs_are_followed_to_the_end(service):
    with Client(service.url) as client:
        job = client.submit(LONG_SPEC)["id"]
        command = [*CREDITLAB, "logs", job, "--follow", "--json"]
        environment = os.environ | service.env
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as follower:
            first = json.loads(follower.stdout.readline())
            poll(lambda: client.get(job)["status"] == "running")
            client.cancel(job)
            rest = [json.loads(line) for line in follower.stdout]
            assert follower.wait(30) == 0
        assert [first, *rest] == list(client.events(job))


def test_following_what_is_not_there_is_one_sentence(idle):
    told = creditlab("logs", "job_x", "--follow", env={"CREDITLAB_API_URL": idle.base_url})
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1
