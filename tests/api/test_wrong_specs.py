"""Whatever is no job is refused with the place that is wrong, and nothing is stored."""

import pytest

from tests.api.conftest import Service, assert_problem
from tests.api.wrong import OK, WRONG, Wrong

JSON = {"Content-Type": "application/json"}
CODES = {400: "malformed_json", 422: "invalid_spec"}


@pytest.mark.parametrize("wrong", WRONG, ids=[wrong.id for wrong in WRONG])
def test_wrong_spec(shared: Service, wrong: Wrong) -> None:
    before = shared.rows()
    answer = shared.client.post("/v1/jobs", content=wrong.body, headers=JSON)
    document = assert_problem(answer, wrong.status, CODES[wrong.status])
    assert sorted(error["pointer"] for error in document["errors"]) == sorted(wrong.pointers)
    assert all(error["detail"] and len(error["detail"]) < 1000 for error in document["errors"])
    assert shared.rows() == before


def test_dry_run_refuses_the_same(shared: Service) -> None:
    for wrong in WRONG[::7]:
        answer = shared.client.post("/v1/jobs?dry_run=true", content=wrong.body, headers=JSON)
        document = assert_problem(answer, wrong.status, CODES[wrong.status])
        assert sorted(error["pointer"] for error in document["errors"]) == sorted(wrong.pointers)


def test_unknown_name_comes_with_the_names_there_are(shared: Service) -> None:
    errors = shared.client.post("/v1/jobs", json=OK | {"method": {"name": "dfaa"}}).json()["errors"]
    assert errors[0]["allowed"][:2] == ["bp", "shallow"]
    assert "did you mean 'dfa'" in errors[0]["detail"]


def test_at_most_fifty_errors(shared: Service) -> None:
    answer = shared.client.post("/v1/jobs", json=OK | {f"field{n}": n for n in range(200)})
    assert len(assert_problem(answer, 422, "invalid_spec")["errors"]) == 50


def test_echoed_values_are_short(shared: Service) -> None:
    answer = shared.client.post("/v1/jobs", json=OK | {"loss": "x" * 100_000})
    assert len(assert_problem(answer, 422, "invalid_spec")["errors"][0]["detail"]) < 300
