"""Submitting, listing, reading, cancelling and deleting jobs over HTTP."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select

from api import schemas
from lab import attempts, jobs, reads, specs, tables
from lab.settings import Settings
from lab.states import State
from tests import factories
from tests.api.conftest import Service, assert_problem, serving
from tests.api.wrong import OK


def test_submit(service: Service) -> None:
    answer = service.client.post("/v1/jobs", json=factories.TINY | {"name": "first", "labels": {"table": "1"}})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["retry-after"] == "2"
    assert (job["object"], job["status"], job["name"], job["labels"]) == ("job", "queued", "first", {"table": "1"})
    assert job["spec"] == specs.to_dict(specs.from_dict(job["spec"]))
    assert set(job) == set(schemas.Job.model_fields)
    assert set(job["progress"]) == set(schemas.Progress.model_fields)
    assert service.client.get(answer.headers["location"]).json() == job
    assert datetime.fromisoformat(job["created_at"]).utcoffset() == UTC.utcoffset(None)


def test_three_bare_names_are_a_job(service: Service) -> None:
    job = service.client.post("/v1/jobs", json=OK).json()
    assert job["spec"]["method"]["name"] == "dfa"
    assert isinstance(job["spec"]["training"]["seed"], int)
    assert job["spec"]["training"]["threads"] == service.settings.threads


def test_controls_are_jobs_of_their_own(service: Service) -> None:
    job = service.client.post("/v1/jobs", json=factories.TINY | {"controls": ["bp", "shallow"]}).json()
    assert [twin["method"] for twin in job["twins"]] == ["bp", "shallow"]
    twin = service.client.get(f"/v1/jobs/{job['twins'][0]['job_id']}").json()
    assert twin["spec"] == job["spec"] | {"method": {"name": "bp"}, "controls": [], "name": twin["name"]}


@pytest.mark.parametrize("flag", ["true", "1"])
def test_dry_run_stores_nothing(service: Service, flag: str) -> None:
    answer = service.client.post(f"/v1/jobs?dry_run={flag}", json=factories.TINY)
    estimate = answer.json()
    assert answer.status_code == 200
    assert set(estimate) == set(schemas.Estimate.model_fields)
    assert estimate["object"] == "estimate"
    assert estimate["parameters"] == 784 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    assert estimate["flops_per_step"] > 2 * 50 * 784 * 16
    assert estimate["spec"]["training"]["seed"] == 1
    assert estimate["peak_memory_bytes"] > estimate["saved_activation_bytes"] > 0
    assert (estimate["estimated_from"], estimate["warnings"]) == ("analytic", [])
    assert set(service.rows().values()) == {0}


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"max_runtime_seconds": 1e-6}, "#/max_runtime_seconds"),
        ({"model": {"name": "mlp", "hidden": [65_536] * 20}, "max_runtime_seconds": 3e7}, "#/model"),
    ],
)
def test_what_cannot_be_is_refused(service: Service, query: str, fields: dict[str, Any], pointer: str) -> None:
    answer = service.client.post(f"/v1/jobs{query}", json=factories.TINY | fields)
    document = assert_problem(answer, 422, "invalid_spec")
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert set(service.rows().values()) == {0}


def test_a_spec_that_was_answered_can_be_sent_again(service: Service) -> None:
    first = service.client.post("/v1/jobs", json=OK).json()
    second = service.client.post("/v1/jobs", json=first["spec"]).json()
    assert second["spec"] == first["spec"]


@pytest.fixture
def deaf(alone: Settings) -> Iterator[Service]:
    """The API while nothing listens where its broker should be."""
    with serving(alone.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})) as running:
        yield running


def test_without_the_broker_nothing_is_accepted(deaf: Service) -> None:
    before = deaf.rows()
    answer = deaf.client.post("/v1/jobs", json=factories.TINY)
    document = assert_problem(answer, 503, "broker_unavailable")
    assert document["type"] == "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
    assert int(answer.headers["retry-after"]) >= 1
    assert deaf.rows() == before
    assert deaf.client.post("/v1/jobs?dry_run=true", json=factories.TINY).status_code == 200
    assert deaf.client.get("/v1/jobs").status_code == 200
    assert_problem(deaf.client.post("/v1/jobs", json={}), 422, "invalid_spec")


def test_cancel_of_a_queued_job(service: Service) -> None:
    job_id = service.submit()
    answer = service.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    document = assert_problem(service.client.post(f"/v1/jobs/{job_id}/cancel"), 409, "wrong_state")
    assert document["job_status"] == "cancelled"
    assert set(document["allowed"]) == {"queued", "running", "pausing", "paused", "cancelling"}


def test_cancel_of_a_running_job(service: Service) -> None:
    job_id = service.submit()
    attempt = service.claim()
    for _ in range(2):
        answer = service.client.post(f"/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    with service.database.write() as tx:
        attempts.stopped(tx, attempt)
    assert service.client.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_delete(service: Service) -> None:
    job_id = service.submit()
    document = assert_problem(service.client.delete(f"/v1/jobs/{job_id}"), 409, "wrong_state")
    assert set(document["allowed"]) == {"succeeded", "failed", "cancelled"}
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    answer = service.client.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert_problem(service.client.get(f"/v1/jobs/{job_id}"), 404, "not_found")
    assert_problem(service.client.delete(f"/v1/jobs/{job_id}"), 404, "not_found")


def test_failed_job_says_why(service: Service) -> None:
    job_id = service.submit()
    attempt = service.claim()
    with service.database.write() as tx:
        attempts.fail(tx, attempt, "diverged", "the loss is not finite at step 3")
    job = service.client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "failed"
    assert job["error"] == {"code": "diverged", "message": "the loss is not finite at step 3"}


# ---- lists -----------------------------------------------------------------------------------------------------------

METHODS, TABLES = ["bp", "fa", "dfa"], ["1", "2", "a:b"]


def fill(service: Service, count: int, chance: random.Random) -> None:
    """Jobs of all kinds, some of them ended."""
    with service.database.write() as tx:
        for _ in range(count):
            labels = {"table": chance.choice(TABLES)} | ({"run": "x"} if chance.random() < 0.5 else {})
            run = factories.tiny(method=chance.choice(METHODS), labels=labels)
            job = jobs.submit(tx, run)
            if chance.random() < 0.3:
                jobs.cancel(tx, job.id)


def everything(service: Service) -> list[dict[str, Any]]:
    with service.database.read() as tx:
        ids = tx.scalars(select(tables.Job.id))
        return [reads.job_view(tx, job_id) for job_id in sorted(ids, reverse=True)]


def matches(job: dict[str, Any], query: list[tuple[str, str]]) -> bool:
    statuses = [value for name, value in query if name == "status"]
    labels = [value.partition(":")[::2] for name, value in query if name == "label"]
    named = {name: value for name, value in query if name in {"method", "model", "dataset"}}
    return (
        (not statuses or job["status"] in statuses)
        and all(job["labels"].get(key) == value for key, value in labels)
        and all(job["spec"][name]["name"] == value for name, value in named.items())
    )


def random_query(chance: random.Random) -> list[tuple[str, str]]:
    query = [("status", status) for status in ("queued", "cancelled", "failed") if chance.random() < 0.3]
    query += [("label", f"table:{chance.choice(TABLES)}")] if chance.random() < 0.4 else []
    query += [("label", "run:x")] if chance.random() < 0.4 else []
    query += [("method", chance.choice(METHODS))] if chance.random() < 0.4 else []
    query += [("dataset", "fashion-mnist-mini")] if chance.random() < 0.3 else []
    return query


def test_pages_joined_are_the_filtered_list(service: Service) -> None:
    """Jobs that come or end between two pages neither shift nor repeat what matched before the first."""
    chance = random.Random(7)
    fill(service, 60, chance)
    for _ in range(25):
        query, limit = random_query(chance), chance.randint(1, 12)
        expected = [job["id"] for job in everything(service) if matches(job, query)]
        seen: list[str] = []
        cursor: list[tuple[str, str]] = []
        while True:
            answer = service.client.get("/v1/jobs", params=[*query, ("limit", str(limit)), *cursor])
            page = answer.json()
            assert set(page) == set(schemas.JobPage.model_fields)
            assert all(matches(job, query) for job in page["data"])
            seen += [job["id"] for job in page["data"]]
            assert page["has_more"] == (page["next"] is not None) == ("link" in answer.headers)
            if not page["has_more"]:
                break
            assert len(page["data"]) == limit
            fill(service, 1, chance)
            assert service.client.get(answer.links["next"]["url"]).status_code == 200
            cursor = [("after", page["next"])]
        assert seen == expected


def test_a_cursor_belongs_to_its_filters(service: Service) -> None:
    fill(service, 5, random.Random(1))
    cursor = service.client.get("/v1/jobs", params={"limit": 1, "dataset": "fashion-mnist-mini"}).json()["next"]
    other = service.client.get("/v1/jobs", params={"limit": 1, "after": cursor})
    assert_problem(other, 400, "cursor_mismatch")
    for place in range(0, len(cursor), 5):
        altered = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        answer = service.client.get("/v1/jobs", params={"dataset": "fashion-mnist-mini", "after": altered})
        assert_problem(answer, 400, "bad_cursor")
    order = [("status", "queued"), ("status", "failed"), ("limit", "1")]
    cursor = service.client.get("/v1/jobs", params=order).json()["next"]
    turned = [("after", cursor), ("status", "failed"), ("status", "queued"), ("limit", "7")]
    assert service.client.get("/v1/jobs", params=turned).status_code == 200


def test_created_after(service: Service) -> None:
    first, second = (service.submit() for _ in range(2))
    created = service.client.get(f"/v1/jobs/{first}").json()["created_at"]
    found = service.client.get("/v1/jobs", params={"created_after": created}).json()["data"]
    assert [job["id"] for job in found] == [second]
    east = datetime.fromisoformat(created).astimezone(timezone(timedelta(hours=5))).isoformat()
    assert service.client.get("/v1/jobs", params={"created_after": east}).json()["data"][0]["id"] == second


def test_unknown_values_match_nothing(service: Service) -> None:
    service.submit()
    for query in ("method=nope", "model=nope", "dataset=nope", "study=study_1", "label=a:b", "status=failed"):
        page = service.client.get(f"/v1/jobs?{query}").json()
        assert page == {"object": "list", "data": [], "has_more": False, "next": None}


def test_newest_first_and_twenty_by_default(service: Service) -> None:
    fill(service, 25, random.Random(3))
    page = service.client.get("/v1/jobs").json()
    ids = [job["id"] for job in page["data"]]
    assert len(ids) == 20
    assert ids == sorted(ids, reverse=True)


def test_the_documented_states_are_the_states_there_are(shared: Service) -> None:
    documented = shared.client.get("/openapi.json").json()["components"]["schemas"]["State"]["enum"]
    assert documented == [state.value for state in State]
    assert len(documented) == 8
