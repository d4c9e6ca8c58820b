"""Rates and quotas over HTTP: the first request over each limit, the first allowed again, the headers, the order."""

from collections.abc import Iterator

import http_sfv
import httpx
import pytest
from valkey import Valkey

from creditlab.broker import EmbeddedBroker
from lab import attempts
from lab.settings import Settings
from tests import factories
from tests.api.conftest import Service, assert_problem, serving

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def items(answer: httpx.Response, header: str) -> dict[str, dict[str, int]]:
    """A header's list, read by a parser of structured fields."""
    parsed = http_sfv.List()
    parsed.parse(answer.headers[header].encode())
    return {item.value: dict(item.params) for item in parsed}


def forget_counters(broker: EmbeddedBroker) -> None:
    """The minute is over: the broker forgets its counters."""
    with Valkey.from_url(broker.url) as valkey:
        for name in valkey.scan_iter("creditlab:rates*"):
            valkey.delete(name)


def test_the_request_over_the_rate_and_the_one_after_the_minute(
    guarded: Service, project: str, broker: EmbeddedBroker
) -> None:
    with guarded.holding(guarded.key(project, requests_per_minute=3)) as client:
        for left in (2, 1, 0):
            answer = client.get("/v1/methods")
            assert answer.status_code == 200
            assert items(answer, "ratelimit-policy")["burst"] == {"q": 3, "w": 60}
            assert items(answer, "ratelimit")["burst"]["r"] == left
            assert 1 <= items(answer, "ratelimit")["burst"]["t"] <= 60
            assert answer.headers["x-ratelimit-limit"] == "3"
            assert answer.headers["x-ratelimit-remaining"] == str(left)
        answer = client.get("/v1/methods")
        document = assert_problem(answer, 429, "rate_limited")
        assert (document["type"], document["violated-policies"]) == (QUOTA_EXCEEDED, ["burst"])
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.headers["retry-after"] == answer.headers["x-ratelimit-reset"]
        forget_counters(broker)
        assert client.get("/v1/methods").status_code == 200


def test_every_key_has_a_counter_of_its_own(guarded: Service, project: str) -> None:
    first, second = (guarded.key(project, requests_per_minute=1) for _ in range(2))
    for key in (first, second):
        with guarded.holding(key) as client:
            assert client.get("/v1/jobs").status_code == 200
            assert client.get("/v1/jobs").status_code == 429


def test_errors_tell_the_standing_too(guarded: Service, project: str) -> None:
    with guarded.holding(guarded.key(project)) as client:
        for answer in (
            client.get("/v1/nothing"),
            client.post("/v1/jobs", content=b"x", headers={"Content-Type": "text/plain"}),
            client.get("/v1/jobs?limit=0"),
        ):
            assert answer.status_code >= 400
            assert "burst" in items(answer, "ratelimit")
    assert "ratelimit" not in guarded.client.get("/livez").headers


@pytest.fixture
def narrow(alone: Settings, broker: EmbeddedBroker) -> Iterator[Service]:
    """Without keys, two requests a minute for everybody together."""
    forget_counters(broker)
    with serving(alone.model_copy(update={"quota_requests_per_minute": 2})) as running:
        yield running


def test_without_keys_all_share_one_counter(narrow: Service) -> None:
    assert [narrow.client.get("/v1/jobs").status_code for _ in range(3)] == [200, 200, 429]
    assert narrow.client.get("/livez").status_code == 200


@pytest.fixture
def deaf(alone: Settings) -> Iterator[Service]:
    with serving(
        alone.model_copy(update={"broker_url": "redis://127.0.0.1:1/0", "quota_requests_per_minute": 1})
    ) as running:
        yield running


def test_without_the_broker_nobody_is_refused(deaf: Service) -> None:
    for _ in range(3):
        answer = deaf.client.get("/v1/jobs")
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers
        assert "burst" in items(answer, "ratelimit-policy")


# ---- quotas ----------------------------------------------------------------------------------------------------------


def test_too_many_queued_jobs(guarded: Service, project: str) -> None:
    with guarded.holding(guarded.key(project, queued_jobs=3)) as client:
        first = client.post("/v1/jobs", json=factories.TINY)
        assert items(first, "ratelimit")["queued-jobs"] == {"r": 2}
        assert items(first, "ratelimit-policy")["queued-jobs"] == {"q": 3}
        before = guarded.rows()
        answer = client.post("/v1/jobs", json=factories.TINY | {"controls": ["bp", "shallow"]})
        document = assert_problem(answer, 429, "quota_exceeded")
        assert (document["type"], document["violated-policies"]) == (QUOTA_EXCEEDED, ["queued-jobs"])
        assert int(answer.headers["retry-after"]) >= 1
        assert guarded.rows() == before
        assert client.post("/v1/jobs?dry_run=true", json=factories.TINY).status_code == 200
        client.post(f"/v1/jobs/{first.json()['id']}/cancel")
        last = client.post("/v1/jobs", json=factories.TINY | {"controls": ["bp", "shallow"]})
        assert last.status_code == 202
        assert items(last, "ratelimit")["queued-jobs"] == {"r": 0}


def test_too_many_stored_bytes(guarded: Service, project: str) -> None:
    with guarded.holding(guarded.key(project, stored_bytes=10)) as client:
        job = client.post("/v1/jobs", json=factories.TINY).json()["id"]
        attempt = guarded.claim(job)
        with guarded.database.write() as tx:
            file = attempts.Artifact("model.safetensors", 10, "0" * 64, "application/octet-stream", f"{job}/model")
            attempts.finish(tx, attempt, factories.results(), [file])
        document = assert_problem(client.post("/v1/jobs", json=factories.TINY), 429, "quota_exceeded")
        assert document["violated-policies"] == ["stored-bytes"]
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
        assert client.post("/v1/jobs", json=factories.TINY).status_code == 202


# ---- the order of the checks -----------------------------------------------------------------------------------------


def test_each_check_comes_before_the_next(guarded: Service, project: str) -> None:
    """Key → scope → rate → media type → … → validation → quota; the others are in test_protocol and test_idempotent."""
    text = {"Content-Type": "text/plain"}
    with guarded.holding(guarded.key(project, "read", requests_per_minute=1)) as client:
        assert_problem(guarded.client.post("/v1/keys", content=b"x", headers=text), 401, "missing_key")
        assert client.get("/v1/jobs").status_code == 200
        assert client.get("/v1/jobs").status_code == 429
        assert_problem(client.post("/v1/jobs", content=b"x", headers=text), 403, "missing_scope")
    with guarded.holding(guarded.key(project, "write", requests_per_minute=1)) as client:
        assert client.get("/v1/jobs").status_code == 200
        assert_problem(client.post("/v1/jobs", content=b"x", headers=text), 429, "rate_limited")
    with guarded.holding(guarded.key(project, "write", requests_per_minute=1000, queued_jobs=1)) as client:
        assert client.post("/v1/jobs", json=factories.TINY).status_code == 202
        assert_problem(client.post("/v1/jobs", json={"method": "dfa"}), 422, "invalid_spec")
        assert_problem(client.post("/v1/jobs", json=factories.TINY), 429, "quota_exceeded")
