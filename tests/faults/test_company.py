"""Jobs that train as one computation: each has its own life, whatever becomes of the others."""

import hashlib
import signal

import pytest

from credit import train
from lab import bell, jobs, reads, series
from tests.factories import TINY, tiny
from tests.service import eventually, gone

SEEDS = (1, 2, 3)
TOGETHER = {
    "training": TINY["training"] | {"epochs": 180, "log_every": 7, "together": True},
    "alignment": {"every": 90, "samples": 32},
}
"""Runs of 1,800 steps, to be trained together."""
LASTING = TOGETHER | {"training": TOGETHER["training"] | {"epochs": 5000}}


def runs(fields):
    return [tiny(**fields | {"training": fields["training"] | {"seed": seed}}) for seed in SEEDS]


def submit(service, fields=TOGETHER):
    """A job for each seed, all of them there before a worker looks."""
    bell.configure(service.settings)
    with service.database.write() as tx:
        return [jobs.submit(tx, run).id for run in runs(fields)]


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """What each seed comes to by itself."""
    folder = tmp_path_factory.mktemp("alone")
    return [list(train.run(run, datasets=None, cache=folder))[-1].results for run in runs(TOGETHER)]


def ended_well(service, job_ids, alone):
    """Every job has the numbers of its lone run, and every point once."""
    for job_id, lone in zip(job_ids, alone, strict=True):
        job = service.ended(job_id)
        assert job["status"] == "succeeded", (job, service.log.read_text())
        with service.database.read() as tx:
            results = reads.results(tx, job_id)
            points = {(row["name"], row["layer"]): row["points"] for row in series.read(tx, job_id)}
            files = {row["name"]: row for row in reads.artifacts(tx, job_id)["data"]}
            row = reads.artifact(tx, job_id, "model.safetensors")
        assert results["pairing"]["init_sha256"] == lone["pairing"]["init_sha256"]
        assert results["pairing"]["order_sha256"] == lone["pairing"]["order_sha256"]
        assert results["test"]["loss"] == pytest.approx(lone["test"]["loss"], rel=1e-2)
        assert results["test"]["accuracy"] == pytest.approx(lone["test"]["accuracy"], abs=0.03)
        steps = [step for step, *_ in points["train/loss", None]]
        assert steps == sorted({*(k for e in range(180) for k in (10 * e + 7, 10 * e + 10))})
        assert [step for step, *_ in points["test/accuracy", None]] == list(range(10, 1801, 10))
        assert {"report.html", "metrics.parquet", "results.json"} <= files.keys()
        stored = service.settings.artifacts_dir / row.location
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == row.sha256
        log = service.events(job_id)
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    eventually(lambda: list(service.settings.attempts_dir.iterdir()) == [])


def beside(service, job_id):
    """How many trained together in the last attempt of a job."""
    return service.attempts(job_id)[-1].environment.get("members")


def together(service):
    """Jobs that have stored two checkpoints while they train together, and their one process."""
    job_ids = submit(service)
    service.start_worker(slots=1)
    for job_id in job_ids:
        service.checkpointed(job_id)
    (runner,) = service.runners()
    return job_ids, runner


def order(service, command, job_id):
    with service.database.write() as tx:
        return getattr(jobs, command)(tx, job_id).status


def test_jobs_that_differ_in_their_seed_train_in_one_process_and_come_to_their_own_ends(service, alone):
    job_ids, _ = together(service)
    ended_well(service, job_ids, alone)
    for job_id in job_ids:
        (attempt,) = service.attempts(job_id)
        assert (attempt.together_with, attempt.outcome, beside(service, job_id)) == (job_ids[0], "finish", 3)
    assert service.job(job_ids[1])["progress"]["fraction"] == 1
    assert any(f"together with {job_ids[0]}" in event["message"] for event in service.events(job_ids[1]))


def test_one_is_paused_and_one_cancelled_and_the_others_go_on(service, alone):
    job_ids, runner = together(service)
    assert order(service, "pause", job_ids[0]) == "pausing"
    assert order(service, "cancel", job_ids[2]) == "cancelling"
    job = eventually(lambda: (job := service.job(job_ids[0]))["status"] == "paused" and job)
    assert eventually(lambda: service.job(job_ids[2])["status"] == "cancelled")
    assert not gone(runner)
    stored, *_ = service.checkpoints(job_ids[0])
    assert stored.step == job["progress"]["step"] > 0
    assert order(service, "resume", job_ids[0]) == "queued"
    ended_well(service, job_ids[:2], alone[:2])
    first, second = service.two_attempts(job_ids[0])
    assert (first.outcome, second.first_step, beside(service, job_ids[0])) == ("paused", stored.step, None)
    assert [len(service.attempts(job_id)) for job_id in job_ids[1:]] == [1, 1]
    assert service.job(job_ids[2])["error"] is None


def test_when_all_are_cancelled_the_process_is_gone(service):
    job_ids = submit(service, LASTING)
    service.start_worker(slots=1)
    for job_id in job_ids:
        service.training(job_id)
    (runner,) = service.runners()
    for job_id in job_ids:
        order(service, "cancel", job_id)
    for job_id in job_ids:
        assert service.ended(job_id)["status"] == "cancelled"
    eventually(lambda: gone(runner))
    eventually(lambda: list(service.settings.attempts_dir.iterdir()) == [])


def test_a_killed_process_is_followed_by_lone_ones_that_go_on_where_it_was(service, alone):
    job_ids, runner = together(service)
    known = {job_id: service.checkpoints(job_id)[-1].step for job_id in job_ids}
    runner.kill()
    ended_well(service, job_ids, alone)
    for job_id in job_ids:
        first, second = service.two_attempts(job_id)
        assert (first.outcome, second.outcome, second.together_with) == ("killed", "finish", None)
        assert second.first_step >= known[job_id]


@pytest.mark.parametrize(("number", "outcome"), [(signal.SIGTERM, "preempted"), (signal.SIGKILL, "lost_worker")])
def test_a_worker_that_ends_takes_the_process_along_and_every_job_goes_on(service, alone, number, outcome):
    job_ids, runner = together(service)
    (worker,) = service.workers
    worker.send_signal(number)
    worker.wait(30)
    eventually(lambda: gone(runner))
    service.start_worker()
    ended_well(service, job_ids, alone)
    for job_id in job_ids:
        first, second = service.two_attempts(job_id)
        assert (first.outcome, second.outcome, second.first_step > 0) == (outcome, "finish", True)
