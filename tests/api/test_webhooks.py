"""Webhooks over HTTP: made, read, changed, tried out, and what their log shows."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from creditlab.broker import EmbeddedBroker
from lab import deliveries
from lab.settings import Settings
from tests.api.conftest import Service, assert_problem, serving
from tests.conftest import fresh_database

URL = "http://127.0.0.1:9/hook"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest, broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service whose operator allows webhooks on loopback addresses."""
    folder = tmp_path_factory.mktemp("hooks")
    with fresh_database(request.param, request, folder) as url:
        settings = Settings(
            data_dir=folder, database_url=url, broker_url=broker.url, threads=1, webhook_allow="127.0.0.0/8"
        )
        with serving(settings) as running:
            yield running


def create(service: Service, **fields: Any) -> dict[str, Any]:
    answer = service.client.post("/v1/webhooks", json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/webhooks/{answer.json()['id']}"
    made: dict[str, Any] = answer.json()
    return made


def test_the_secret_is_shown_once(service: Service) -> None:
    made = create(service, types=["job.failed", "job.failed"], description="pager")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["types"], made["enabled"], made["description"]) == (["job.failed"], True, "pager")
    for path in ("/v1/webhooks", f"/v1/webhooks/{made['id']}", f"/v1/webhooks/{made['id']}/deliveries"):
        assert secret not in service.client.get(path).text
    assert service.client.get(f"/v1/webhooks/{made['id']}").json() == made
    assert service.client.get("/v1/webhooks").json()["data"] == [made]


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/", "http://8.8.8.8/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest", "x"]
)
def test_a_url_that_may_not_be_reached(service: Service, url: str) -> None:
    before = service.rows()
    document = assert_problem(service.client.post("/v1/webhooks", json={"url": url}), 422, "invalid_body")
    assert [error["pointer"] for error in document["errors"]] == ["#/url"]
    made = create(service)
    headers = {"If-Match": "*"}
    answer = service.client.patch(f"/v1/webhooks/{made['id']}", json={"url": url}, headers=headers)
    assert_problem(answer, 422, "invalid_body")
    assert service.rows() == before | {"webhooks": before["webhooks"] + 1}


def test_without_the_operators_word_loopback_is_refused(alone: Settings) -> None:
    with serving(alone) as service:
        assert_problem(service.client.post("/v1/webhooks", json={"url": URL}), 422, "invalid_body")
        assert_problem(service.client.post("/v1/webhooks", json={"url": "https://localhost/"}), 422, "invalid_body")


def test_changes_name_the_version_that_they_change(service: Service) -> None:
    path = f"/v1/webhooks/{create(service)['id']}"
    tag = service.client.get(path).headers["etag"]
    assert_problem(service.client.patch(path, json={"enabled": False}), 428, "precondition_required")
    changed = service.client.patch(path, json={"enabled": False}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    assert changed.json()["disabled_reason"]
    assert changed.headers["etag"] == service.client.get(path).headers["etag"] != tag
    for stale in (tag, 'W/"1"', '"x"', "1"):
        answer = service.client.patch(path, json={"enabled": True}, headers={"If-Match": stale})
        assert_problem(answer, 412, "version_mismatch")
    anyhow = service.client.patch(path, json={"enabled": True}, headers={"If-Match": "*"})
    assert (anyhow.json()["enabled"], anyhow.json()["disabled_reason"]) == (True, None)
    assert_problem(service.client.patch(path, json={"id": "mine"}, headers={"If-Match": "*"}), 422, "invalid_body")


def test_deleted_with_its_log(service: Service) -> None:
    path = f"/v1/webhooks/{create(service)['id']}"
    assert service.client.post(f"{path}/test").status_code == 202
    assert service.client.delete(path).status_code == 204
    assert_problem(service.client.delete(path), 404, "not_found")
    assert service.rows()["deliveries"] == 0


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("POST", "/rotate"),
        ("GET", "/deliveries"),
        ("POST", "/deliveries/msg_none/redeliver"),
    ],
)
def test_no_such_webhook(service: Service, method: str, part: str) -> None:
    body = {"json": {}, "headers": {"If-Match": "*"}} if method == "PATCH" else {}
    assert_problem(service.client.request(method, f"/v1/webhooks/wh_none{part}", **body), 404, "not_found")


def test_a_new_secret(service: Service) -> None:
    made = create(service)
    rotated = service.client.post(f"/v1/webhooks/{made['id']}/rotate")
    assert rotated.status_code == 200
    assert rotated.json()["secret"] != made["secret"]


def test_test_log_and_redelivery(service: Service) -> None:
    made = create(service, types=["job.cancelled"])
    path = f"/v1/webhooks/{made['id']}"
    tried = service.client.post(f"{path}/test").json()
    assert (tried["type"], tried["status"], tried["attempts"]) == ("webhook.test", "pending", 0)
    assert tried["payload"]["data"] == {"webhook_id": made["id"]}
    for _ in range(3):
        service.client.post(f"/v1/jobs/{service.submit()}/cancel")
    seen, there = [], f"{path}/deliveries?limit=3"
    while there:
        answer = service.client.get(there)
        seen += answer.json()["data"]
        there = answer.links["next"]["url"] if answer.json()["has_more"] else ""
    assert [one["type"] for one in seen] == ["job.cancelled"] * 3 + ["webhook.test"]
    assert seen[-1] == tried
    with service.database.write() as tx:
        errands = deliveries.claim(tx, [seen[0]["id"]])
        deliveries.settle(tx, errands[0], 200, None, 0.0125)
    (tried,) = service.client.get(f"{path}/deliveries?limit=1").json()["data"][0]["tries"]
    assert datetime.fromisoformat(tried.pop("at")).tzinfo == UTC
    assert tried == {"number": 1, "duration_ms": 12.5, "answer_status": 200, "error": None}
    again = service.client.post(f"{path}/deliveries/{seen[0]['id']}/redeliver")
    assert (again.status_code, again.json()["status"], again.json()["id"]) == (202, "pending", seen[0]["id"])
    assert_problem(service.client.post(f"{path}/deliveries/msg_none/redeliver"), 404, "not_found")
    service.client.patch(path, json={"enabled": False}, headers={"If-Match": "*"})
    assert_problem(service.client.post(f"{path}/test"), 409, "webhook_disabled")
    assert_problem(service.client.post(f"{path}/deliveries/{seen[0]['id']}/redeliver"), 409, "webhook_disabled")
    other = create(service)
    elsewhere = f"/v1/webhooks/{other['id']}/deliveries/{seen[0]['id']}/redeliver"
    assert_problem(service.client.post(elsewhere), 404, "not_found")
