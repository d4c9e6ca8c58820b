"""The whole service on both databases: the same numbers as without it, bit for bit, and nothing left behind."""

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from creditlab.client import Client
from tests.stack import LONG_SPEC, QUICK_SPEC, creditlab, poll, up

SPEC = QUICK_SPEC | {
    "controls": ["bp", "shallow"],
    "model": {"name": "mlp", "hidden": [64, 32], "dropout": 0.1, "batch_norm": True},
    "optimizer": {"name": "adam", "lr": 0.001, "schedule": {"name": "cosine"}},
    "alignment": {"every": 5, "samples": 64},
}
CLOCKED = ("train_seconds", "step_ms_median", "samples_per_second")


def numbers(results: dict) -> dict:
    """Everything of the results that does not depend on the clock or on names."""
    return {
        "test": results["test"],
        "train": results["train"],
        "alignment": results["alignment"],
        "cost": {name: value for name, value in results["cost"].items() if name not in CLOCKED},
        "pairing": results["pairing"] | {"twins": [{**twin, "job_id": None} for twin in results["pairing"]["twins"]]},
        "environment": results["environment"],
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run without the service: its results, its metrics and the hash of its weights."""
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("alone")
    told = creditlab(
        "run",
        "-",
        "--json",
        "--out",
        str(folder),
        env={"CREDITLAB_DATA_DIR": str(folder / "data")},
        stdin=json.dumps(SPEC),
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout), pq.read_table(folder / "metrics.parquet"), sha256(folder / "model.safetensors")


def rows(series: list) -> set:
    return {(one["name"], one["layer"], *point) for one in series for point in one["points"]}


@pytest.mark.slow
def test_the_whole_service(alone, fresh_url, tmp_path):
    results, table, weights = alone
    with up(tmp_path / "data", database_url=fresh_url) as service, Client(service.url) as lab:
        job = lab.submit(SPEC)
        assert lab.wait(job["id"], timeout=120)["status"] == "succeeded"
        for twin in job["twins"]:
            assert lab.wait(twin["job_id"], timeout=120)["status"] == "succeeded"

        assert numbers(lab.results(job["id"])) == numbers(results)
        columns = [table.column(name).to_pylist() for name in table.column_names]
        assert rows(lab.metrics(job["id"])["series"]) == set(zip(*columns, strict=True))
        assert lab.alignment(job["id"])["steps"] == [0, 5, 10, 15, 20]

        for artifact in lab.artifacts(job["id"])["data"]:
            assert sha256(lab.download(job["id"], artifact["name"], tmp_path)) == artifact["sha256"]
        assert sha256(tmp_path / "model.safetensors") == weights

        long = lab.submit(LONG_SPEC)
        poll(lambda: lab.get(long["id"])["progress"]["step"])
        lab.cancel(long["id"])
        assert lab.wait(long["id"], timeout=30)["status"] == "cancelled"

        left = lab.submit(LONG_SPEC)
        poll(lambda: lab.get(left["id"])["progress"]["step"])
        assert service.stop() == 0  # waits until every process is gone, the training one too
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/livez")


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_url(request, tmp_path):
    from tests.conftest import fresh_database

    with fresh_database(request.param, request, tmp_path) as url:
        yield url
