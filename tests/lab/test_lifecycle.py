"""A job's life on both databases, by the functions that the API and the worker call."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from credit.events import Diagnosed, Evaluated, Fetching
from lab import attempts, checkpoints, jobs, reads, series, tables
from lab.db import Database, now
from lab.errors import JobNotFound, WrongState
from lab.states import State
from tests.factories import aligned, checkpointed, evaluated, progress, results, started, tiny


def submit(database: Database, **fields) -> str:
    with database.write() as tx:
        return jobs.submit(tx, tiny(**fields)).id


def claim(database: Database, worker: str = "wrk_1", *, cuda: bool = False) -> attempts.Attempt | None:
    with database.write() as tx:
        return attempts.claim(tx, worker, cuda=cuda)


def claimed(database: Database) -> attempts.Attempt:
    attempt = claim(database)
    assert attempt is not None
    return attempt


def view(database: Database, job_id: str) -> dict:
    with database.read() as tx:
        return reads.job_view(tx, job_id)


def log(database: Database, job_id: str) -> list[dict]:
    with database.read() as tx:
        return reads.events(tx, job_id)["data"]


def let_lease_expire(database: Database, job_id: str) -> None:
    with database.write() as tx:
        late = now(tx) - timedelta(seconds=1)
        tx.execute(update(tables.Job).where(tables.Job.id == job_id).values(lease_expires_at=late))


def forget_backoff(database: Database, job_id: str) -> None:
    with database.write() as tx:
        tx.execute(update(tables.Job).where(tables.Job.id == job_id).values(not_before=None))


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


def test_from_claim_to_success(database):
    job_id = submit(database)
    attempt = claimed(database)
    assert (attempt.job_id, attempt.number, attempt.fence) == (job_id, 1, 1)
    assert view(database, job_id)["status"] == "running"
    assert claim(database) is None

    with database.write() as tx:
        assert attempts.record(tx, attempt, [started(), aligned(0), progress(5, 10)]) == attempts.Orders(cancel=False)
    job = view(database, job_id)
    assert job["progress"]["step"] == 10
    assert job["progress"]["fraction"] == 0.5
    assert job["progress"]["eta_seconds"] is None

    with database.write() as tx:
        attempts.record(tx, attempt, [evaluated(10, 0.6), progress(15, 20)])
    assert view(database, job_id)["progress"]["eta_seconds"] == 0
    with database.read() as tx:
        known = reads.results(tx, job_id)
    assert known["status"] == "running"
    assert known["test"] == {"accuracy": 0.6, "loss": 1.0}
    assert known["alignment"]["layers"][0]["delta_cosine"] == {"mean": 0.5, "std": 0.1}
    assert known["pairing"]["init_sha256"] == "a" * 64

    file = attempts.Artifact("model.safetensors", 3, "d" * 64, "application/octet-stream", f"{job_id}/attempt-1/model")
    with database.write() as tx:
        attempts.finish(tx, attempt, results(0.7), [file])
    job = view(database, job_id)
    assert job["status"] == "succeeded"
    assert job["progress"]["fraction"] == 1
    assert job["finished_at"] >= job["started_at"]
    with database.read() as tx:
        final = reads.results(tx, job_id)
        assert [row["name"] for row in reads.artifacts(tx, job_id)["data"]] == ["model.safetensors"]
        path, row = reads.artifact(tx, job_id, "model.safetensors")
    assert (str(path), row.sha256) == (file.location, "d" * 64)
    assert final["test"]["accuracy"] == 0.7
    assert len(final["environment"]["spec_sha256"]) == 64
    assert [event["seq"] for event in log(database, job_id)] == [1, 2, 3, 4, 5]
    assert [event["data"].get("status") for event in log(database, job_id)] == [
        "queued",
        "running",
        None,
        None,
        "succeeded",
    ]


def test_a_download_is_a_line_of_the_log_and_readouts_of_layers_are_results(database):
    job_id = submit(database)
    attempt = claimed(database)
    readouts = {"hidden1": 0.5, "hidden2": 0.6}
    with database.write() as tx:
        attempts.record(tx, attempt, [Fetching(received=2_500_000, size=11_600_000)])
        tested = Evaluated(step=10, epoch=1.0, split="test", loss=1.0, accuracy=0.6, layers=readouts)
        attempts.record(tx, attempt, [started(), tested])
    assert "downloading the data set, 2.5 of 11.6 MB" in [line["message"] for line in log(database, job_id)]
    with database.read() as tx:
        assert reads.results(tx, job_id)["test"] == {"accuracy": 0.6, "loss": 1.0, "layers": readouts}
        accuracies = series.read(tx, job_id, ["layer/accuracy"], None, None, 10)
    assert {one["layer"]: one["points"] for one in accuracies} == {k: [[10, 1.0, v]] for k, v in readouts.items()}


def test_priority_then_age_decides_who_is_next(database):
    old, urgent, new = submit(database), submit(database, priority=5), submit(database)
    assert [claimed(database).job_id for _ in range(3)] == [urgent, old, new]


def test_a_cuda_job_waits_for_a_worker_with_cuda(database):
    job_id = submit(database, training={"device": "cuda:1"})
    assert claim(database) is None
    attempt = claim(database, cuda=True)
    assert attempt is not None
    assert attempt.job_id == job_id


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


def test_a_failure_says_why(database):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        attempts.fail(tx, attempt, "internal_error", "bad \0 text \ud800 of a bug")
    job = view(database, job_id)
    assert job["status"] == "failed"
    assert job["error"]["code"] == "internal_error"
    assert job["error"]["message"] == job["status_reason"] == "bad � text � of a bug"
    assert log(database, job_id)[-1]["level"] == "error"


def steps_of(database: Database, job_id: str, name: str = "train/loss") -> list[int]:
    with database.read() as tx:
        return [point[0] for row in series.read(tx, job_id, [name]) for point in row["points"]]


def test_a_lost_attempt_is_tried_again_until_none_is_left(database):
    job_id = submit(database)
    first = claimed(database)
    with database.write() as tx:
        attempts.record(tx, first, [started(), progress(10)])
    with database.write() as tx:
        attempts.lose(tx, first, "killed", "killed by signal 9", max_attempts=2)
    job = view(database, job_id)
    assert (job["status"], job["error"]) == ("queued", None)
    assert claim(database) is None, "it waits before it is tried again"
    forget_backoff(database, job_id)
    second = claimed(database)
    assert (second.number, second.fence) == (2, 2)
    with pytest.raises(attempts.Fenced), database.write() as tx:
        attempts.record(tx, first, [progress(20)])
    with pytest.raises(attempts.Fenced), database.write() as tx:
        attempts.finish(tx, first, results(), [])
    with database.write() as tx:
        attempts.record(tx, second, [started()])
    assert view(database, job_id)["progress"]["step"] == 0
    with database.read() as tx:
        assert series.read(tx, job_id) == []
        assert tx.query(tables.Chunk).count() == 0
    with database.write() as tx:
        attempts.lose(tx, second, "killed", "killed by signal 9", max_attempts=2)
    job = view(database, job_id)
    assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", "killed", 2)
    with database.read() as tx:
        rows = tx.scalars(select(tables.Attempt).order_by(tables.Attempt.number)).all()
    assert [(row.number, row.outcome, row.ended_at is None) for row in rows] == [
        (1, "killed", False),
        (2, "killed", False),
    ]


def test_the_next_attempt_goes_on_from_the_checkpoint_and_voids_what_came_after(database):
    job_id = submit(database)
    first = claimed(database)
    assert first.checkpoints == ()
    with database.write() as tx:
        told = [started(), aligned(0), progress(5, 10), evaluated(10, 0.5), checkpointed(10), progress(15, 20)]
        attempts.record(tx, first, [*told, evaluated(20, 0.9)])
        attempts.lose(tx, first, "killed", "killed by signal 9")
    forget_backoff(database, job_id)
    second = claimed(database)
    assert [(stored.step, stored.location) for stored in second.checkpoints] == [(10, "somewhere/10")]
    with database.write() as tx:
        known = {"test": {"accuracy": 0.5, "loss": 1.0}}
        attempts.record(tx, second, [started(step=10, known=known)])
    assert steps_of(database, job_id) == [5, 10]
    assert steps_of(database, job_id, "alignment/delta_cosine") == [0, 0, 0]
    job = view(database, job_id)
    assert job["progress"] | {"step": 10, "steps": 20, "epoch": 1.0, "fraction": 0.5} == job["progress"]
    with database.read() as tx:
        assert reads.results(tx, job_id)["test"]["accuracy"] == 0.5
    with database.write() as tx:
        attempts.record(tx, second, [progress(15, 20), evaluated(20, 0.8)])
        attempts.finish(tx, second, results(), [])
    assert steps_of(database, job_id) == [5, 10, 15, 20]
    assert steps_of(database, job_id, "test/accuracy") == [10, 20]
    with database.read() as tx:
        assert checkpoints.of(tx, job_id) == (), "a job that has succeeded needs none"


def test_the_last_two_checkpoints_are_kept(database):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        attempts.record(tx, attempt, [started(), *map(checkpointed, (5, 10, 15))])
    with database.read() as tx:
        assert [stored.step for stored in checkpoints.of(tx, job_id)] == [15, 10]
    with database.write() as tx:
        attempts.lose(tx, attempt, "killed", "why")
    forget_backoff(database, job_id)
    second = claimed(database)
    with database.write() as tx:  # the checkpoint of step 15 was damaged
        attempts.record(tx, second, [started(step=10)])
    with database.read() as tx:
        assert [stored.step for stored in checkpoints.of(tx, job_id)] == [10]


def test_a_batch_whose_commit_was_not_acknowledged_is_stored_once(database):
    job_id = submit(database)
    attempt = claimed(database)
    for number, batch in ((1, [started(), progress(5)]), (1, [started(), progress(5)]), (2, [progress(10)])):
        with database.write() as tx:
            attempts.record(tx, attempt, batch, number)
    assert steps_of(database, job_id) == [5, 10]
    with database.write() as tx:
        assert attempts.concluded(tx, attempt, 3) is None
        attempts.record(tx, attempt, [progress(15)], 3)
        attempts.finish(tx, attempt, results(), [])
    with database.write() as tx:
        assert attempts.concluded(tx, attempt, 3).status == "succeeded"


@pytest.mark.parametrize(("points", "kept"), [(1, 1), (1023, 1000), (1024, 1024), (3000, 1025), (3000, 2048), (5, 9)])
def test_a_series_can_be_cut_anywhere_and_go_on(database, points, kept):
    job_id = submit(database)
    attempt = claimed(database)
    with database.write() as tx:
        attempts.record(tx, attempt, [started(steps=5000), progress(*range(1, points + 1))])
    with database.write() as tx:
        series.truncate(tx, job_id, kept)
    rest = min(points, kept)
    assert steps_of(database, job_id) == list(range(1, rest + 1))
    with database.write() as tx:
        attempts.record(tx, attempt, [progress(*range(rest + 1, rest + 1100))])
    assert steps_of(database, job_id) == list(range(1, rest + 1100))


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


def test_what_is_nobodys_fault_is_waited_for_and_no_failure(database):
    job_id = submit(database)
    for number in (1, 2, 3, 4):
        attempt = claimed(database)
        assert attempt.number == number
        with database.write() as tx:
            attempts.defer(tx, attempt, "storage_unavailable", "no space left on device")
        job = view(database, job_id)
        assert job["status"] == "queued"
        assert "no space left" in job["status_reason"]
        assert claim(database) is None
        forget_backoff(database, job_id)


def test_a_refused_write_is_counted_on_the_attempt_that_came_late(database):
    job_id = submit(database)
    first = claimed(database)
    with database.write() as tx:
        attempts.lose(tx, first, "lost_worker", "why")
    forget_backoff(database, job_id)
    claimed(database)
    with pytest.raises(attempts.Fenced), database.write() as tx:
        attempts.record(tx, first, [progress(20)])
    with database.write() as tx:
        attempts.refused(tx, first)
    with database.read() as tx:
        rows = tx.scalars(select(tables.Attempt).order_by(tables.Attempt.number)).all()
    assert [row.refused_writes for row in rows] == [1, 0]
    assert log(database, job_id)[-1]["data"] == {"attempt": 1}


def test_a_preempted_attempt_is_no_failure(database):
    job_id = submit(database)
    for number in (1, 2, 3):
        attempt = claimed(database)
        assert attempt.number == number
        with database.write() as tx:
            attempts.preempt(tx, attempt)
    assert view(database, job_id)["status"] == "queued"


def test_expired_leases_are_found_and_renewed_ones_are_not(database):
    submit(database)
    submit(database)
    late, punctual = claimed(database), claimed(database)
    let_lease_expire(database, late.job_id)
    let_lease_expire(database, punctual.job_id)
    with database.write() as tx:
        attempts.record(tx, punctual, [])
    with database.write() as tx:
        assert [attempt.job_id for attempt in attempts.expired(tx)] == [late.job_id]


def test_heartbeats_leave_the_version_alone_and_events_raise_it(database):
    job_id = submit(database)
    attempt = claimed(database)

    def version():
        with database.read() as tx:
            return reads.statuses(tx, [job_id, "job_missing"])

    before = version()
    assert list(before) == [job_id]
    with database.write() as tx:
        attempts.record(tx, attempt, [])
    assert version() == before
    with database.write() as tx:
        attempts.record(tx, attempt, [started()])
    (number, changes, status), (old_number, old_changes, _) = version()[job_id], before[job_id]
    assert (number, changes, status) == (old_number + 1, old_changes, State.RUNNING)


def test_diagnoses_are_results_and_lines_of_the_log(database):
    job_id = submit(database)
    attempt = claimed(database)
    found = Diagnosed(code="dead_layer", layer="hidden1", step=3, evidence="all zero", advice="lower lr")
    with database.write() as tx:
        attempts.record(tx, attempt, [started(), found])
    with database.read() as tx:
        assert reads.results(tx, job_id)["diagnoses"] == [
            {"code": "dead_layer", "layer": "hidden1", "evidence": "all zero", "advice": "lower lr"}
        ]
    assert (log(database, job_id)[-1]["type"], log(database, job_id)[-1]["level"]) == ("diagnosis", "warning")


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
