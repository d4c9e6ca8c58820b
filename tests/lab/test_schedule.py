"""When queued jobs will start: exact numbers, from rows that are written for it."""

from datetime import timedelta

import pytest
from sqlalchemy import event, select, update

from lab import attempts, fleet, jobs, projects, schedule, tables
from lab.db import now
from tests.factories import progress, results, started, tiny
from tests.lab.test_fleet import SECRET, add_worker, submit

TOOK = 40.0
"""Seconds that every job of ``tests.factories.tiny`` takes, by those that have succeeded."""


def claim(database, worker):
    with database.write() as tx:
        return attempts.claim(tx, worker, cuda=False)


def succeed(database, worker, seconds):
    with database.write() as tx:
        jobs.submit(tx, tiny())
    attempt = claim(database, worker)
    with database.write() as tx:
        attempts.finish(tx, attempt, results() | {"cost": {"train_seconds": seconds}}, [])


@pytest.fixture
def paced(database):
    """A database in which three jobs have succeeded; the median took ``TOOK`` seconds."""
    for seconds in (TOOK, 1.0, 900.0):
        succeed(database, "wrk_before", seconds)
    return database


def run(database, worker, **row):
    """A job that a worker has; ``row`` changes its row."""
    job_id = submit(database)
    attempt = claim(database, worker)
    assert attempt.job_id == job_id
    with database.write() as tx:
        attempts.record(tx, attempt, [started(), progress(10)])
        tx.execute(update(tables.Job).where(tables.Job.id == job_id).values(**row))
    return job_id


def remaining(eta):
    return {"progress": {"epoch": 1, "epochs": 2, "step": 10, "steps": 20, "fraction": 0.5, "eta_seconds": eta}}


def told(database, running_jobs=None):
    """Seconds from now until each job starts, in their order; the reason where that is not known."""
    with database.read() as tx:
        moment = now(tx)
        ready = [worker.row for worker in fleet.fleet(tx) if worker.ready]
        starts = schedule.starts(tx, ready, moment, running_jobs)
    return [one.missing or pytest.approx((one.at - moment).total_seconds(), abs=1e-5) for one in starts.values()]


def test_one_after_the_other_behind_what_runs(paced):
    add_worker(paced, "wrk_a")
    run(paced, "wrk_a", **remaining(7.5))
    for _ in range(3):
        submit(paced)
    assert told(paced) == [7.5, 7.5 + TOOK, 7.5 + 2 * TOOK]


def test_the_slot_that_is_free_first_is_taken_first(paced):
    add_worker(paced, "wrk_a", slots=2)
    add_worker(paced, "wrk_b")
    run(paced, "wrk_a", **remaining(10.0))
    run(paced, "wrk_b", **remaining(30.0))
    for _ in range(5):
        submit(paced)
    # free now, at 10 and at 30; then forty seconds later each
    assert told(paced) == [0.0, 10.0, 30.0, 40.0, 50.0]


def test_priority_comes_before_age_and_a_job_that_has_begun_has_less_to_do(paced):
    add_worker(paced, "wrk_a")
    old, urgent = submit(paced), submit(paced, priority=5)
    half = submit(paced, priority=9)
    with paced.write() as tx:
        tx.execute(update(tables.Job).where(tables.Job.id == half).values(remaining(None)))
    with paced.read() as tx:
        starts = schedule.starts(tx, [worker.row for worker in fleet.fleet(tx)], now(tx), None)
        assert list(starts) == [half, urgent, old]
    assert told(paced) == [0.0, TOOK / 2, TOOK / 2 + TOOK]


def test_a_running_job_that_has_not_said_how_long_is_estimated_and_one_that_is_being_stopped_is_as_good_as_gone(paced):
    add_worker(paced, "wrk_a", slots=2)
    run(paced, "wrk_a", **remaining(None))
    stopping = run(paced, "wrk_a", **remaining(500.0))
    with paced.write() as tx:
        jobs.cancel(tx, stopping)
    for _ in range(3):
        submit(paced)
    assert told(paced) == [0.0, TOOK / 2, TOOK]


