"""The client against the real API: pages, waiting, errors, downloads."""

import os
import sys
from pathlib import Path

import pytest

from creditlab import processes
from creditlab.broker import free_port
from creditlab.client import ApiError, Client, Unreachable
from lab.settings import Settings
from tests.stack import LONG_SPEC, QUICK_SPEC, poll


@pytest.fixture(scope="module")
def idle(broker, migrated_sqlite, tmp_path_factory):
    """A client of an API that has no worker, so that jobs stay queued."""
    folder = tmp_path_factory.mktemp("idle")
    (folder / "creditlab.db").write_bytes(Path(migrated_sqlite).read_bytes())
    settings = Settings(data_dir=folder, broker_url=broker.url, threads=1)
    port = free_port()
    with (folder / "api.log").open("wb") as log:
        command = [sys.executable, "-m", "api", "--port", str(port)]
        api = processes.start(command, env=os.environ | settings.environment(), output=log)
    with Client(f"http://127.0.0.1:{port}/") as client:
        poll(lambda: reachable(client))
        yield client
    processes.stop(api, grace=10)


def reachable(client):
    try:
        return client.page(limit=1)
    except Unreachable:
        return None


@pytest.fixture
def lab(service):
    with Client(service.url) as client:
        yield client


def test_pages_are_joined(idle):
    ids = [idle.submit(QUICK_SPEC | {"labels": {"batch": "pages"}})["id"] for _ in range(103)]
    idle.submit(QUICK_SPEC)
    assert [job["id"] for job in idle.list(label="batch:pages")] == ids[::-1]
    assert [job["id"] for job in idle.list(label="batch:pages", limit=101)] == ids[:1:-1]
    assert list(idle.list(label="batch:none")) == []
    page = idle.page(limit=2, label="batch:pages")
    assert page["has_more"]
    assert [job["id"] for job in idle.page(limit=2, label="batch:pages", after=page["next"])["data"]] == ids[-3:-5:-1]


def test_waiting_ends_in_time(idle):
    job = idle.submit(QUICK_SPEC)
    with pytest.raises(TimeoutError, match="is queued after"):
        idle.wait(job["id"], timeout=0.1)
    assert idle.get(job["id"], wait=0.1)["status"] == "queued"


def test_a_problem_is_an_error_with_all_it_says(idle):
    with pytest.raises(ApiError, match="not valid") as caught:
        idle.submit({"method": "dfa", "model": "mlp", "dataset": "mnst"})
    assert caught.value.status == 422
    assert caught.value.code == "invalid_spec"
    assert caught.value.problem["errors"][0]["pointer"] == "#/dataset"
    with pytest.raises(ApiError) as caught:
        idle.get("job_00000000000000000000000000")
    assert caught.value.status == 404


def test_nobody_there():
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Unreachable, match="no CreditLab service"):
        client.datasets()


def test_a_whole_job(lab, finished, tmp_path):
    job = lab.wait(finished)
    assert job["status"] == "succeeded"
    assert [event["seq"] for event in lab.events(finished)] == list(range(1, len(list(lab.events(finished))) + 1))
    assert len(list(lab.events(finished, after_seq=1))) == len(list(lab.events(finished))) - 1
    matrix = lab.alignment(finished, "delta_angle")
    assert matrix["layers"] == ["hidden1", "hidden2", "output"]
    cosines = lab.metrics(finished, ["alignment/delta_angle"])["series"]
    assert [row["points"][-1][2] for row in cosines if row["layer"] == "hidden1"] == [matrix["values"][0][-1]]
    into, to = (
        lab.download(finished, "spec.json", tmp_path),
        lab.download(finished, "spec.json", tmp_path / "other.json"),
    )
    assert into == tmp_path / "spec.json"
    assert into.read_bytes() == to.read_bytes()
    assert lab.method("dfa")["name"] == "dfa"
    assert {method["name"] for method in lab.methods()["data"]} >= {"bp", "shallow", "fa", "dfa"}


def test_cancel(lab):
    job = lab.submit(LONG_SPEC)
    poll(lambda: lab.get(job["id"])["status"] == "running")
    lab.cancel(job["id"])
    assert lab.wait(job["id"], timeout=30)["status"] == "cancelled"
