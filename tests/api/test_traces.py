"""Spans of requests, with nothing that users send; off by default; an endpoint that is down harms nobody."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from creditlab.broker import free_port
from lab import tables
from lab.settings import Settings
from tests.api.conftest import serving
from tests.factories import TINY
from tests.otlp import Collector, collecting

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SERVER, ERROR = 2, 2


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def traced(alone: Settings, url: str) -> Settings:
    return alone.model_copy(update={"traces_endpoint": url})


def test_a_span_for_every_request(alone: Settings, collector: Collector) -> None:
    def add(app: FastAPI) -> None:
        @app.get("/fault/{text}")
        def fault(text: str) -> None:
            raise RuntimeError(text)

    with serving(traced(alone, collector.url), add) as service:
        secret = {"Authorization": "Bearer of-mine", "X-Request-ID": "my-own-request"}
        answer = service.client.post("/v1/jobs", json=TINY | {"name": "name-of-mine"}, headers=CALLED | secret)
        job_id = answer.json()["id"]
        service.client.head(f"/v1/jobs/{job_id}?wait=0.01")
        service.client.get("/v1/jobs?status=of-mine")
        service.client.get("/nowhere/of-mine")
        service.client.get("/fault/of-mine")
        service.client.request("OF-MINE", "/v1/jobs")
        for quiet in ("/livez", "/metrics", "/readyz"):
            service.client.get(quiet)
        with service.database.read() as tx:
            stored = tx.get_one(tables.Job, job_id).traceparent
    posted, *others = collector.spans
    assert (posted.name, posted.trace, posted.parent, posted.kind) == ("POST /v1/jobs", TRACE, PARENT, SERVER)
    assert stored == f"00-{TRACE}-{posted.id}-01"
    assert posted.about == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "http.response.status_code": 202,
        "creditlab.request_id": "my-own-request",
    }
    told = [(span.name, span.about["http.response.status_code"], span.status == ERROR) for span in others]
    assert told == [
        ("GET /v1/jobs/{job_id}", 200, False),
        ("GET /v1/jobs", 422, False),
        ("GET", 404, False),
        ("GET /fault/{text}", 500, True),
        ("_OTHER /v1/jobs", 405, False),
    ]
    assert len({span.trace for span in collector.spans}) == len(collector.spans), "without a caller's, one each"
    assert "mine" not in json.dumps([vars(span) for span in others])
    assert "-of-mine" not in json.dumps(vars(posted))


def test_an_endpoint_that_is_down(alone: Settings) -> None:
    with serving(traced(alone, f"http://127.0.0.1:{free_port()}/v1/traces")) as service:
        assert service.client.post("/v1/jobs", json=TINY, headers=CALLED).status_code == 202
        assert all(service.client.get("/v1/jobs").status_code == 200 for _ in range(20))


def test_a_wrong_traceparent_is_no_fault_of_the_request(alone: Settings, collector: Collector) -> None:
    with serving(traced(alone, collector.url)) as service:
        for wrong in ("", "00-0-0-0", "x" * 5000, f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"):
            assert service.client.get("/v1/jobs", headers={"traceparent": wrong}).status_code == 200
    assert len({span.trace for span in collector.spans} - {TRACE}) == 5
    assert {span.parent for span in collector.spans} == {""}


COMPLAINS = """
import logging, sys
from lab import logs, traces
from lab.settings import Settings
logs.configure()
traces.configure(Settings(traces_endpoint=sys.argv[1]), "test")
for number in range(5000):
    traces.Span("one of many").end()
traces.stop()
"""


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", script, *arguments]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | variables)
    assert told.returncode == 0, told.stderr
    return told


def test_it_does_not_flood_the_log() -> None:
    """Thousands of spans that nobody takes: more than the queue holds, retries, a shutdown; one line of each minute."""
    lines = run(COMPLAINS, f"http://127.0.0.1:{free_port()}").stderr.splitlines()
    (line,) = [json.loads(line) for line in lines]
    assert (line["level"], line["logger"]) == ("warning", "lab.traces")


def test_the_services_name_is_the_operators(collector: Collector) -> None:
    script = COMPLAINS.replace("5000", "1")
    run(script, collector.url, OTEL_SERVICE_NAME="mine")
    run(script, collector.url, OTEL_RESOURCE_ATTRIBUTES="service.name=ours,deployment.environment=test")
    run(script, collector.url)
    assert [span.service for span in collector.spans] == ["mine", "ours", "test"]


OFF = """
import sys
from lab import logs, traces
from lab.settings import Settings
{imports}
settings = Settings(data_dir=sys.argv[1])
traces.configure(settings, "test")
span = traces.Span("attempt", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
with span.current():
    assert traces.traceparent() is None
span.end()
assert span.trace_id is None
traces.stop()
loaded = [name for name in sys.modules if name.startswith({packages})]
assert not loaded, loaded
"""


EXPORTING = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "google.protobuf")
"""What is imported when something is exported. FastAPI and redis import parts of OpenTelemetry by themselves."""


@pytest.mark.parametrize(
    ("imports", "packages"),
    [("", ("opentelemetry",)), ("import worker.__main__", EXPORTING), ("import api.__main__", EXPORTING)],
)
def test_off_by_default_and_not_even_imported(tmp_path: Path, imports: str, packages: tuple[str, ...]) -> None:
    run(OFF.format(imports=imports, packages=packages), str(tmp_path))


@pytest.mark.parametrize("wrong", ["localhost:4318", "grpc://host:4317", "http://", "http://host/?a=b"])
def test_an_endpoint_that_is_none(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"traces_endpoint[\s\S]*such as http://127.0.0.1:4318"):
        Settings(traces_endpoint=wrong)
