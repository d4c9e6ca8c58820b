"""One trace from the POST through the worker to the end of the training, received by a real collector."""

import json
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.otlp import Collector, Received, collecting
from tests.service import is_group_leader
from tests.stack import LONG_SPEC, QUICK_SPEC, Up, poll, up

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def submit(service: Up, spec: dict[str, Any], **headers: str) -> str:
    job_id: str = httpx.post(f"{service.url}/v1/jobs", json=spec, headers=headers).json()["id"]
    return job_id


def job(service: Up, job_id: str) -> Any:
    return httpx.get(f"{service.url}/v1/jobs/{job_id}").json()


def training_process(service: Up) -> psutil.Process | None:
    worker = service.child("worker")
    assert worker is not None
    return next((one for one in worker.children(recursive=True) if is_group_leader(one.pid)), None)


def of_job(collector: Collector, job_id: str, name: str) -> list[Received]:
    return [span for span in collector.named(name) if span.about.get("creditlab.job_id") == job_id]


@pytest.mark.slow
def test_from_the_request_to_the_last_artifact(tmp_path: Path) -> None:
    with collecting() as collector:
        with up(tmp_path / "data", traces_endpoint=collector.url) as service:
            quick = submit(service, QUICK_SPEC, traceparent=f"00-{TRACE}-{CALLER}-01")
            poll(lambda: job(service, quick)["status"] == "succeeded")
            long = submit(service, LONG_SPEC)
            poll(lambda: job(service, long)["progress"]["step"] > 0)
            process = training_process(service)
            assert process is not None
            process.kill()
            poll(lambda: job(service, long)["attempt"] == 2 and job(service, long)["progress"]["step"] > 0)
            httpx.post(f"{service.url}/v1/jobs/{long}/cancel")
            poll(lambda: job(service, long)["status"] == "cancelled")
        check_the_quick_one(collector, quick)
        trace = check_the_killed_one(collector, long)
    check_the_logs(tmp_path / "data" / "logs", quick, {TRACE, trace})


def check_the_quick_one(collector: Collector, job_id: str) -> None:
    (posted,) = collector.named("POST /v1/jobs", TRACE)
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
    assert [attempt.began, *moments, attempt.ended] == sorted([attempt.began, *moments, attempt.ended])
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


def check_the_logs(folder: Path, job_id: str, traces: set[str]) -> None:
    lines = [json.loads(line) for line in (folder / "worker.log").read_text().splitlines()]
    starts = [line for line in lines if line["message"].startswith("attempt starts")]
    assert {line["trace_id"] for line in starts} == traces
    assert [(line["job_id"], line["attempt"]) for line in starts[:1]] == [(job_id, 1)]
    asked = [json.loads(line) for line in (folder / "api.log").read_text().splitlines()]
    (line,) = [line for line in asked if line.get("trace_id") == TRACE and line.get("path") == "/v1/jobs"]
    assert line["request_id"].startswith("req_")
