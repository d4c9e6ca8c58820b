"""The user's side of a job's life on both databases, by the functions that the API calls."""

import pytest
from sqlalchemy import select

from lab import attempts, jobs, reads, tables
from lab.db import Database
from lab.errors import JobNotFound, WrongState
from tests.factories import checkpointed, progress, results, started
from tests.lab.life import claim, claimed, log, submit, view


def test_a_submitted_job_waits_with_its_whole_spec(database):
    job_id = submit(database, name="first", labels={"table": "1"})
    job = view(database, job_id)
    assert job["status"] == "queued"
    assert job["object"] == "job"
    assert job["spec"]["training"]["seed"] == 1
    assert job["spec"]["optimizer"]["name"] == "adam"
    assert job["labels"] == {"table": "1"}
    assert job["attempt"] == 0
    assert job["error"] is None
    assert job["started_at"] is None
    assert job["created_at"].endswith("Z")
    assert job["progress"] == {
        "epoch": 0,
        "epochs": 2,
        "step": 0,
        "steps": None,
        "fraction": 0.0,
        "eta_seconds": None,
    }
    assert [event["seq"] for event in log(database, job_id)] == [1]


def test_unknown_ids_are_not_found(database):
    with database.read() as tx:
        for read in (jobs.get, reads.job_view, reads.results, reads.events, reads.artifacts, reads.alignment):
            with pytest.raises(JobNotFound):
                read(tx, "job_missing")
    with pytest.raises(JobNotFound), database.write() as tx:
        jobs.cancel(tx, "job_missing")


def test_cancel_while_queued_ends_at_once(database):
    job_id = submit(database)
    with database.write() as tx:
        assert jobs.cancel(tx, job_id).status == "cancelled"
    assert claim(database) is None
    assert view(database, job_id)["finished_at"]
    with pytest.raises(WrongState) as refusal, database.write() as tx:
        jobs.cancel(tx, job_id)
    assert refusal.value.extra["job_status"] == "cancelled"
    assert len(log(database, job_id)) == 2


def test_cancel_while_running_is_an_order_to_the_worker(database):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        assert jobs.cancel(tx, job_id).status == "cancelling"
    with database.write() as tx:
        assert jobs.cancel(tx, job_id).status == "cancelling"
    with database.write() as tx:
        assert attempts.record(tx, attempt, [started()]).cancel
    with database.write() as tx:
        attempts.stopped(tx, attempt)
    job = view(database, job_id)
    assert job["status"] == "cancelled"
    assert job["error"] is None
    with pytest.raises(attempts.Fenced), database.write() as tx:
        attempts.record(tx, attempt, [progress(10)])


@pytest.mark.parametrize("ending", ["finish", "fail", "lose", "preempt"])
def test_what_was_being_cancelled_ends_cancelled(database, ending):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        jobs.cancel(tx, job_id)
    with database.write() as tx:
        endings = {
            "finish": lambda: attempts.finish(tx, attempt, results(), []),
            "fail": lambda: attempts.fail(tx, attempt, "diverged", "the loss is NaN"),
            "lose": lambda: attempts.lose(tx, attempt, "killed", "killed by signal 9", max_attempts=1),
            "preempt": lambda: attempts.preempt(tx, attempt),
        }
        endings[ending]()
    job = view(database, job_id)
    assert (job["status"], job["error"]) == ("cancelled", None)
    with database.read() as tx:
        assert (reads.results(tx, job_id)["test"] is not None) == (ending == "finish")


def test_a_running_job_is_paused_by_its_worker_and_resumed_where_it_was(database):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        assert attempts.record(tx, attempt, [started(), progress(10), checkpointed(10)]) == attempts.Orders(
            cancel=False, pause=False
        )
        assert jobs.pause(tx, job_id).status == "pausing"
    with database.write() as tx:
        assert jobs.pause(tx, job_id).status == "pausing", "asked twice is asked once"
        assert attempts.orders(tx, attempt).pause
        assert attempts.paused(tx, attempt).status == "paused"
    assert claim(database) is None
    with database.write() as tx:
        assert jobs.resume(tx, job_id).status == "queued"
    second = claimed(database)
    assert second.checkpoints[0].step == 10
    assert second.ran_seconds > 0


def test_a_job_that_waits_is_paused_at_once(database):
    job_id = submit(database)
    with database.write() as tx:
        assert jobs.pause(tx, job_id).status == "paused"
        assert jobs.cancel(tx, job_id).status == "cancelled"