def test_no_job_takes_longer_than_it_may(paced):
    add_worker(paced, "wrk_a")
    for _ in range(3):
        submit(paced, max_runtime_seconds=25.0)
    assert told(paced) == [0.0, 25.0, 50.0]


def test_a_job_in_its_backoff_is_overtaken(paced):
    add_worker(paced, "wrk_a")
    late = submit(paced)
    submit(paced)
    with paced.read() as tx:
        moment = now(tx)
    with paced.write() as tx:
        tx.execute(update(tables.Job).where(tables.Job.id == late).values(not_before=moment + timedelta(seconds=15)))
    with paced.read() as tx:
        ready = [worker.row for worker in fleet.fleet(tx)]
        first, second = schedule.starts(tx, ready, moment, None).values()
    assert (first.at - moment).total_seconds() == pytest.approx(TOOK, abs=1e-5)
    assert second.at == moment


def test_a_project_waits_for_its_own_jobs_while_others_go_on(paced):
    add_worker(paced, "wrk_a", slots=3)
    with paced.write() as tx:
        projects.ensure(tx, "small").running_jobs = 1
    ids = [submit(paced) for _ in range(4)]
    with paced.write() as tx:
        tx.execute(update(tables.Job).where(tables.Job.id.in_(ids[:3])).values(project_id="small"))
    assert told(paced) == [0.0, TOOK, 2 * TOOK, 0.0]
    assert told(paced, running_jobs=2) == [0.0, TOOK, 2 * TOOK, 0.0]
    with paced.write() as tx:
        tx.execute(update(tables.Project).where(tables.Project.id == "small").values(running_jobs=0))
    assert told(paced) == ["project_quota"] * 3 + [0.0]


def test_what_needs_a_gpu_waits_for_one_and_leaves_the_rest_alone(paced):
    add_worker(paced, "wrk_cpu")
    gpu = {"training": {**tiny().training.__dict__, "device": "cuda"}}
    submit(paced, **gpu)
    submit(paced)
    assert told(paced) == ["needs_cuda", 0.0]
    add_worker(paced, "wrk_gpu", cuda=True)
    assert told(paced) == [0.0, 0.0], "a job for any slot takes the plain one"


def test_nobody_there_and_too_many_before_it(database, monkeypatch):
    monkeypatch.setattr(schedule, "LOOKED_AT", 2)
    for _ in range(3):
        submit(database)

    def shown():
        with database.read() as tx:
            page = fleet.queue(tx, 10, None, secret=SECRET)["data"]
        return [(entry["estimated_start_at"] is not None, entry["estimate_missing"]) for entry in page]

    assert shown() == [(False, "no_worker")] * 3
    add_worker(database, "wrk_draining", draining=True)
    assert shown() == [(False, "no_worker")] * 3
    add_worker(database, "wrk_a", slots=3)
    assert shown() == [(True, None), (True, None), (False, "too_far_back")]


def test_a_spec_of_another_version_harms_no_estimate(paced):
    add_worker(paced, "wrk_a")
    strange = submit(paced)
    submit(paced)
    for status in ("queued", "succeeded"):
        with paced.write() as tx:
            job = tx.scalars(select(tables.Job).where(tables.Job.status == status).order_by(tables.Job.id)).first()
            job.spec = job.spec | {"method": {"name": "magic"}}
            assert (job.id == strange) == (status == "queued")
    # the one job fails as soon as it starts; of the three others, the median of two
    assert told(paced) == [0.0, 0.0]


def test_the_work_does_not_grow_with_the_queue(paced):
    add_worker(paced, "wrk_a")
    asked = []

    def count(number):
        for _ in range(number):
            submit(paced)
        asked.clear()
        told(paced)
        return len(asked)

    event.listen(paced.engine, "before_cursor_execute", lambda *statement: asked.append(statement[2]))
    assert count(1) == count(20)
