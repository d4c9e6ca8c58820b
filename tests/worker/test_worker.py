"""Jobs on a real worker with real training processes, on both databases."""

import hashlib
import json
import os
import signal

from lab import bell, jobs, reads, series, tables
from tests.service import LONG, Service, gone


def test_a_job_trains_to_success_with_metrics_and_files(service: Service):
    job_id = service.submit(controls=["bp", "shallow"])
    job = service.ended(job_id)
    assert job["status"] == "succeeded", job
    for twin in job["twins"]:
        assert service.ended(twin["job_id"])["status"] == "succeeded"
    with service.database.read() as tx:
        results = reads.results(tx, job_id)
        metrics = {(row["name"], row["layer"]): row["points"] for row in series.read(tx, job_id)}
        matrix = reads.alignment(tx, job_id)
        files = {row["name"]: row for row in reads.artifacts(tx, job_id)["data"]}
        folder = service.settings.artifacts_dir
        for name, row in files.items():
            location = reads.artifact(tx, job_id, name).location
            assert hashlib.sha256((folder / location).read_bytes()).hexdigest() == row["sha256"]
    assert [point[0] for point in metrics["train/loss", None]] == [10, 20]
    assert [point[0] for point in metrics["test/accuracy", None]] == [10, 20]
    assert metrics["test/accuracy", None][-1][2] == results["test"]["accuracy"]
    assert matrix["layers"] == ["hidden1", "hidden2", "output"]
    assert matrix["steps"] == [0, 10, 20]
    assert matrix["values"][0] == [point[2] for point in metrics["alignment/delta_cosine", "hidden1"]]
    assert results["alignment"]["probe"] == matrix["probe"]
    assert {"model.safetensors", "spec.json", "results.json", "metrics.parquet", "report.html"} <= set(files)
    assert all(twin["paired"] for twin in results["pairing"]["twins"])
    assert results["pairing"]["recovery"] is not None


def test_fifty_bells_are_one_attempt(service: Service):
    job_id = service.submit()
    bell.ring(["default"] * 50)
    assert service.ended(job_id)["attempt"] == 1


def test_a_cancelled_job_has_no_process_any_more(service: Service):
    job_id = service.submit(**LONG)
    service.training(job_id)
    (runner,) = service.runners()
    with service.database.write() as tx:
        jobs.cancel(tx, job_id)
    job = service.ended(job_id)
    assert gone(runner), "the status says cancelled only when the process is gone"
    assert (job["status"], job["error"]) == ("cancelled", None)
    with service.database.read() as tx:
        assert reads.results(tx, job_id)["train"] is None
        assert series.read(tx, job_id, ["train/loss"])[0]["total_points"] > 0


def test_a_cancelled_process_that_ignores_the_request_is_killed(service: Service):
    job_id = service.submit(**LONG)
    service.training(job_id)
    (runner,) = service.runners()
    runner.send_signal(signal.SIGSTOP)  # it cannot even hear a SIGTERM
    with service.database.write() as tx:
        jobs.cancel(tx, job_id)
    assert service.ended(job_id)["status"] == "cancelled"
    assert gone(runner)


def test_a_run_that_diverges_fails_and_says_so(service: Service):
    job_id = service.submit(
        loss="mse", optimizer={"name": "sgd", "lr": 100}, model={"name": "mlp", "activation": "relu"}
    )
    job = service.ended(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "diverged")
    assert "step" in job["error"]["message"]
    with service.database.read() as tx:
        assert reads.results(tx, job_id)["diagnoses"][0]["code"] == "diverged"
    assert [event["type"] for event in service.events(job_id)].count("diagnosis") == 1


def test_an_exception_in_the_training_fails_with_its_text(service: Service):
    (worker,) = service.workers
    os.kill(worker.pid, signal.SIGSTOP)
    job_id = service.submit()
    with service.database.write() as tx:
        job = tx.get(tables.Job, job_id)
        job.spec = job.spec | {"method": {"name": "magic"}}
    os.kill(worker.pid, signal.SIGCONT)
    job = service.ended(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "magic" in job["error"]["message"]
    assert job["attempt"] == 1
    (line,) = [json.loads(line) for line in service.log.read_text().splitlines() if "training failed" in line]
    assert "magic" in line["traceback"]
    assert (line["logger"], line["job_id"], line["attempt"]) == ("worker.runner", job_id, 1)


def test_too_long_a_run_ends_with_what_it_measured(service: Service):
    job_id = service.submit(**LONG, max_runtime_seconds=3)
    job = service.ended(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "timeout")
    with service.database.read() as tx:
        assert reads.results(tx, job_id)["environment"]["seed"] == 1
