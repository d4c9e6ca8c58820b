"""What a job has measured, logged and left, over HTTP."""

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from api import schemas
from api.routes.series import Metric
from lab import attempts, reads
from tests import factories
from tests.api.conftest import Service, assert_problem

REPORT = b"<!doctype html><script>alert(1)</script>" + b"x" * 200_000


def trained(service: Service) -> tuple[str, attempts.Attempt]:
    """A job in the middle of its training."""
    job_id = service.submit()
    attempt = service.claim()
    said = [factories.started(), factories.aligned(0, None)]
    said += [factories.progress(*range(1, 11)), factories.aligned(10), factories.evaluated(10)]
    said += [factories.progress(*range(11, 21), loss=0.5), factories.aligned(20, 0.7), factories.evaluated(20, 0.8)]
    with service.database.write() as tx:
        attempts.record(tx, attempt, said)
    return job_id, attempt


def finished(service: Service, **files: bytes) -> str:
    """A job that has succeeded and left files."""
    job_id, attempt = trained(service)
    left = []
    for name, content in files.items():
        location = Path(job_id) / f"attempt-{attempt.fence}" / name
        path = service.settings.artifacts_dir / location
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        kind = {"html": "text/html", "json": "application/json", "png": "image/png"}.get(name.rpartition(".")[2])
        digest = hashlib.sha256(content).hexdigest()
        left.append(attempts.Artifact(name, len(content), digest, kind or "application/octet-stream", str(location)))
    with service.database.write() as tx:
        attempts.finish(tx, attempt, factories.results(), left)
    return job_id


def get(service: Service, path: str) -> dict[str, Any]:
    answer = service.client.get(path)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_metrics(service: Service) -> None:
    job_id, _ = trained(service)
    series = {(one["name"], one["layer"]): one for one in get(service, f"/v1/jobs/{job_id}/metrics")["series"]}
    loss = series["train/loss", None]
    assert loss["total_points"] == 20
    assert loss["downsampled"] is False
    assert loss["points"][0] == [1, 0.1, 1.0]
    assert loss["points"][-1] == [20, 2.0, 0.5]
    assert series["alignment/delta_cosine", "hidden1"]["points"][0] == [0, 0.0, None]
    assert set(loss) == set(schemas.Series.model_fields)


def test_metrics_of_a_window(service: Service) -> None:
    job_id, _ = trained(service)
    path = f"/v1/jobs/{job_id}/metrics"
    window = get(service, f"{path}?series=train/loss,test/loss&from_step=5&to_step=10")["series"]
    assert {one["name"] for one in window} == {"train/loss", "test/loss"}
    assert [point[0] for point in window[0]["points"]] == [5, 6, 7, 8, 9, 10]
    twice = get(service, f"{path}?series=train/loss&series=test/loss&from_step=5&to_step=10")["series"]
    assert twice == window
    assert get(service, f"{path}?series=no/such") == {"series": []}
    few = get(service, f"{path}?series=train/loss&max_points=8")["series"][0]
    assert len(few["points"]) <= 8
    assert few["downsampled"] is True
    assert few["total_points"] == 20


def test_metrics_of_a_new_job(service: Service) -> None:
    assert get(service, f"/v1/jobs/{service.submit()}/metrics") == {"series": []}


@pytest.mark.parametrize("metric", get_args(Metric))
def test_alignment(service: Service, metric: str) -> None:
    job_id, _ = trained(service)
    matrix = get(service, f"/v1/jobs/{job_id}/alignment?metric={metric}")
    assert matrix["metric"] == metric
    assert matrix["layers"] == ["hidden1", "hidden2", "output"]
    assert matrix["steps"] == [0, 10, 20]
    assert [len(row) for row in matrix["values"]] == [3, 3, 3]
    assert set(matrix) == set(schemas.Alignment.model_fields)
    series = get(service, f"/v1/jobs/{job_id}/metrics")["series"]
    name = f"layer/{metric}" if metric == "activation_rms" else f"alignment/{metric}"
    told = {one["layer"]: [point[2] for point in one["points"]] for one in series if one["name"] == name}
    assert told == dict(zip(matrix["layers"], matrix["values"], strict=True))


