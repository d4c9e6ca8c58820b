"""Two projects over HTTP: neither sees or touches what the other has, whichever operation of the document is tried."""

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from lab import attempts, datasets, tables
from tests import factories
from tests.api.conftest import Service, assert_problem
from tests.api.test_openapi import operations

CATALOGUE = {"/v1/methods/{name}", "/v1/datasets/{name}"}
"""The same for everybody."""
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("patch", "/v1/keys/{key_id}"): {"json": {"name": "taken"}, "headers": {"If-Match": "*"}},
    ("patch", "/v1/webhooks/{webhook_id}"): {"json": {"enabled": False}, "headers": {"If-Match": "*"}},
}
"""What an operation needs to get as far as its rows."""
CREATED = {"/v1/jobs", "/v1/keys", "/v1/webhooks", "/v1/datasets"}
"""Where things are made, and must be made in the own project."""
NOWHERE = {
    "job_id": "job_" + "0" * 26,
    "key_id": "key_" + "0" * 26,
    "webhook_id": "wh_" + "0" * 26,
    "delivery_id": "dlv_" + "0" * 26,
    "name": "report.html",
}


class Side(NamedTuple):
    client: httpx.Client
    owned: dict[str, str]
    """Something of its own for every parameter of a path."""


@pytest.fixture
def sides(guarded: Service, project: str) -> Iterator[tuple[Side, Side]]:
    """Two projects with a finished job and its files each."""
    with ExitStack() as stack:
        both = [stack.enter_context(guarded.holding(guarded.key(project + end, "admin"))) for end in "ab"]
        yield tuple(Side(client, furnish(guarded, client)) for client in both)  # type: ignore[misc]


def furnish(service: Service, client: httpx.Client) -> dict[str, str]:
    job = client.post("/v1/jobs", json=factories.TINY | {"controls": ["bp"]}).json()["id"]
    attempt = service.claim(job)
    location = f"{job}/report.html"
    path = service.settings.artifacts_dir / location
    path.parent.mkdir(parents=True)
    path.write_text("a report")
    report = attempts.Artifact("report.html", 8, hashlib.sha256(b"a report").hexdigest(), "text/html", location)
    with service.database.write() as tx:
        attempts.record(tx, attempt, [factories.started(), factories.aligned(10), factories.evaluated(10)])
        attempts.finish(tx, attempt, factories.results(), [report])
    key = client.get("/v1/keys").json()["data"][0]["id"]
    hook = client.post("/v1/webhooks", json={"url": "https://8.8.8.8/hook"}).json()["id"]
    delivery = client.post(f"/v1/webhooks/{hook}/test").json()["id"]
    return {"job_id": job, "key_id": key, "webhook_id": hook, "delivery_id": delivery, "name": "report.html"}


def test_every_operation_on_what_another_has(guarded: Service, sides: tuple[Side, Side]) -> None:
    """404, byte-equal but for the ids to the answer about what never existed; and the owner's is as it was."""
    ours, theirs = sides
    tried = 0
    for method, path, _ in operations(guarded.app.openapi()):
        if not path.startswith("/v1/") or "{" not in path or path in CATALOGUE:
            continue
        needed = BODIES.get((method, path), {})
        assert set(re.findall(r"{(\w+)}", path)) <= set(theirs.owned), f"{path}: furnish a project with one of these"
        foreign = ours.client.request(method, path.format(**theirs.owned), **needed)
        unknown = ours.client.request(method, path.format(**NOWHERE), **needed)
        assert_problem(foreign, 404, "not_found")
        assert anonymous(foreign, theirs.owned) == anonymous(unknown, NOWHERE), path
        if method == "get":
            assert theirs.client.get(path.format(**theirs.owned)).status_code == 200, path
        tried += 1
    assert tried >= 12
    for path, parameter in (("/v1/jobs", "job_id"), ("/v1/keys", "key_id")):
        own = theirs.client.get(f"{path}/{theirs.owned[parameter]}").json()
        assert own["name"] != "taken"
        assert own.get("revoked_at") is None
    assert theirs.client.get("/v1/jobs/{job_id}/artifacts/{name}".format(**theirs.owned)).text == "a report"


def anonymous(answer: httpx.Response, ids: dict[str, str]) -> tuple[int, str, list[str]]:
    text = answer.text.replace(answer.headers["x-request-id"], "REQUEST")
    for name, value in ids.items():
        text = text.replace(value, name)
    return answer.status_code, text, sorted(answer.headers)


