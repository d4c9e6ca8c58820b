"""One trace from the POST through the worker to the end of the training, received by a real collector."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from creditlab.broker import free_port
from tests.factories import TINY
from tests.otlp import Collector, Received, collecting
from tests.service import DEADLINE, LONG, Service, eventually

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@contextmanager
def api_of(service: Service, log: Path) -> Iterator[httpx.Client]:
    """A client of an API process of the service."""
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "api", "--port", str(port)],
            env=os.environ | service.settings.environment(),
            stderr=out,
        )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return client.get("/livez").is_success
        except httpx.TransportError:
            return False

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as client:
        eventually(answers)
        yield client
    process.terminate()
    process.wait(DEADLINE)


def of_job(collector: Collector, job_id: str, name: str) -> list[Received]:
    return [span for span in collector.named(name) if span.about.get("creditlab.job_id") == job_id]


@pytest.mark.slow
def test_from_the_request_to_the_last_artifact(own_service: Service, tmp_path: Path) -> None:
    service, log = own_service, tmp_path / "api.log"
    with collecting() as collector:
        service.settings = service.settings.model_copy(update={"traces_endpoint": collector.url})
        service.start_worker(slots=1)
        with api_of(service, log) as client:
            called = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            quick, long = (
                client.post("/v1/jobs", json=TINY | fields, headers=headers).json()["id"]
                for fields, headers in (({}, called), (LONG, {}))
            )
            service.ended(quick)
            service.training(long)
            (process,) = service.runners()
            process.kill()
            eventually(lambda: service.job(long)["attempt"] == 2 and service.training(long))
            client.post(f"/v1/jobs/{long}/cancel")
            service.ended(long)
        service.workers[0].terminate()
        assert service.workers[0].wait(DEADLINE) == 0
        check_the_quick_one(collector, quick)
        trace = check_the_killed_one(collector, long)
    check_the_logs(service.log, log, quick, {TRACE, trace})


def check_the_quick_one(collector: Collector, job_id: str) -> None:
    (posted,) = collector.named("POST /v1/jobs", TRACE)
    assert posted.about["http.response.status_code"] == 202
    (claim,), (attempt,) = of_job(collector, job_id, "claim"), of_job(collector, job_id, "attempt")
    assert (posted.parent, posted.service) == (CALLER, "creditlab-api")
    for span in (claim, attempt):
        assert (span.trace, span.parent, span.service) == (TRACE, posted.id, "creditlab-worker")
    about = {"job_id": job_id, "attempt": 1, "method": "dfa", "model": "mlp", "dataset": "fashion-mnist-mini"}
    known = {f"creditlab.{name}": value for name, value in about.items()}
    assert claim.about == known
    assert attempt.about == known | {"creditlab.outcome": "finish"}
    assert attempt.status != 2
    parts = sorted((span for span in collector.spans if span.parent == attempt.id), key=lambda span: span.began)
    names = [span.name for span in parts if span.name != "checkpoint"]
    assert names == ["startup", "epoch", "epoch", "write artifacts", "store artifacts"]
    assert [span.about["creditlab.epoch"] for span in parts if span.name == "epoch"] == [1.0, 2.0]
    assert [span.about["creditlab.step"] for span in parts if span.name == "epoch"] == [10, 20]
    moments = [moment for span in parts for moment in (span.began, span.ended)]
    assert attempt.began <= min(moments)
    assert max(moments) <= attempt.ended
    assert [span.began for span in parts] == sorted(span.began for span in parts)
    assert posted.began <= claim.began <= claim.ended <= attempt.began


def check_the_killed_one(collector: Collector, job_id: str) -> str:
    first, second = sorted(of_job(collector, job_id, "attempt"), key=lambda span: span.began)
    assert first.trace == second.trace != TRACE
    (posted,) = collector.named("POST /v1/jobs", first.trace)
    assert {first.parent, second.parent} == {posted.id}
    told = [
        (span.about["creditlab.attempt"], span.about["creditlab.outcome"], span.status == 2) for span in (first, second)
    ]
    assert told == [(1, "killed", True), (2, "stopped", False)]
    return first.trace


def check_the_logs(worker: Path, api: Path, job_id: str, traces: set[str]) -> None:
    lines = [
        json.loads(line) for line in worker.read_text().splitlines() if line.startswith("{")
    ]  # Celery says goodbye
    starts = [line for line in lines if line["message"].startswith("attempt starts")]
    assert {line["trace_id"] for line in starts} == traces
    assert [(line["job_id"], line["attempt"]) for line in starts[:1]] == [(job_id, 1)]
    asked = [json.loads(line) for line in api.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in asked if line.get("trace_id") == TRACE and line.get("path") == "/v1/jobs"]
    assert line["request_id"].startswith("req_")