def test_a_cancel_overtakes_a_pause(database):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        jobs.pause(tx, job_id)
        jobs.cancel(tx, job_id)
    with database.write() as tx:
        assert attempts.paused(tx, attempt).status == "cancelled"


def test_a_process_that_dies_while_it_is_paused_leaves_its_job_paused(database):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        jobs.pause(tx, job_id)
        assert attempts.lose(tx, attempt, "killed", "why", max_attempts=1).status == "paused"


def test_a_job_that_failed_is_tried_again_with_a_clean_slate(database):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        attempts.record(tx, attempt, [started(), progress(10), checkpointed(10)])
        attempts.lose(tx, attempt, "killed", "why", max_attempts=1)
    assert view(database, job_id)["status"] == "failed"
    with database.write() as tx:
        jobs.retry(tx, job_id)
    job = view(database, job_id)
    assert (job["status"], job["error"], job["finished_at"]) == ("queued", None, None)
    second = claimed(database)
    assert (second.number, second.checkpoints[0].step, second.ran_seconds) == (2, 10, 0)
    with database.write() as tx:
        assert attempts.lose(tx, second, "killed", "why", max_attempts=2).status == "queued"


@pytest.mark.parametrize("command", ["resume", "retry", "pause"])
def test_commands_are_refused_where_the_state_forbids_them(database, command):
    job_id = submit(database)
    with database.write() as tx:
        attempts.finish(tx, attempts.claim(tx, "wrk_1", cuda=False), results(), [])
    with pytest.raises(WrongState) as refusal, database.write() as tx:
        getattr(jobs, command)(tx, job_id)
    assert refusal.value.extra["job_status"] == "succeeded"
    with pytest.raises(JobNotFound), database.write() as tx:
        getattr(jobs, command)(tx, "job_missing")


def finish_next(database: Database, **values) -> None:
    attempt = claimed(database)
    with database.write() as tx:
        attempts.finish(tx, attempt, results(**values), [])


def test_controls_become_twins_and_the_results_compare(database):
    job_id = submit(database, name="mine", controls=["bp", "shallow"])
    job = view(database, job_id)
    assert [twin["method"] for twin in job["twins"]] == ["bp", "shallow"]
    bp = view(database, job["twins"][0]["job_id"])
    assert (bp["name"], bp["spec"]["method"], bp["spec"]["controls"]) == ("mine · bp twin", {"name": "bp"}, [])
    assert bp["spec"]["training"] == job["spec"]["training"]

    finish_next(database, accuracy=0.7)
    with database.read() as tx:
        pairing = reads.results(tx, job_id)["pairing"]
    assert pairing["recovery"] is None
    assert [(twin["paired"], twin["gap"]) for twin in pairing["twins"]] == [(False, None)] * 2
    finish_next(database, accuracy=0.9)
    finish_next(database, accuracy=0.5)
    with database.read() as tx:
        pairing = reads.results(tx, job_id)["pairing"]
    assert pairing["recovery"] == pytest.approx(0.5)
    assert [twin["gap"] for twin in pairing["twins"]] == pytest.approx([0.2, -0.2])
    assert all(twin["paired"] for twin in pairing["twins"])


def test_a_twin_from_other_weights_is_no_pair(database):
    job_id = submit(database, controls=["bp", "shallow"])
    finish_next(database, accuracy=0.7)
    finish_next(database, accuracy=0.9, init="f" * 64)
    finish_next(database, accuracy=0.5)
    with database.read() as tx:
        pairing = reads.results(tx, job_id)["pairing"]
    assert pairing["recovery"] is None
    assert [(twin["paired"], twin["gap"] is None) for twin in pairing["twins"]] == [(False, True), (True, False)]


def test_a_job_that_has_ended_can_be_deleted_with_all_it_left(database: Database) -> None:
    job_id = submit(database, controls=["bp"])
    with database.write() as tx, pytest.raises(WrongState):
        jobs.delete(tx, job_id)
    with database.write() as tx:
        jobs.cancel(tx, job_id)
        jobs.delete(tx, job_id)
    with database.read() as tx:
        for table in (tables.Job, tables.Event, tables.Twin):
            key = tables.Job.id if table is tables.Job else table.job_id
            assert not tx.scalars(select(key).where(key == job_id)).all()
    with database.write() as tx, pytest.raises(JobNotFound):
        jobs.delete(tx, job_id)
