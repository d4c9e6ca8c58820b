"""What nobody else will put right, the one on duty does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from sqlalchemy import update

from lab import attempts, checkpoints, jobs, reads, tables
from lab.db import now
from lab.files import Folder, location_of, open_store
from lab.reconciler import Calm, Reconciler
from tests.factories import checkpointed, started, tiny


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
        return attempts.claim(tx, "wrk_1", cuda=False, lease_seconds=10)


def test_it_rings_again_for_a_job_that_nobody_claimed(database, job_id, bells, settings):
    reconciler = Reconciler(database, settings, open_store(settings))
    assert reconciler.tick()
    assert bells() == 0
    shift(database, job_id, rung_at=-11)
    reconciler.tick()
    assert bells() == 1
    reconciler.tick()
    assert bells() == 0


def test_a_job_that_waits_before_its_next_attempt_is_left_alone(database, job_id, bells, settings):
    attempt = claim(database)
    with database.write() as tx:
        attempts.lose(tx, attempt, "killed", "killed by signal 9")
    bells()
    Reconciler(database, settings, open_store(settings)).tick()
    assert bells() == 0
    shift(database, job_id, not_before=-1)
    later = Reconciler(database, settings, open_store(settings))
    with database.write() as tx:
        tx.execute(update(tables.Lease).values(holder=later.holder))
    later.tick()
    assert bells() == 1


def impatient(database, settings):
    """A reconciler that nothing has disturbed for ever: it believes every lease."""
    reconciler = Reconciler(database, settings, open_store(settings))
    reconciler.calm.since = float("-inf")
    return reconciler


def test_an_expired_lease_is_a_lost_worker(database, job_id, settings):
    reconciler = impatient(database, settings)
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


def test_a_cancelled_job_whose_worker_is_gone_ends(database, job_id, settings):
    claim(database)
    with database.write() as tx:
        jobs.cancel(tx, job_id)
    shift(database, job_id, lease_expires_at=-1)
    impatient(database, settings).tick()
    assert status(database, job_id) == "cancelled"


def test_leases_get_time_after_the_database_was_away_or_a_clock_was_set(database, job_id, settings):
    claim(database)
    shift(database, job_id, lease_expires_at=-1)
    Reconciler(database, settings, open_store(settings)).tick()
    assert status(database, job_id) == "running", "its worker may be alive: it has half a lease to say so"
    with database.write() as tx:
        tx.execute(update(tables.Lease).values(until=now(tx)))
    impatient(database, settings).tick()
    assert status(database, job_id) == "queued"


def test_calm_is_time_without_a_jump_of_the_clock():
    moment, calm = datetime(2026, 1, 1, tzinfo=UTC), Calm()
    assert calm.lasts(moment, 0)
    assert not calm.lasts(moment, 1000)
    since = calm.since
    calm.lasts(moment + timedelta(seconds=1), 1000)
    assert calm.since == since
    calm.lasts(moment + timedelta(hours=1), 1000)
    assert calm.since > since, "an hour in no time: somebody has set the clock"
    since = calm.since
    calm.lasts(moment, 1000)
    assert calm.since > since, "and back"


def test_a_clock_that_was_set_back_makes_no_lease_longer(database, job_id, settings):
    claim(database)
    shift(database, job_id, lease_expires_at=3600)
    Reconciler(database, settings, open_store(settings)).tick()
    with database.read() as tx:
        left = jobs.get(tx, job_id).lease_expires_at - now(tx)
    assert left <= timedelta(seconds=settings.lease_seconds)


def test_a_job_is_rung_for_although_the_clock_was_set_back(database, job_id, bells, settings):
    shift(database, job_id, rung_at=3600, not_before=-1)
    Reconciler(database, settings, open_store(settings)).tick()
    assert bells() == 1


def test_checkpoints_of_jobs_that_ended_long_ago_are_removed_with_their_files(database, job_id, settings):
    attempt = claim(database)
    location = location_of(job_id, attempt.fence, "checkpoint-1")
    store = Folder(settings.artifacts_dir)
    store.path(location).parent.mkdir(parents=True)
    store.path(location).write_bytes(b"state")
    with database.write() as tx:
        attempts.record(tx, attempt, [started(), replace(checkpointed(10), file=location)])
        attempts.fail(tx, attempt, "diverged", "why")
    days = settings.checkpoint_days
    shift(database, job_id, finished_at=-(days * 86_400 - 60))
    reconciler = Reconciler(database, settings, open_store(settings))
    reconciler.tick()
    assert store.path(location).exists()
    shift(database, job_id, finished_at=-(days * 86_400 + 60))
    reconciler.tick()
    assert not store.path(location).parent.exists()
    with database.read() as tx:
        assert checkpoints.of(tx, job_id) == ()


def test_one_has_the_duty_until_its_lease_is_over(database, job_id, settings):
    first, second = (
        Reconciler(database, settings, open_store(settings)),
        Reconciler(database, settings, open_store(settings)),
    )
    assert first.tick()
    assert not second.tick()
    assert first.tick()
    with database.write() as tx:
        tx.execute(update(tables.Lease).values(until=now(tx) - timedelta(seconds=1)))
    assert second.tick()
    assert not first.tick()


def test_the_thread_ends_when_told(database, settings):
    reconciler = Reconciler(database, settings, open_store(settings))
    reconciler.start()
    assert reconciler._thread.is_alive()
    reconciler.stop()
    assert not reconciler._thread.is_alive()
    Reconciler(database, settings, open_store(settings)).stop()
