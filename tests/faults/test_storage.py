"""Files that are damaged or cannot be written: the job says so, and ends as if nothing had happened."""

import pytest

from lab import bell, tables
from tests.faults.test_orders import order, resting
from tests.service import eventually


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


def warnings(service, job_id):
    return [event["message"] for event in service.events(job_id) if event["level"] == "warning"]


@pytest.mark.parametrize(
    ("damage", "how_many"), [(truncate, 1), (flip, 1), (remove, 1), (flip, 2)], ids=["torn", "altered", "gone", "both"]
)
def test_a_damaged_checkpoint_is_not_used(own_service, undisturbed, damage, how_many):
    service, _ = own_service
    service.start_worker()
    job_id = service.submit()
    service.checkpointed(job_id)
    resting(service, job_id)
    known = service.checkpoints(job_id)
    for stored in known[:how_many]:
        damage(service.settings.artifacts_dir / stored.location)
    order(service, "resume", job_id)
    service.succeeded(job_id, undisturbed)
    went_on_after = [stored.step for stored in known][how_many:] or [0]
    assert service.attempts(job_id)[-1].first_step == went_on_after[0]
    told = [message for message in warnings(service, job_id) if "is not used" in message]
    assert [f"step {stored.step} " in message for stored, message in zip(known, told, strict=False)] == [
        True
    ] * how_many


def in_the_way(service, job_id):
    """A file where the job's folder in the store should be; permissions would not stop root."""
    path = service.settings.artifacts_dir / job_id
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_store_that_cannot_be_written_is_waited_for(service, undisturbed):
    job_id = service.submit()
    obstacle = in_the_way(service, job_id)
    service.start_worker()
    job = eventually_deferred(service, job_id)
    assert "waits to be tried again: the run's files could not be stored" in job["status_reason"]
    obstacle.unlink()
    try_now(service, job_id)
    service.succeeded(job_id, undisturbed)
    with service.database.read() as tx:
        assert tx.get_one(tables.Job, job_id).failures == 0
    assert {attempt.outcome for attempt in service.attempts(job_id)} == {"storage_unavailable", "finish"}


def try_now(service, job_id):
    """Do not wait until a job that was put off is due."""
    with service.database.write() as tx:
        row = tx.get_one(tables.Job, job_id)
        row.not_before = None
        bell.ring_after_commit(tx, row.queue)


def eventually_deferred(service, job_id):
    return eventually(lambda: (job := service.job(job_id))["status"] == "queued" and job["attempt"] and job)


def test_a_checkpoint_that_cannot_be_stored_is_a_warning(service, undisturbed):
    job_id = service.submit()
    obstacle = in_the_way(service, job_id)
    service.start_worker()
    eventually(lambda: any("could not be stored" in message for message in warnings(service, job_id)))
    obstacle.unlink()
    assert service.succeeded(job_id, undisturbed)["attempt"] == 1


def test_a_pause_is_a_pause_though_its_last_checkpoint_cannot_be_stored(service, undisturbed):
    job_id = service.submit()
    obstacle = in_the_way(service, job_id)
    service.start_worker()
    resting(service, job_id)
    assert [attempt.outcome for attempt in service.attempts(job_id)] == ["paused"]
    obstacle.unlink()
    order(service, "resume", job_id)
    service.succeeded(job_id, undisturbed)
