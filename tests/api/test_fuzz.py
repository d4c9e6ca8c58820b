"""Random requests: whatever comes, the answer is the documented kind and never a 5xx; nothing is stored.

``FUZZ_BODIES`` is how many of each kind are sent:

    FUZZ_BODIES=5000 .venv/bin/pytest tests/api/test_fuzz.py
"""

import json
import os
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import Service, assert_problem
from tests.api.wrong import OK

JSON = {"Content-Type": "application/json"}
NOBODY = "job_" + "0" * 26
PATHS = [f"/v1/jobs/{NOBODY}{part}" for part in ("", "/metrics", "/alignment", "/results", "/events", "/artifacts/x")]
PARAMETERS = [
    *("status", "method", "model", "dataset", "study", "label", "created_after", "limit", "after"),
    *("wait", "series", "from_step", "to_step", "max_points", "metric", "after_seq"),
]
relaxed = settings(
    max_examples=int(os.environ.get("FUZZ_BODIES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

names = st.sampled_from(["dfa", "bp", "mlp", "mnist", "sgd", "constant"])
members = st.sampled_from([*OK, "name", "lr", "training", "hidden", "schedule", "milestones"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(members, inner, max_size=4),
    max_leaves=20,
)
fields = st.sampled_from([*OK, "optimizer", "training", "labels", "name", "loss", "controls", "alignment", "other"])
specs = st.dictionaries(fields, values, max_size=6).map(lambda changes: OK | changes)
odd = (
    st.integers().map(str)
    | st.floats().map(str)
    | st.text(max_size=20)
    | st.sampled_from(["a:b", "0", "1", "\0", "true"])
)


@relaxed
@given(body=values | specs)
def test_random_json(shared: Service, body: Any) -> None:
    """As dry runs, so that a spec which happens to be right stores nothing either."""
    answer = shared.client.post("/v1/jobs?dry_run=true", content=json.dumps(body).encode(), headers=JSON)
    assert answer.status_code in {200, 400, 422}, answer.text
    if answer.status_code != 200:
        errors = assert_problem(answer, answer.status_code, answer.json()["code"])["errors"]
        assert all(error["pointer"].startswith("#") and error["detail"] for error in errors)


@relaxed
@given(raw=st.binary(max_size=200))
def test_random_bytes(shared: Service, raw: bytes) -> None:
    answer = shared.client.post("/v1/jobs", content=raw, headers=JSON)
    assert answer.status_code in {400, 422}, answer.text
    assert_problem(answer, answer.status_code, answer.json()["code"])


@relaxed
@given(
    path=st.sampled_from(["/v1/jobs", *PATHS]), query=st.lists(st.tuples(st.sampled_from(PARAMETERS), odd), max_size=3)
)
def test_random_queries(shared: Service, path: str, query: list[tuple[str, str]]) -> None:
    answer = shared.client.get(path, params=query)
    assert answer.status_code in {200, 400, 404, 422}, answer.text
    if answer.status_code != 200:
        assert_problem(answer, answer.status_code, answer.json()["code"])


@relaxed
@given(name=st.text(max_size=30))
def test_random_names(shared: Service, name: str) -> None:
    quoted = quote(name, safe="", errors="replace")
    for path in (f"/v1/jobs/{quoted}", f"/v1/jobs/{NOBODY}/artifacts/{quoted}", f"/v1/methods/{quoted}"):
        answer = shared.client.get(path)
        assert answer.status_code in {200, 404}, answer.text
