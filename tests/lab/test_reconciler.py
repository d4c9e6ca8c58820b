"""What nobody else will put right, the one on duty does."""

from datetime import timedelta

import pytest
from redis import Redis
from sqlalchemy import update

from lab import jobs, reads, tables
from lab.db import now
from lab.reconciler import Reconciler
from tests.factories import tiny


@pytest.fixture
def bells(settings):
    """How many bells have rung since the last call."""
    client = Redis.from_url(settings.broker_url)
    client.flushall()

    def rung() -> int:
        count = client.llen("creditlab:default")
        client.flushall()
        return count

    yield rung
    client.close()


@pytest.fixture
def job_id(database, bells):
    with database.write() as tx:
        job_id = jobs.submit(tx, tiny()).id
    bells()
    return job_id


def shift(database, job_id, **columns):
    with database.write() as tx:
        moment = now(tx)
        values = {name: moment + timedelta(seconds=seconds) for name, seconds in columns.items()}
        tx.execute(update(tables.Job).where(tables.Job.id == job_id).values(values))


def status(database, job_id):
    with database.read() as tx:
        return reads.statuses(tx, [job_id])[job_id][2]


def claim(database):
    with database.write() as tx:
        return jobs.claim(tx, "wrk_1", cuda=False, lease_seconds=10)


def test_it_rings_again_for_a_job_that_nobody_claimed(database, job_id, bells):
    reconciler = Reconciler(database)
    assert reconciler.tick()
    assert bells() == 0
    shift(database, job_id, rung_at=-11)
    reconciler.tick()
    assert bells() == 1
    reconciler.tick()
    assert bells() == 0


def test_a_job_that_waits_before_its_next_attempt_is_left_alone(database, job_id, bells):
    attempt = claim(database)
    with database.write() as tx:
        jobs.lose(tx, attempt, "killed", "killed by signal 9")
    bells()
    Reconciler(database).tick()
    assert bells() == 0
    shift(database, job_id, not_before=-1)
    later = Reconciler(database)
    with database.write() as tx:
        tx.execute(update(tables.Lease).values(holder=later.holder))
    later.tick()
    assert bells() == 1


def test_an_expired_lease_is_a_lost_worker(database, job_id):
    reconciler = Reconciler(database, max_attempts=2)
    claim(database)
    reconciler.tick()
    assert status(database, job_id) == "running"
    shift(database, job_id, lease_expires_at=-1)
    reconciler.tick()
    assert status(database, job_id) == "queued"
    shift(database, job_id, not_before=-1)
    assert claim(database).number == 2
    shift(database, job_id, lease_expires_at=-1)
    reconciler.tick()
    with database.read() as tx:
        job = reads.job_view(tx, job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "lost_worker")


def test_a_cancelled_job_whose_worker_is_gone_ends(database, job_id):
    claim(database)
    with database.write() as tx:
        jobs.cancel(tx, job_id)
    shift(database, job_id, lease_expires_at=-1)
    Reconciler(database).tick()
    assert status(database, job_id) == "cancelled"


def test_one_has_the_duty_until_its_lease_is_over(database, job_id):
    first, second = Reconciler(database), Reconciler(database)
    assert first.tick()
    assert not second.tick()
    assert first.tick()
    with database.write() as tx:
        tx.execute(update(tables.Lease).values(until=now(tx) - timedelta(seconds=1)))
    assert second.tick()
    assert not first.tick()


def test_the_thread_ends_when_told(database):
    reconciler = Reconciler(database)
    reconciler.start()
    assert reconciler._thread.is_alive()
    reconciler.stop()
    assert not reconciler._thread.is_alive()
    Reconciler(database).stop()
