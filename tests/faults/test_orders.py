"""Orders to a job, whatever it is doing: it obeys, its process is gone, and nothing that was trained is lost."""

import pytest

from lab import bell, jobs, tables
from lab.errors import WrongState
from tests.service import LONG, eventually, gone


def order(service, command, job_id):
    bell.configure(service.settings)
    with service.database.write() as tx:
        return getattr(jobs, command)(tx, job_id).status


def resting(service, job_id):
    """A job that has been paused while it trained."""
    service.training(job_id)
    assert order(service, "pause", job_id) == "pausing"
    return eventually(lambda: (job := service.job(job_id))["status"] == "paused" and job)


def test_a_job_that_is_paused_twice_comes_to_the_undisturbed_numbers(service, undisturbed):
    service.start_worker()
    job_id = service.submit()
    for _ in range(2):
        job = resting(service, job_id)
        assert service.runners() == []
        stored, *_ = service.checkpoints(job_id)
        assert stored.step == job["progress"]["step"] > 0
        assert order(service, "resume", job_id) == "queued"
        eventually(lambda: service.attempts(job_id)[-1].first_step == stored.step)  # noqa: B023  (called at once)
    service.succeeded(job_id, undisturbed)
    assert [attempt.outcome for attempt in service.attempts(job_id)] == ["paused", "paused", "finish"]


def test_cancel_while_queued_and_after_the_end(service):
    job_id = service.submit()
    assert order(service, "cancel", job_id) == "cancelled"
    with pytest.raises(WrongState, match="cannot cancel a job that is cancelled"):
        order(service, "cancel", job_id)
    assert service.attempts(job_id) == []


def test_cancel_while_starting(service):
    service.start_worker()
    job_id = service.submit(**LONG)
    (runner,) = eventually(service.runners)
    runner.suspend()  # before it has said a word; it cannot even hear the SIGTERM
    assert service.attempts(job_id)[0].trained_from is None
    cancelled(service, job_id, runner)


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({}, {"checkpoint_seconds": 3600.0}),
        ({"alignment": {"every": 1, "samples": 100}}, {"checkpoint_seconds": 3600.0}),
        ({}, {"checkpoint_seconds": 0.0}),
    ],
    ids=["training", "measuring", "checkpointing"],
)
def test_cancel_while(service, fields, settings):
    service.settings = service.settings.model_copy(update=settings)
    service.start_worker()
    job_id = service.submit(**LONG, **fields)
    service.training(job_id)
    (runner,) = service.runners()
    cancelled(service, job_id, runner)


def cancelled(service, job_id, runner):
    assert order(service, "cancel", job_id) == "cancelling"
    assert order(service, "cancel", job_id) in {"cancelling", "cancelled"}
    job = service.ended(job_id)
    assert (job["status"], job["error"], gone(runner)) == ("cancelled", None, True)
    with pytest.raises(WrongState):
        order(service, "cancel", job_id)


def test_max_runtime_counts_earlier_attempts_and_a_retry_goes_on_with_a_new_limit(service, undisturbed):
    service.start_worker()
    job_id = service.submit(max_runtime_seconds=3600)
    resting(service, job_id)
    with service.database.write() as tx:
        tx.get_one(tables.Job, job_id).ran_seconds = 3600.0
    order(service, "resume", job_id)
    job = service.ended(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "timeout")
    stored, *_ = service.checkpoints(job_id)
    assert order(service, "retry", job_id) == "queued"
    service.succeeded(job_id, undisturbed)
    assert service.attempts(job_id)[-1].first_step == stored.step


def test_a_run_that_takes_too_long_stores_its_state(service):
    service.settings = service.settings.model_copy(update={"checkpoint_seconds": 3600.0})
    service.start_worker()
    job_id = service.submit(**LONG, max_runtime_seconds=6)
    job = service.ended(job_id)
    (stored,) = service.checkpoints(job_id)
    assert (job["error"]["code"], stored.step) == ("timeout", job["progress"]["step"])


def test_a_failed_job_is_tried_again_from_its_last_checkpoint(service, undisturbed):
    service.settings = service.settings.model_copy(update={"max_attempts": 1})
    service.start_worker()
    job_id = service.submit()
    service.checkpointed(job_id)
    (runner,) = service.runners()
    runner.kill()
    job = service.ended(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "killed")
    stored, *_ = service.checkpoints(job_id)
    order(service, "retry", job_id)
    assert service.succeeded(job_id, undisturbed)["error"] is None
    assert service.attempts(job_id)[-1].first_step == stored.step
