"""One running service for all tests of the command line and the client."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import QUICK_SPEC, Up, up


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
