"""The worker's side of a job's life on both databases: claim, record, end an attempt."""

import pytest
from sqlalchemy import select

from credit.events import Diagnosed, Evaluated, Fetching
from lab import attempts, checkpoints, reads, series, tables
from lab.states import State
from tests.factories import aligned, checkpointed, evaluated, progress, results, started
from tests.lab.life import claim, claimed, forget_backoff, let_lease_expire, log, steps_of, submit, view


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
        row = reads.artifact(tx, job_id, "model.safetensors")
    assert (row.location, row.sha256) == (file.location, "d" * 64)
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
