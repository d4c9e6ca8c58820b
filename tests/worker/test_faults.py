"""What dies, and what becomes of the jobs: workers, the broker, data sets."""

import signal
import subprocess
import sys

import pytest

from lab.states import State
from tests.factories import TINY
from tests.worker.conftest import LONG, eventually, gone


def attempts(service, ids):
    return [(job["status"], job["attempt"]) for job in (service.ended(job_id) for job_id in ids)]


def test_two_workers_train_each_of_many_jobs_once(own_service):
    service, _ = own_service
    service.start_worker()
    service.start_worker()
    ids = [service.submit(training=TINY["training"] | {"seed": seed}) for seed in range(12)]
    assert attempts(service, ids) == [(State.SUCCEEDED, 1)] * 12


def test_a_restart_of_the_broker_loses_no_job(own_service):
    service, broker = own_service
    service.start_worker(slots=1)
    before = service.submit(training=TINY["training"] | {"epochs": 100})
    service.training(before)
    waiting = service.submit()
    broker.stop()
    unheard = service.submit()
    assert service.ended(before)["status"] == "succeeded", "training does not need the broker"
    broker.start()
    after = service.submit()
    assert attempts(service, [before, waiting, unheard, after]) == [(State.SUCCEEDED, 1)] * 4


def test_a_worker_that_is_shut_down_gives_its_job_back(own_service):
    service, _ = own_service
    worker = service.start_worker()
    job_id = service.submit(training=TINY["training"] | {"epochs": 100})
    service.training(job_id)
    (runner,) = service.runners()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert gone(runner)
    assert service.job(job_id)["status"] == "queued"
    service.start_worker()
    job = service.ended(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)


def test_ctrl_c_ends_a_worker_as_cleanly(own_service):
    service, _ = own_service
    worker = service.start_worker()
    job_id = service.submit(**LONG)
    service.training(job_id)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(30) == 0
    assert service.job(job_id)["status"] == "queued"


def test_a_killed_worker_takes_its_processes_along_and_its_job_runs_elsewhere(own_service):
    service, _ = own_service
    worker = service.start_worker()
    job_id = service.submit(training=TINY["training"] | {"epochs": 100})
    service.training(job_id)
    (runner,) = service.runners()
    worker.kill()
    worker.wait()
    eventually(lambda: gone(runner))
    service.start_worker()
    job = service.ended(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)


def test_a_worker_shuts_down_while_the_broker_is_away(own_service):
    service, broker = own_service
    worker = service.start_worker()
    broker.stop()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_a_data_set_that_is_broken_is_named(own_service, tmp_path):
    service, _ = own_service
    folder = tmp_path / "datasets" / "mnist"
    folder.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{part}-ubyte").write_bytes(b"this is no idx file")
    service.settings = service.settings.model_copy(update={"datasets_dir": tmp_path / "datasets"})
    service.start_worker()
    job = service.ended(service.submit(dataset={"name": "mnist", "train_samples": 500, "test_samples": 100}))
    assert (job["status"], job["error"]["code"]) == ("failed", "dataset_unavailable")
    assert "mnist" in job["error"]["message"].lower()


@pytest.mark.parametrize("module", ["api.app", "worker.__main__", "creditlab.cli"])
def test_only_the_training_process_imports_torch(module):
    script = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
