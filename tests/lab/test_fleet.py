"""Workers with their slots; the queue with positions and reasons."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from lab import attempts, fleet, jobs, tables
from lab.db import now
from lab.errors import BadCursor, JobNotFound
from tests.factories import started, tiny

SECRET = "the secret of this test"


def add_worker(database, name, *, slots=1, cuda=False, age=0.0, draining=False):
    with database.write() as tx:
        moment = now(tx)
        row = tables.Worker(id=name, host="host", pid=1, version="1.0", slots=slots, cuda=cuda, draining=draining)
        row.started_at, row.heartbeat_at = moment, moment - timedelta(seconds=age)
        tx.add(row)


def submit(database, **fields):
    with database.write() as tx:
        return jobs.submit(tx, tiny(**fields)).id


def claim(database, worker):
    with database.write() as tx:
        return attempts.claim(tx, worker, cuda=False)


def queue(database, limit=100, after=None):
    with database.read() as tx:
        return fleet.queue(tx, limit, after, secret=SECRET)


def reasons(database):
    return {entry["job_id"]: entry["reason"] for entry in queue(database)["data"]}


def test_workers_and_what_is_in_their_slots(database):
    add_worker(database, "wrk_a", slots=2)
    add_worker(database, "wrk_b", cuda=True, age=fleet.ALIVE_SECONDS + 1)
    job_id = submit(database)
    attempt = claim(database, "wrk_a")
    with database.write() as tx:
        attempts.record(tx, attempt, [started(environment={"device": "cuda:0"})])
    with database.read() as tx:
        first, second = fleet.workers(tx)["data"]
    assert (first["id"], first["alive"], first["draining"]) == ("wrk_a", True, False)
    assert first["slots"] == [
        {"device": "cuda:0", "job_id": job_id, "job_ids": [job_id], "busy": True},
        {"device": "cpu", "job_id": None, "job_ids": [], "busy": False},
    ]
    assert (second["id"], second["alive"]) == ("wrk_b", False)
    assert second["slots"] == [{"device": "cuda", "job_id": None, "job_ids": [], "busy": False}]


def test_whether_a_host_has_a_living_worker(database):
    add_worker(database, "wrk_old", age=fleet.ALIVE_SECONDS + 1)
    with database.read() as tx:
        host = tx.get(tables.Worker, "wrk_old").host
        assert not fleet.beats(tx, host)
    add_worker(database, "wrk_new")
    with database.read() as tx:
        assert fleet.beats(tx, host)
        assert not fleet.beats(tx, f"not-{host}")


def test_a_finished_job_leaves_its_slot(database):
    add_worker(database, "wrk_a")
    submit(database)
    attempt = claim(database, "wrk_a")
    with database.write() as tx:
        attempts.fail(tx, attempt, "user_error", "no")
    with database.read() as tx:
        assert fleet.workers(tx)["data"][0]["slots"] == [
            {"device": "cpu", "job_id": None, "job_ids": [], "busy": False}
        ]


def test_the_order_is_that_of_the_claims(database):
    ids = [submit(database, priority=priority) for priority in (0, 5, 0, -3, 5)]
    told = [entry["job_id"] for entry in queue(database)["data"]]
    assert told == [ids[1], ids[4], ids[0], ids[2], ids[3]]
    assert [claim(database, "wrk_a").job_id for _ in ids] == told
    assert queue(database)["data"] == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_of_the_queue(database, limit):
    for priority in (0, 5, 0, -3, 5, 0, 0):
        submit(database, priority=priority)
    whole, pages, after = queue(database)["data"], [], None
    while True:
        page = queue(database, limit, after)
        pages += page["data"]
        if not page["has_more"]:
            break
        assert len(page["data"]) == limit
        after = page["next"]
    assert pages == whole
    assert [entry["position"] for entry in whole] == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(BadCursor):
        queue(database, limit, "nonsense")


def test_why_a_job_waits(database):
    plain, gpu = submit(database), submit(database, training={"device": "cuda"})
    assert reasons(database) == {plain: "no_worker", gpu: "no_worker"}
    add_worker(database, "wrk_old", age=fleet.ALIVE_SECONDS + 1)
    add_worker(database, "wrk_draining", draining=True)
    assert reasons(database) == {plain: "no_worker", gpu: "no_worker"}
    add_worker(database, "wrk_cpu")
    assert reasons(database) == {plain: None, gpu: "needs_cuda"}
    second = submit(database)
    claim(database, "wrk_cpu")
    assert reasons(database) == {gpu: "needs_cuda", second: "no_free_slot"}
    add_worker(database, "wrk_cuda", cuda=True)
    assert reasons(database) == {gpu: None, second: "no_free_slot"}


def test_a_lost_job_waits_for_its_backoff(database):
    add_worker(database, "wrk_a")
    job_id = submit(database)
    attempt = claim(database, "wrk_a")
    with database.write() as tx:
        attempts.lose(tx, attempt, "killed", "gone")
    assert reasons(database) == {job_id: "retry_backoff"}
    entry = queue(database)["data"][0]
    with database.write() as tx:
        assert entry["queued_at"] > fleet.rfc3339(jobs.get(tx, job_id).created_at)
        tx.execute(update(tables.Job).values(not_before=now(tx) - timedelta(seconds=1)))
    assert reasons(database) == {job_id: None}


def test_one_job_of_the_queue(database):
    first, second = submit(database), submit(database)
    with database.read() as tx:
        assert fleet.queued(tx, second)["data"] == [
            entry for entry in queue(database)["data"] if entry["position"] == 2
        ]
    claim(database, "wrk_a")
    with database.read() as tx:
        assert fleet.queued(tx, first)["data"] == []
        with pytest.raises(JobNotFound):
            fleet.queued(tx, "job_none")
