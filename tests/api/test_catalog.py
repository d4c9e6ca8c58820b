"""The menus over HTTP: complete, and true to ``credit.spec``."""

import pytest

from api import catalog, schemas
from credit import spec
from tests.api.conftest import Service, assert_problem
from tests.api.wrong import OK


def test_facts_are_there_for_everything_on_the_menu() -> None:
    assert set(catalog.METHODS) == set(spec.menu(spec.Method).values())
    assert set(catalog.DATASETS) == set(spec.menu(spec.Dataset).values())


@pytest.mark.parametrize(
    ("path", "union", "shape"),
    [
        ("methods", spec.Method, schemas.Method),
        ("models", spec.Model, schemas.Model),
        ("datasets", spec.Dataset, schemas.Dataset),
    ],
)
def test_lists(shared: Service, path: str, union: object, shape: type[schemas.Answer]) -> None:
    page = shared.client.get(f"/v1/{path}").json()
    assert [row["name"] for row in page["data"]] == list(spec.menu(union))
    assert (page["object"], page["has_more"], page["next"]) == ("list", False, None)
    for row in page["data"]:
        assert set(row) == set(shape.model_fields)
        assert row["options"]["properties"]["name"]["const"] == row["name"]
        if path != "models":
            assert shared.client.get(f"/v1/{path}/{row['name']}").json() == row


def test_method(shared: Service) -> None:
    dfa = shared.client.get("/v1/methods/dfa").json()
    assert dfa["citations"][0]["url"] == "https://arxiv.org/abs/1609.01596"
    assert "feedback" in dfa["options"]["properties"]
    assert set(dfa["models"]) <= set(spec.menu(spec.Model))
    for model in dfa["models"]:
        answer = shared.client.post("/v1/jobs?dry_run=true", json=OK | {"model": model})
        assert answer.status_code == 200


def test_dataset(shared: Service) -> None:
    cifar10 = shared.client.get("/v1/datasets/cifar10").json()
    assert (cifar10["shape"], cifar10["classes"]) == ([3, 32, 32], 10)
    assert (cifar10["train_images"], cifar10["test_images"]) == (50_000, 10_000)
    assert shared.client.get("/v1/datasets/fashion-mnist-mini").json()["bundled"] is True


def test_unknown_names(shared: Service) -> None:
    document = assert_problem(shared.client.get("/v1/methods/dfaa"), 404, "not_found")
    assert "did you mean 'dfa'?" in document["detail"]
    for path in ("/v1/methods/DFA", "/v1/methods/%00", "/v1/datasets/imagenet", "/v1/datasets/" + "x" * 5000):
        assert_problem(shared.client.get(path), 404, "not_found")