def test_every_list_shows_the_own_rows_alone(guarded: Service, sides: tuple[Side, Side]) -> None:
    ours, theirs = sides
    for method, path, _ in operations(guarded.app.openapi()):
        if method == "get" and path.startswith("/v1/") and "{" not in path:
            answer = ours.client.get(path, params={"job": ours.owned["job_id"]} if path == "/v1/events" else {})
            assert answer.status_code == 200, path
            assert not any(value in answer.text for name, value in theirs.owned.items() if name != "name"), path
    assert ours.owned["job_id"] in ours.client.get("/v1/jobs").text
    assert ours.owned["key_id"] in ours.client.get("/v1/keys").text


def test_everything_is_made_in_the_own_project(guarded: Service, sides: tuple[Side, Side]) -> None:
    made = {
        path
        for method, path, operation in operations(guarded.app.openapi())
        if method == "post" and path.startswith("/v1/") and "{" not in path
    }
    assert made == CREATED, "say in this test how it is known that the new operation keeps to the caller's project"
    ours, _ = sides
    with guarded.database.read() as tx:
        for table, name in ((tables.Job, "job_id"), (tables.Key, "key_id"), (tables.Webhook, "webhook_id")):
            assert tx.get_one(table, ours.owned[name]).project_id.endswith("a")


def test_a_data_set_is_the_projects_own_and_its_file_lasts_as_long_as_anybody_has_it(
    guarded: Service, sides: tuple[Side, Side]
) -> None:
    buffer = io.BytesIO()
    images = np.arange(4 * 5 * 5, dtype=np.uint8).reshape(4, 5, 5)
    labels = np.array([0, 1, 0, 1])
    np.savez(buffer, x_train=images, y_train=labels, x_test=images, y_test=labels)
    ours, theirs = sides
    sent = [
        side.client.post("/v1/datasets", files={"file": ("a.npz", buffer.getvalue())}, data={"name": "mine"})
        for side in sides
    ]
    assert [answer.status_code for answer in sent] == [201, 201]
    own, foreign = (answer.json() for answer in sent)
    assert own["id"] != foreign["id"]
    assert own["sha256"] == foreign["sha256"]
    for method in ("GET", "DELETE"):
        assert_problem(ours.client.request(method, f"/v1/datasets/{foreign['id']}"), 404, "not_found")
    assert foreign["id"] not in ours.client.get("/v1/datasets").text
    refused = ours.client.post("/v1/jobs", json=factories.TINY | {"dataset": foreign["id"]})
    assert_problem(refused, 422, "invalid_spec")
    file = guarded.settings.artifacts_dir / datasets.location_of(own["sha256"])
    assert ours.client.delete(f"/v1/datasets/{own['id']}").status_code == 204
    assert file.exists(), "the other project has it, too"
    assert theirs.client.delete(f"/v1/datasets/{foreign['id']}").status_code == 204
    assert not file.exists()


def test_a_webhook_is_told_of_the_own_jobs_alone(guarded: Service, sides: tuple[Side, Side]) -> None:
    ours, theirs = sides
    attempt = guarded.claim(ours.client.post("/v1/jobs", json=factories.TINY).json()["id"])
    with guarded.database.write() as tx:
        attempts.fail(tx, attempt, "user_error", "no")
    told = [
        [row["type"] for row in side.client.get(f"/v1/webhooks/{side.owned['webhook_id']}/deliveries").json()["data"]]
        for side in (ours, theirs)
    ]
    assert "job.failed" in told[0]
    assert "job.failed" not in told[1]


def test_a_cursor_of_another_project_does_not_fit(sides: tuple[Side, Side]) -> None:
    ours, theirs = sides
    after = theirs.client.get("/v1/jobs?limit=1").json()["next"]
    assert theirs.client.get("/v1/jobs", params={"limit": 1, "after": after}).status_code == 200
    assert_problem(ours.client.get("/v1/jobs", params={"limit": 1, "after": after}), 400, "cursor_mismatch")


def test_a_waiter_for_another_projects_job_is_not_kept(sides: tuple[Side, Side]) -> None:
    ours, theirs = sides
    assert_problem(ours.client.get(f"/v1/jobs/{theirs.owned['job_id']}?wait=60"), 404, "not_found")


def test_an_idempotency_key_is_the_projects_own(sides: tuple[Side, Side]) -> None:
    ids = set()
    for side in sides:
        answer = side.client.post("/v1/jobs", json=factories.TINY, headers={"Idempotency-Key": "same"})
        assert "idempotent-replayed" not in answer.headers
        ids.add(answer.json()["id"])
    assert len(ids) == 2
