"""Health, readiness, the documentation page, and the process itself."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from lab.settings import Settings
from tests import factories
from tests.api.conftest import Service, assert_problem, eventually, serving

CHECKS = {"database", "migrations", "broker", "disk"}


def test_ready(service: Service) -> None:
    answer = service.client.get("/readyz")
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "ready"
    assert set(answer.json()["checks"]) == CHECKS


@pytest.fixture
def crippled(request: pytest.FixtureRequest, alone: Settings) -> Iterator[Service]:
    """The API with one of its needs missing."""
    missing = {
        "broker": {"broker_url": "redis://127.0.0.1:1/0"},
        "migrations": {"database_url": f"sqlite:///{alone.data_dir / 'empty.db'}"},
        "database": {"database_url": "postgresql://nobody@127.0.0.1:1/none"},
    }
    with serving(alone.model_copy(update=missing[request.param])) as running:
        yield running


@pytest.mark.parametrize(
    ("crippled", "failed"),
    [("broker", {"broker"}), ("migrations", {"migrations"}), ("database", {"database", "migrations"})],
    indirect=["crippled"],
)
def test_not_ready_names_what_is_missing(crippled: Service, failed: set[str]) -> None:
    answer = crippled.client.get("/readyz")
    document = assert_problem(answer, 503, "not_ready")
    assert int(answer.headers["retry-after"]) >= 1
    assert set(document["checks"]) == CHECKS
    assert {name for name, check in document["checks"].items() if not check["ok"]} == failed
    assert crippled.client.get("/livez").json() == {"status": "alive"}


@pytest.mark.parametrize("crippled", ["database"], indirect=True)
def test_without_the_database(crippled: Service) -> None:
    for answer in (crippled.client.get("/v1/jobs"), crippled.client.post("/v1/jobs", json=factories.TINY)):
        assert_problem(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) >= 1


def test_documentation_needs_no_network(shared: Service) -> None:
    answer = shared.client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in answer.text
    assert "http://" not in answer.text
    for path in shared.client.get("/openapi.json").json()["paths"]:
        assert path in answer.text


# ---- python -m api ---------------------------------------------------------------------------------------------------


def environment(alone: Settings) -> dict[str, str]:
    return os.environ | alone.environment()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_process_serves_and_stops(alone: Settings) -> None:
    port = free_port()
    command = [sys.executable, "-m", "api", "--port", str(port)]
    process = subprocess.Popen(command, env=environment(alone), stderr=subprocess.PIPE, text=True)

    def answers() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
        except httpx.ConnectError:
            return False

    try:
        eventually(answers)
        job = httpx.post(f"http://127.0.0.1:{port}/v1/jobs", json=factories.TINY).json()
        assert job["status"] == "queued"
    finally:
        process.terminate()
        _, log = process.communicate(timeout=20)
    lines = [json.loads(line) for line in log.splitlines()]
    assert any("POST /v1/jobs" in line["message"] for line in lines)
    assert not any("/livez" in line["message"] for line in lines)
    assert not any("traceback" in line for line in lines)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_process_refuses_to_serve_others(alone: Settings, host: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api", "--host", host],
        env=environment(alone),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "loopback" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("variables", [{"CREDITLAB_AUTH": "maybe"}, {"CREDITLAB_DATABASE_URL": "x://y"}])
def test_process_refuses_settings_it_cannot_serve(alone: Settings, variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api"],
        env=environment(alone) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_api_needs_no_torch() -> None:
    code = "import json, sys, api.app; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
