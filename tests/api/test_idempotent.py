"""``Idempotency-Key`` over HTTP: a command that is sent again is answered again, and done once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from lab import idempotency, tables
from tests import factories
from tests.api.conftest import Service, assert_problem


def post(service: Service, key: str = "k", path: str = "/v1/jobs", json: Any = factories.TINY) -> httpx.Response:
    return service.client.post(path, json=json, headers={"Idempotency-Key": key})


def assert_replay(again: httpx.Response, first: httpx.Response) -> None:
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers.get("location") == first.headers.get("location")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers


def test_the_same_request_has_the_same_answer(service: Service) -> None:
    first = post(service)
    assert first.status_code == 202
    assert_replay(post(service), first)
    assert_replay(post(service, '"k"'), first)
    assert_replay(post(service, json=dict(reversed(factories.TINY.items()))), first)
    assert service.rows()["jobs"] == 1


def test_the_answer_stays_when_the_job_moves_on_and_when_it_is_gone(service: Service) -> None:
    first = post(service)
    job = first.json()["id"]
    service.client.post(f"/v1/jobs/{job}/cancel")
    assert_replay(post(service), first)
    service.client.delete(f"/v1/jobs/{job}")
    assert_replay(post(service), first)
    assert service.rows()["jobs"] == 0


def test_commands_have_keys_too(service: Service) -> None:
    job = service.submit()
    cancel = f"/v1/jobs/{job}/cancel"
    first = post(service, path=cancel, json={})
    assert first.json()["status"] == "cancelled"
    assert_replay(post(service, path=cancel, json={}), first)
    assert_replay(service.client.post(cancel, headers={"Idempotency-Key": "k"}), first)
    assert_problem(post(service, "other", cancel, {}), 409, "wrong_state")
    assert post(service, path="/v1/jobs").status_code == 202  # another path, another command


def test_another_request_with_the_key_is_refused(service: Service) -> None:
    first = post(service)
    for path, json in (
        ("/v1/jobs", factories.TINY | {"priority": 1}),
        ("/v1/jobs?dry_run=true", factories.TINY),
        ("/v1/jobs?nonsense=1", factories.TINY),
        ("/v1/jobs", {"method": "nonsense"}),
    ):
        assert_problem(post(service, path=path, json=json), 422, "idempotency_mismatch")
    assert_replay(post(service), first)
    assert service.rows()["jobs"] == 1


def test_what_was_not_done_leaves_the_key_free(service: Service) -> None:
    assert_problem(post(service, json={"method": "nonsense"}), 422, "invalid_spec")
    assert post(service, path="/v1/jobs?dry_run=true").status_code == 200
    assert post(service).status_code == 202


def test_the_json_is_looked_at_before_the_key(service: Service) -> None:
    post(service)
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    assert_problem(service.client.post("/v1/jobs", content=b"{", headers=headers), 400, "malformed_json")


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "é", '"open'])
def test_a_bad_key(service: Service, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    before = service.rows()
    for path, json in (("/v1/jobs", factories.TINY), (f"/v1/jobs/{'0' * 30}/cancel", {})):
        document = assert_problem(service.client.post(path, json=json, headers=headers), 400, "bad_header")
        assert document["errors"][0]["header"] == "Idempotency-Key"
    assert service.rows() == before


def test_elsewhere_the_header_means_nothing(service: Service) -> None:
    assert service.client.get("/v1/jobs", headers={"Idempotency-Key": ""}).status_code == 200
    body = {"name": "x", "scopes": ["read"]}
    first, second = post(service, path="/v1/keys", json=body), post(service, path="/v1/keys", json=body)
    assert first.json()["key"] != second.json()["key"]


def test_after_a_day_the_key_is_free(service: Service) -> None:
    first = post(service)
    with service.database.write() as tx:
        tx.execute(update(tables.IdempotencyRecord).values(expires_at=tables.IdempotencyRecord.created_at))
    second = post(service)
    assert second.json()["id"] != first.json()["id"]
    assert_replay(post(service), second)
    with service.database.write() as tx:
        assert idempotency.expire(tx) == 0


def test_twenty_at_once_are_one_job(service: Service) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(service), range(20)))
    done = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.json()["id"] for answer in done}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in done) == 1
    for answer in answers:
        if answer not in done:
            assert_problem(answer, 409, "request_in_progress")
            assert answer.headers["retry-after"] == "1"
    assert service.rows()["jobs"] == service.rows()["idempotency_records"] == 1