def test_alignment_by_default(service: Service) -> None:
    job_id, _ = trained(service)
    matrix = get(service, f"/v1/jobs/{job_id}/alignment")
    assert matrix["metric"] == "delta_cosine"
    assert matrix["probe"] == {"samples": 32, "split": "test", "sha256": "b" * 64}
    assert matrix["values"][0] == [None, 0.5, 0.7]
    assert matrix["std"][0] == [0.1, 0.1, 0.1]
    assert get(service, f"/v1/jobs/{service.submit()}/alignment")["values"] == []


def test_every_metric_of_the_store_can_be_asked_for() -> None:
    assert set(get_args(Metric)) == set(reads.METRICS)


def test_results_before_and_after(service: Service) -> None:
    job_id, attempt = trained(service)
    path = f"/v1/jobs/{job_id}/results"
    running = get(service, path)
    assert set(running) == set(schemas.Results.model_fields)
    assert running["status"] == "running"
    assert running["test"] == {"accuracy": 0.8, "loss": 1.0}
    with service.database.write() as tx:
        attempts.finish(tx, attempt, factories.results(0.9), [])
    final = get(service, path)
    assert (final["job_id"], final["status"], final["method"]) == (job_id, "succeeded", "dfa")
    assert final["test"]["accuracy"] == 0.9
    assert len(final["environment"]["spec_sha256"]) == 64


def test_results_change_with_the_twins(service: Service) -> None:
    """The job's own row stays as it is when its twin ends, and the ETag of the results must not."""
    job_id = service.submit(controls=["bp"])
    both = [service.claim(), service.claim()]
    with service.database.write() as tx:
        for attempt in both:
            attempts.record(tx, attempt, [factories.started()])
        attempts.finish(tx, next(a for a in both if a.job_id == job_id), factories.results(0.6), [])
    path = f"/v1/jobs/{job_id}/results"
    before = service.client.get(path)
    with service.database.write() as tx:
        attempts.finish(tx, next(a for a in both if a.job_id != job_id), factories.results(0.8), [])
    after = service.client.get(path, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert before.json()["pairing"]["twins"][0]["gap"] is None
    assert after.json()["pairing"]["twins"][0]["test_accuracy"] == 0.8


def test_events_in_pages(service: Service) -> None:
    job_id = finished(service)
    path = f"/v1/jobs/{job_id}/events"
    log = get(service, path)["data"]
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    assert set(log[0]) == set(schemas.Event.model_fields)
    assert log[-1]["data"]["status"] == "succeeded"
    joined, after = [], 0
    while True:
        page = get(service, f"{path}?after_seq={after}&limit=2")
        joined += page["data"]
        if not page["has_more"]:
            break
        after = page["next"]
    assert joined == log
    assert get(service, f"{path}?after_seq={2**63 - 1}")["data"] == []


# ---- artifacts -------------------------------------------------------------------------------------------------------


def test_artifacts(service: Service) -> None:
    job_id = finished(service, **{"report.html": REPORT, "model.safetensors": b"abc"})
    listed = get(service, f"/v1/jobs/{job_id}/artifacts")
    assert [row["name"] for row in listed["data"]] == ["model.safetensors", "report.html"]
    for row in listed["data"]:
        assert set(row) == set(schemas.Artifact.model_fields)
        answer = service.client.get(row["url"])
        assert hashlib.sha256(answer.content).hexdigest() == row["sha256"]
        assert len(answer.content) == row["size"] == int(answer.headers["content-length"])
        assert answer.headers["etag"] == f'"{row["sha256"]}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert get(service, f"/v1/jobs/{service.submit()}/artifacts")["data"] == []


def test_a_report_cannot_run_scripts(service: Service) -> None:
    job_id = finished(service, **{"report.html": REPORT})
    headers = service.client.get(f"/v1/jobs/{job_id}/artifacts/report.html").headers
    assert headers["content-security-policy"] == "sandbox"
    assert headers["content-disposition"] == 'inline; filename="report.html"'


def test_weights_are_saved_not_shown(service: Service) -> None:
    job_id = finished(service, **{"model.safetensors": b"abc"})
    headers = service.client.get(f"/v1/jobs/{job_id}/artifacts/model.safetensors").headers
    assert headers["content-disposition"] == 'attachment; filename="model.safetensors"'


def test_ranges_join_to_the_file(service: Service) -> None:
    job_id = finished(service, **{"report.html": REPORT})
    path = f"/v1/jobs/{job_id}/artifacts/report.html"
    parts = []
    for start in range(0, len(REPORT), 70_000):
        answer = service.client.get(path, headers={"Range": f"bytes={start}-{start + 69_999}"})
        end = min(start + 70_000, len(REPORT)) - 1
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(REPORT)}"
        parts.append(answer.content)
    assert b"".join(parts) == REPORT
    assert service.client.get(path, headers={"Range": "bytes=-5"}).content == REPORT[-5:]
    assert service.client.get(path, headers={"Range": "bytes=200000-"}).content == REPORT[200_000:]


