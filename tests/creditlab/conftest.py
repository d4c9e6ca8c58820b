"""One running service for all tests of the command line and the client."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from creditlab.broker import EmbeddedBroker, free_port
from creditlab.client import Client, Retries, Unreachable
from lab import processes
from lab.settings import Settings
from tests.stack import QUICK_SPEC, Up, poll, up


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("service") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def finished(service: Up) -> str:
    """Id of a job that has succeeded, as have its twins."""
    spec = QUICK_SPEC | {"controls": ["bp", "shallow"], "labels": {"made": "for tests"}}
    told = service.cli("submit", "-", "--wait", stdin=json.dumps(spec))
    assert told.returncode == 0, told.stderr
    job_id = told.stdout.split()[0]
    for twin in json.loads(service.cli("show", job_id, "--json").stdout)["twins"]:
        assert service.cli("wait", twin["job_id"]).returncode == 0
    return job_id


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(QUICK_SPEC))
    return path


@pytest.fixture(scope="session")
def idle(broker: EmbeddedBroker, migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of an API that has no worker, so that jobs stay queued and messages to webhooks unsent."""
    folder = tmp_path_factory.mktemp("idle")
    (folder / "creditlab.db").write_bytes(migrated_sqlite.read_bytes())
    settings = Settings(data_dir=folder, broker_url=broker.url, threads=1, webhook_allow="127.0.0.0/8")
    port = free_port()
    with (folder / "api.log").open("wb") as log:
        command = [sys.executable, "-m", "api", "--port", str(port)]
        api = processes.start(command, env=os.environ | settings.environment(), output=log)
    with Client(f"http://127.0.0.1:{port}/", retries=Retries(times=0)) as client:
        poll(lambda: reachable(client))
        yield client
    processes.stop(api, grace=10)


def reachable(client: Client) -> bool:
    try:
        return bool(client.page(limit=1))
    except Unreachable:
        return False
