"""The log of the API: a JSON object a line, by which request and job are found again, and nothing that is secret."""

import json
import logging
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from creditlab.broker import free_port
from lab import logs
from lab.settings import Settings
from tests import factories
from tests.api.conftest import Service, eventually, serving

KEY = "clk_0123456789abcdefghijkl012345"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What this process logs, as its log would have it."""
    written: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(json.loads(logs.JSONLines().format(record)))

    logger, handler = logging.getLogger("creditlab"), Kept()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()
    return written


def test_a_whole_scenario(alone: Settings) -> None:
    """Every line is JSON, requests and jobs are found by their ids, and nothing is told that is secret."""
    port = free_port()
    environment = os.environ | alone.model_copy(update={"webhook_allow": "127.0.0.0/8"}).environment()
    command = [sys.executable, "-m", "api", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    headers = {"Authorization": f"Bearer {KEY}", "Cookie": "session=baked-at-home"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client:
        eventually(lambda: answers(client, process))
        answer = client.post("/v1/jobs", json=factories.TINY | {"name": "a name of mine"})
        job_id, request_id = answer.json()["id"], answer.headers["x-request-id"]
        client.get(f"/v1/jobs/{job_id}", headers={"X-Request-ID": "my-own-request"}, params={"wait": "0.01"})
        client.post("/v1/jobs", json={"method": "a body of mine"})
        client.get("/a%0A%22b?secret=in-a-query", headers={"X-Request-ID": "bad id"})
        hook = client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/path-of-mine"}).json()
        client.post(f"/v1/webhooks/{hook['id']}/rotate")
        client.get("/metrics")
    process.terminate()
    _, log = process.communicate(timeout=20)
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"at", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    of_request = [line for line in lines if line.get("request_id") == request_id]
    assert [line["message"] for line in of_request] == ["submitted", "POST /v1/jobs 202"]
    assert of_request[0]["job_id"] == job_id
    (shown,) = (line for line in lines if line.get("request_id") == "my-own-request")
    assert (shown["job_id"], shown["method"], shown["status"]) == (job_id, "GET", 200)
    assert shown["duration_ms"] > 0
    (odd,) = (line for line in lines if line.get("path") == '/a\n"b')
    assert odd["request_id"].startswith("req_")
    secrets = [KEY, "baked-at-home", "of mine", "in-a-query", "path-of-mine", hook["secret"], alone.secret_key]
    assert [secret for secret in secrets if secret in log] == []
    assert not any(quiet in log for quiet in ("/metrics", "/livez"))


def answers(client: httpx.Client, process: subprocess.Popen[str]) -> bool:
    assert process.poll() is None
    try:
        return client.get("/livez").is_success
    except httpx.TransportError:
        return False


def test_a_fault_is_logged_under_its_request_without_what_was_sent(
    alone: Settings, lines: list[dict[str, Any]]
) -> None:
    def add(app: FastAPI) -> None:
        @app.get("/fault")
        def fault() -> None:
            with app.state.database.write() as tx:
                logging.getLogger("creditlab.api").info("in a thread")
                tx.execute(text("INSERT INTO nowhere VALUES (:value)"), {"value": "a value of mine"})

    with serving(alone, add) as service:
        answer = service.client.get("/fault")
    # a table that is not there is a fault of this service, whatever the database's driver calls it
    assert answer.status_code >= 500
    mine = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert mine[0]["message"] == "in a thread"
    assert mine[-1]["status"] == answer.status_code
    assert "a value of mine" not in json.dumps(lines)


def test_a_waiting_request_is_logged_at_its_end(service: Service, lines: list[dict[str, Any]]) -> None:
    job_id = service.submit()
    service.client.get(f"/v1/jobs/{job_id}?wait=0.05")
    eventually(lambda: any(line.get("path") == f"/v1/jobs/{job_id}" for line in lines))
    line = next(line for line in lines if line.get("path") == f"/v1/jobs/{job_id}")
    assert line["job_id"] == job_id