@pytest.mark.parametrize(
    "wanted", ["bytes=5-3", "bytes=", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "nonsense", "bytes=--1", "bytes=1"]
)
def test_a_range_that_is_none_is_ignored(service: Service, wanted: str) -> None:
    job_id = finished(service, **{"a.bin": b"0123456789"})
    answer = service.client.get(f"/v1/jobs/{job_id}/artifacts/a.bin", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_beyond_the_end(service: Service, wanted: str) -> None:
    job_id = finished(service, **{"a.bin": b"0123456789", "empty.bin": b""})
    answer = service.client.get(f"/v1/jobs/{job_id}/artifacts/a.bin", headers={"Range": wanted})
    assert_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */10"
    empty = service.client.get(f"/v1/jobs/{job_id}/artifacts/empty.bin", headers={"Range": wanted})
    assert_problem(empty, 416, "range_not_satisfiable")


def test_conditional_downloads(service: Service) -> None:
    job_id = finished(service, **{"a.bin": b"0123456789"})
    path = f"/v1/jobs/{job_id}/artifacts/a.bin"
    tag = service.client.get(path).headers["etag"]
    part = {"Range": "bytes=2-3"}
    assert service.client.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert service.client.get(path, headers=part | {"If-Range": tag}).content == b"23"
    assert service.client.get(path, headers=part | {"If-Range": '"other"'}).content == b"0123456789"
    head = service.client.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")


@pytest.mark.parametrize(
    "name", ["%2e%2e", "..%2f..%2fcreditlab.db", "%2fetc%2fpasswd", "a.bin%00", "A.BIN", "a.bin.", "no"]
)
def test_names_are_looked_up_and_never_joined(service: Service, name: str) -> None:
    job_id = finished(service, **{"a.bin": b"x"})
    assert_problem(service.client.get(f"/v1/jobs/{job_id}/artifacts/{name}"), 404, "not_found")


def test_a_file_that_is_gone_is_404(service: Service) -> None:
    job_id = finished(service, **{"a.bin": b"x"})
    next((service.settings.artifacts_dir / job_id).rglob("a.bin")).unlink()
    assert_problem(service.client.get(f"/v1/jobs/{job_id}/artifacts/a.bin"), 404, "not_found")


def test_numbers_keep_their_precision(service: Service) -> None:
    job_id = service.submit()
    attempt = service.claim()
    with service.database.write() as tx:
        attempts.record(tx, attempt, [factories.started(), factories.progress(1, loss=0.1 + 0.2)])
    series = json.loads(service.client.get(f"/v1/jobs/{job_id}/metrics?series=train/loss").content)["series"]
    assert series[0]["points"][0][2] == 0.1 + 0.2
