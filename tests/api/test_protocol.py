"""What holds for every request: problems, media types, sizes, hosts, methods, parameters, the order of the checks."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from api.problems import MEANING
from lab.settings import Settings
from tests.api.conftest import Service, assert_problem, serving
from tests.api.wrong import OK

JSON = {"Content-Type": "application/json"}
NOBODY = "job_" + "0" * 26
ODD_IDS = [
    "x",
    "job_",
    "job_" + "0" * 27,
    "job_" + "O" * 26,
    "%00",
    "job_%00",
    "%ed%a0%80",
    "%ff",
    "..%2f..",
    "a" * 5000,
    "'",
    "🦆",
]
PARTS = ["", "/metrics", "/alignment", "/results", "/events", "/artifacts", "/artifacts/report.html", "/artifacts/%00"]


@pytest.mark.parametrize("job_id", [NOBODY, *ODD_IDS])
@pytest.mark.parametrize("part", PARTS)
def test_an_id_that_is_no_job_is_404(shared: Service, job_id: str, part: str) -> None:
    assert_problem(shared.client.get(f"/v1/jobs/{job_id}{part}"), 404, "not_found")


@pytest.mark.parametrize("job_id", [NOBODY, *ODD_IDS])
def test_a_command_on_no_job_is_404(shared: Service, job_id: str) -> None:
    assert_problem(shared.client.post(f"/v1/jobs/{job_id}/cancel"), 404, "not_found")
    assert_problem(shared.client.delete(f"/v1/jobs/{job_id}"), 404, "not_found")


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/jobs/", "/v1/methods/x/y", "/%00", "/v1/jobs/a/b/c/d"])
def test_unknown_path(shared: Service, path: str) -> None:
    answer = shared.client.get(path, follow_redirects=False)
    assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("PATCH", f"/v1/jobs/{NOBODY}", "DELETE, GET, HEAD"),
        ("GET", f"/v1/jobs/{NOBODY}/cancel", "POST"),
        ("DELETE", "/v1/methods", "GET, HEAD"),
        ("OPTIONS", "/livez", "GET, HEAD"),
        ("BREW", "/v1/jobs", "GET, HEAD, POST"),
    ],
)
def test_wrong_method_names_the_right_ones(shared: Service, method: str, path: str, allow: str) -> None:
    answer = shared.client.request(method, path)
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/livez", "/v1/jobs", "/v1/methods", "/v1/methods/dfa", "/openapi.json", "/docs"])
def test_head_is_get_without_the_body(shared: Service, path: str) -> None:
    got, head = shared.client.get(path), shared.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_wrong_media_type(shared: Service, headers: dict[str, str]) -> None:
    before = shared.rows()
    answer = shared.client.post("/v1/jobs", content=b'{"method": "dfa"}', headers=headers)
    assert_problem(answer, 415, "unsupported_media_type")
    assert shared.rows() == before


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", 'application/json; charset="UTF-8"'])
def test_right_media_type(shared: Service, kind: str) -> None:
    answer = shared.client.post("/v1/jobs?dry_run=1", content=b"{}", headers={"Content-Type": kind})
    assert_problem(answer, 422, "invalid_spec")


def test_body_over_the_limit(shared: Service) -> None:
    before = shared.rows()
    for content in (b" " * (2**20 + 1), (b" " * 2**16 for _ in range(40))):
        assert_problem(shared.client.post("/v1/jobs", content=content, headers=JSON), 413, "body_too_large")
    assert shared.rows() == before


def test_body_at_the_limit(shared: Service) -> None:
    body = b'{"method": "dfa", "model": "mlp", "dataset": "mnist"}'
    padded = body + b" " * (2**20 - len(body))
    assert shared.client.post("/v1/jobs?dry_run=true", content=padded, headers=JSON).status_code == 200


def test_length_that_lies_is_not_believed(shared: Service) -> None:
    """Chunks without a length are counted as they come."""
    chunks = (b"[" for _ in range(10))
    assert_problem(shared.client.post("/v1/jobs", content=chunks, headers=JSON), 400, "malformed_json")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", ""]
)
def test_foreign_host(shared: Service, host: str) -> None:
    assert_problem(shared.client.get("/v1/jobs", headers={"Host": host}), 403, "bad_host")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "lab.localhost"]
)
def test_loopback_host(shared: Service, host: str) -> None:
    assert shared.client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/v1/jobs?statsu=failed", ["statsu"]),
        ("/v1/jobs?Status=failed", ["Status"]),
        ("/v1/jobs?a=1&b=2", ["a", "b"]),
        ("/v1/jobs?limit=5&limit=6", ["limit"]),
        ("/v1/jobs?limit=0", ["limit"]),
        ("/v1/jobs?limit=101", ["limit"]),
        ("/v1/jobs?limit=ten", ["limit"]),
        ("/v1/jobs?limit=1.5", ["limit"]),
        ("/v1/jobs?limit=1e400", ["limit"]),
        ("/v1/jobs?limit=" + "9" * 5000, ["limit"]),
        ("/v1/jobs?limit=", ["limit"]),
        ("/v1/jobs?status=done", ["status"]),
        ("/v1/jobs?status=failed&status=", ["status"]),
        ("/v1/jobs?label=a", ["label"]),
        ("/v1/jobs?label=:b", ["label"]),
        ("/v1/jobs?label=a:%00", ["label"]),
        ("/v1/jobs?model=%00", ["model"]),
        ("/v1/jobs?method=" + "m" * 201, ["method"]),
        ("/v1/jobs?created_after=yesterday", ["created_after"]),
        ("/v1/jobs?created_after=1700000000", ["created_after"]),
        ("/v1/jobs?created_after=2026-01-01", ["created_after"]),
        ("/v1/jobs?created_after=2026-01-01T00:00:00", ["created_after"]),
        ("/v1/jobs?created_after=0001-01-01T00:00:00%2B14:00", ["created_after"]),
        ("/v1/jobs?created_after=2026-13-01T00:00:00Z", ["created_after"]),
        ("/v1/jobs?limit=0&status=done", ["limit", "status"]),
        (f"/v1/jobs/{NOBODY}?wait=61", ["wait"]),
        (f"/v1/jobs/{NOBODY}?wait=-1", ["wait"]),
        (f"/v1/jobs/{NOBODY}?wait=nan", ["wait"]),
        (f"/v1/jobs/{NOBODY}?wait=inf", ["wait"]),
        (f"/v1/jobs/{NOBODY}?wait=soon", ["wait"]),
        (f"/v1/jobs/{NOBODY}?wait=", ["wait"]),
        (f"/v1/jobs/{NOBODY}?wait=1&wait=2", ["wait"]),
        (f"/v1/jobs/{NOBODY}/metrics?max_points=0", ["max_points"]),
        (f"/v1/jobs/{NOBODY}/metrics?max_points=100001", ["max_points"]),
        (f"/v1/jobs/{NOBODY}/metrics?from_step=-1", ["from_step"]),
        (f"/v1/jobs/{NOBODY}/metrics?to_step={2**63}", ["to_step"]),
        (f"/v1/jobs/{NOBODY}/metrics?from_step=2&to_step=1", ["to_step"]),
        (f"/v1/jobs/{NOBODY}/metrics?step=1", ["step"]),
        (f"/v1/jobs/{NOBODY}/alignment?metric=cosine", ["metric"]),
        (f"/v1/jobs/{NOBODY}/events?after_seq=-1", ["after_seq"]),
        (f"/v1/jobs/{NOBODY}/events?limit=1001", ["limit"]),
        (f"/v1/jobs/{NOBODY}/results?x", ["x"]),
        (f"/v1/jobs/{NOBODY}/artifacts?x=1", ["x"]),
        ("/v1/methods?name=dfa", ["name"]),
        ("/v1/methods/dfa?x=1", ["x"]),
        ("/livez?x=1", ["x"]),
    ],
)
def test_wrong_query(shared: Service, path: str, parameters: list[str]) -> None:
    document = assert_problem(shared.client.get(path), 422, "invalid_parameter")
    assert [error["parameter"] for error in document["errors"]] == parameters


def test_wrong_query_of_commands(shared: Service) -> None:
    before = shared.rows()
    for path in ("/v1/jobs?dry_run=maybe", "/v1/jobs?dryrun=true", "/v1/jobs?dry_run=true&dry_run=false"):
        assert_problem(shared.client.post(path, json=OK), 422, "invalid_parameter")
    assert_problem(shared.client.post(f"/v1/jobs/{NOBODY}/cancel?force=1"), 422, "invalid_parameter")
    assert shared.rows() == before


@pytest.mark.parametrize("cursor", ["x", "", "a.b", "WyJqb2IiXQ.AAAA", "%00", "é", "." * 900])
def test_bad_cursor(shared: Service, cursor: str) -> None:
    status = 422 if cursor == "%00" else 400
    answer = shared.client.get(f"/v1/jobs?after={cursor}")
    assert_problem(answer, status, "invalid_parameter" if status == 422 else "bad_cursor")


def test_a_command_takes_no_body(shared: Service) -> None:
    path = f"/v1/jobs/{NOBODY}/cancel"
    assert_problem(shared.client.post(path, json={"force": True}), 422, "invalid_body")
    assert_problem(shared.client.post(path, content=b"{", headers=JSON), 400, "malformed_json")
    assert_problem(shared.client.post(path, json={}), 404, "not_found")


def test_each_check_comes_before_the_next(shared: Service) -> None:
    """Host → media type and size → JSON → parameters and spec → existence."""
    cancel = f"/v1/jobs/{NOBODY}/cancel"
    text, foreign = {"Content-Type": "text/plain"}, {"Host": "evil.example"}
    client = shared.client
    assert_problem(client.post("/v1/jobs", content=b"{", headers=text | foreign), 403, "bad_host")
    assert_problem(client.post("/v1/jobs", content=b" " * (2**20 + 1), headers=text), 415, "unsupported_media_type")
    assert_problem(client.post("/v1/jobs?x=1", content=b"[" * (2**20 + 1), headers=JSON), 413, "body_too_large")
    assert_problem(client.post("/v1/jobs?x=1&dry_run=maybe", content=b"{", headers=JSON), 400, "malformed_json")
    assert_problem(client.post(f"{cancel}?x=1", content=b"{", headers=JSON), 400, "malformed_json")
    assert_problem(client.post(f"{cancel}?x=1"), 422, "invalid_parameter")
    assert_problem(client.get(f"/v1/jobs/{NOBODY}?wait=99"), 422, "invalid_parameter")


def test_state_is_looked_at_after_existence_and_body(service: Service) -> None:
    job_id = service.submit()
    assert service.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert_problem(service.client.post(f"/v1/jobs/{job_id}/cancel", json={"a": 1}), 422, "invalid_body")
    assert_problem(service.client.post(f"/v1/jobs/{job_id}/cancel"), 409, "wrong_state")


@pytest.mark.parametrize("given", ["my-request_1", "A" * 64])
def test_request_id_is_kept(shared: Service, given: str) -> None:
    assert shared.client.get("/livez", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["short", "A" * 65, "has spaces in it", "ümläute-ümläute", "semi;colon;"])
def test_odd_request_id_is_replaced(shared: Service, given: str) -> None:
    answer = shared.client.get("/nothing", headers={"X-Request-ID": given.encode()})
    assert re.fullmatch(r"req_[0-9a-f]{26}", answer.headers["x-request-id"])
    assert_problem(answer, 404, "not_found")


def test_every_type_leads_to_a_page(shared: Service) -> None:
    for code, meaning in MEANING.items():
        page = shared.client.get(f"/problems/{code.replace('_', '-')}").json()
        assert (page["code"], page["meaning"]) == (code, meaning)
    kind = shared.client.get("/nothing").json()["type"]
    assert shared.client.get(kind).json()["code"] == "not_found"
    for unknown in ("nonsense", "not_found", "Not-Found"):
        assert_problem(shared.client.get(f"/problems/{unknown}"), 404, "not_found")


def crash() -> None:
    raise ZeroDivisionError("the password is 123")


@pytest.fixture
def crashing(alone: Settings) -> Iterator[Service]:
    def add(app: FastAPI) -> None:
        app.add_api_route("/crash", crash)

    with serving(alone, add) as running:
        yield running


def test_a_bug_is_500_without_detail(crashing: Service, caplog: pytest.LogCaptureFixture) -> None:
    answer = crashing.client.get("/crash")
    assert_problem(answer, 500, "internal_error")
    assert "123" not in answer.text
    assert "ZeroDivisionError" not in answer.text
    logged = [vars(record)["request_id"] for record in caplog.records if record.exc_info]
    assert logged == [answer.headers["x-request-id"]]
    assert crashing.client.get("/livez").status_code == 200


def test_headers_are_no_way_in(shared: Service) -> None:
    odd: list[dict[str, Any]] = [
        {"If-None-Match": '"' + "9" * 5000 + "-" + "9" * 5000 + '"'},
        {"If-None-Match": "\\\"',;W/"},
        {"Prefer": "wait=" + "9" * 4000},
        {"Prefer": 'wait="5; wait'},
        {"Range": "bytes=" + "9" * 4000 + "-"},
        {"Cookie": "\xff=\xff".encode("latin-1")},
    ]
    for headers in odd:
        answer = shared.client.get(f"/v1/jobs/{NOBODY}", headers=headers)
        assert_problem(answer, 404, "not_found")
