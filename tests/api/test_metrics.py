"""What Prometheus reads: true values, and never more series because of what users send."""

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from api import metrics
from lab import attempts, counters, jobs, tables
from lab.db import now
from lab.reconciler import Reconciler
from lab.settings import Settings
from tests import factories
from tests.api.conftest import Service, eventually, serving

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cached, and the reconciler keeps away."""
    monkeypatch.setattr(metrics, "CACHE_SECONDS", -1.0)


def scrape(service: Service) -> Series:
    answer = service.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    assert all(sample.name.startswith("creditlab_") for sample in samples)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def value(series: Series, name: str, **labels: str) -> float:
    return series[f"creditlab_{name}", tuple(sorted(labels.items()))]


def finish(service: Service, attempt: attempts.Attempt, milliseconds: float) -> None:
    results = factories.results() | {"cost": {"step_ms_median": milliseconds}}
    with service.database.write() as tx:
        attempts.finish(tx, attempt, results, [])


def test_values_after_a_scenario(service: Service) -> None:
    for milliseconds in (4.0, 2.0, 9.0):
        service.submit()
        finish(service, service.claim(), milliseconds)
    service.submit(training={"device": "cuda", "epochs": 1})
    for _ in range(3):
        service.submit()
    service.claim()
    with service.database.write() as tx:
        moment = now(tx)
        worker = tables.Worker(id="wrk_test", host="h", pid=1, version="1", slots=3, cuda=False)
        worker.started_at = worker.heartbeat_at = moment
        worker.gpus = [factories.gpu(), factories.gpu(index=1, power_watts=None)]
        tx.add(worker)
        queued = update(tables.Job).where(tables.Job.status == "queued")
        tx.execute(queued.values(created_at=moment - timedelta(hours=1), rung_at=moment + timedelta(hours=1)))
        counters.count(tx, "fenced_writes", 2)
    told = scrape(service)
    assert value(told, "database_up") == 1
    counts = {status: value(told, "jobs", status=status) for status in ("queued", "running", "succeeded", "failed")}
    assert counts == {"queued": 3, "running": 1, "succeeded": 3, "failed": 0}
    assert [value(told, "queue_depth", queue=queue) for queue in ("default", "cuda")] == [2, 1]
    assert value(told, "queue_age_seconds") >= 3600
    assert value(told, "running_attempts") == 1
    assert 0 <= value(told, "lease_age_seconds") <= 60
    assert value(told, "unrung_bells") == 0
    assert (value(told, "workers"), value(told, "free_slots")) == (1, 2)
    assert value(told, "step_seconds", method="dfa") == 0.004
    assert value(told, "fenced_writes_total") == 2
    assert value(told, "reconciler_requeues_total") == 0
    assert value(told, "open_streams") == 0
    assert {outcome: number for (name, ((_, outcome),)), number in labelled(told, "attempts_total")} == {
        **dict.fromkeys(counters.ATTEMPTS.values(), 0),
        "finish": 3,
    }
    first, second = ({"host": "h", "gpu": str(index), "model": "H100"} for index in (0, 1))
    assert value(told, "gpu_memory_used_bytes", **first) == 3 * 2**30
    assert value(told, "gpu_memory_total_bytes", **second) == 80 * 2**30
    assert value(told, "gpu_utilization", **first) == 0.75
    assert value(told, "gpu_temperature_celsius", **first) == 61
    assert value(told, "gpu_power_watts", **first) == 312.5
    assert value(told, "gpu_energy_joules_total", **first) == 1000.5
    assert len(labelled(told, "gpu_power_watts")) == 1, "what a driver does not tell is missing, not 0"
    with service.database.write() as tx:
        tx.execute(update(tables.Worker).values(heartbeat_at=now(tx) - timedelta(minutes=1)))
    assert not any("_gpu_" in name for name, _ in scrape(service)), "a worker that is gone"


def labelled(series: Series, name: str) -> list[tuple[tuple[str, tuple[tuple[str, str], ...]], float]]:
    return [(one, value) for one, value in series.items() if one[0] == f"creditlab_{name}"]


def test_what_the_reconciler_requeues_is_counted(service: Service) -> None:
    service.submit()
    service.claim()
    with service.database.write() as tx:
        tx.execute(update(tables.Job).values(lease_expires_at=now(tx) - timedelta(seconds=1)))
    reconciler = Reconciler(
        service.database, service.settings, service.app.state.store
    )  # or the service's own, whoever is first
    reconciler.calm.since = float("-inf")
    eventually(lambda: bool(reconciler.tick()) or value(scrape(service), "running_attempts") == 0)
    assert value(scrape(service), "reconciler_requeues_total") == 1
    assert value(scrape(service), "jobs", status="queued") == 1


def test_requests_by_method_template_and_status(service: Service) -> None:
    job_id = service.submit()

    def count(method: str, route: str, status: int) -> float:
        labels = {"method": method, "route": route, "status": str(status)}
        return scrape(service).get(("creditlab_http_request_seconds_count", tuple(sorted(labels.items()))), 0.0)

    for arguments, labels in (
        (("GET", f"/v1/jobs/{job_id}"), ("GET", "/v1/jobs/{job_id}", 200)),
        (("HEAD", f"/v1/jobs/{job_id}"), ("GET", "/v1/jobs/{job_id}", 200)),
        (("GET", "/v1/jobs/none"), ("GET", "/v1/jobs/{job_id}", 404)),
        (("GET", "/nowhere"), ("GET", "none", 404)),
        (("GET", "/v1/jobs?limit=0"), ("GET", "/v1/jobs", 422)),
        (("DELETE", "/v1/methods"), ("DELETE", "/v1/methods", 405)),
        (("BREW", "/coffee"), ("other", "none", 404)),
        (("POST", "/v1/jobs"), ("POST", "/v1/jobs", 400)),
    ):
        before = count(*labels)
        service.client.request(*arguments)
        assert count(*labels) == before + 1, arguments
    before = count("POST", "none", 415)
    service.client.post("/v1/jobs", content=b"x", headers={"Content-Type": "text/plain"})
    assert count("POST", "none", 415) == before + 1


def test_no_series_because_of_what_users_send(service: Service) -> None:
    def send(number: int) -> None:
        service.client.get(f"/v1/jobs/job_{number}")
        service.client.get(f"/unknown/{number}")
        service.client.request(f"M{number}", "/v1/jobs")

    def submit(number: int) -> None:
        with service.database.write() as tx:
            jobs.submit(tx, factories.tiny(name=f"name {number}", labels={f"key{number}": f"value{number}"}))

    send(0)
    submit(0)
    scrape(service)
    before = scrape(service).keys()
    for number in range(1, 1001):
        send(number)
    for number in range(1, 20):
        submit(number)
    assert scrape(service).keys() == before


def test_without_the_database(alone: Settings) -> None:
    missing = alone.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    with serving(missing) as service:
        told = scrape(service)
    assert value(told, "database_up") == 0
    assert not any(name == "creditlab_jobs" for name, _ in told)


def test_openmetrics_for_those_who_ask(shared: Service) -> None:
    answer = shared.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
