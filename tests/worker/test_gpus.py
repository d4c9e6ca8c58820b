"""GPUs as their driver tells of them: read through NVML's own structures from a library that stands in for NVIDIA's."""

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from lab import fleet, gauges, tables
from lab.db import now
from tests.service import Service

READ = "import json, pynvml; from worker import gpus; pynvml.nvmlInit(); print(json.dumps(gpus.read()))"
FIRST = {
    "index": 0,
    "uuid": "GPU-0000-0",
    "name": "Stand-in 0",
    "memory_used_bytes": 3 * 2**30,
    "memory_total_bytes": 80 * 2**30,
    "utilization": 0.75,
    "temperature_celsius": 61,
    "power_watts": 312.5,
    "energy_joules": None,
}
SECOND = FIRST | {
    "index": 1,
    "uuid": "GPU-0000-1",
    "name": "Stand-in 1",
    "memory_used_bytes": 4 * 2**30,
    "utilization": 0.0,
    "temperature_celsius": None,
    "power_watts": None,
}


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library, where processes that are started look for it."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no gcc")
    folder = tmp_path / "driver"
    folder.mkdir()
    source, library = Path(__file__).with_name("nvml.c"), folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-w", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    return library


def workers(service: Service) -> list[dict[str, Any]]:
    with service.database.read() as tx:
        told: list[dict[str, Any]] = fleet.workers(tx)["data"]
    return told


def measured(service: Service) -> list[tuple[str, dict[str, Any]]]:
    with service.database.read() as tx:
        return gauges.take(tx, lease_seconds=4).gpus


def test_what_the_driver_says(driver: Path) -> None:
    told = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(told.stdout) == [FIRST, SECOND]


@pytest.mark.slow
def test_a_workers_gpus_are_shown_as_long_as_it_lives(driver: Path, own_service: Service) -> None:
    own_service.start_worker()
    own_service.start_worker()
    for worker in workers(own_service):
        assert worker["gpus"] == [FIRST, SECOND]
    host = workers(own_service)[0]["host"]
    assert measured(own_service) == [(host, FIRST), (host, SECOND)], "two workers of a host have the same GPUs"
    for process in own_service.workers:
        process.kill()
        process.wait()
    with own_service.database.write() as tx:
        tx.execute(update(tables.Worker).values(heartbeat_at=now(tx) - timedelta(seconds=fleet.ALIVE_SECONDS + 1)))
    assert [worker["gpus"] for worker in workers(own_service)] == [[], []]
    assert measured(own_service) == []


@pytest.mark.slow
def test_without_a_driver_nothing_is_said(own_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    own_service.start_worker()
    assert [worker["gpus"] for worker in workers(own_service)] == [[]]
    assert "GPU" not in own_service.log.read_text()
