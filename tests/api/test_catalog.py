"""The menus over HTTP: complete, and true to ``credit.spec``."""

import json
from dataclasses import asdict
from typing import get_args

import pytest

from api import catalog, schemas
from credit import spec
from credit.literature import METHODS
from tests.api.conftest import Service, assert_problem
from tests.api.wrong import OK


def test_facts_are_there_for_everything_on_the_menu() -> None:
    assert set(METHODS) == set(spec.menu(spec.Method).values())
    for kind in spec.menu(spec.Dataset).values():
        assert kind.title
        assert kind.citation.url.startswith("http")


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
    assert dfa["needs"] == ["global_score", "derivatives"]
    assert shared.client.get("/v1/methods/ebd").json()["losses"] == ["mse"]
    assert shared.client.get("/v1/methods/ff").json()["models"] == ["mlp", "custom", "launay_fc", "ebd_mlp"]


@pytest.mark.parametrize("method", spec.menu(spec.Method))
def test_what_a_method_trains_is_what_is_accepted(shared: Service, method: str) -> None:
    told = shared.client.get(f"/v1/methods/{method}").json()
    for name, model in spec.menu(spec.Model).items():
        bodies = (
            OK | {"method": method, "model": json.loads(json.dumps(asdict(form))), "loss": told["losses"][0]}
            for form in catalog.forms(model)
        )
        answers = (shared.client.post("/v1/jobs?dry_run=true", json=body) for body in bodies)
        assert any(answer.status_code == 200 for answer in answers) == (name in told["models"])
    for loss in get_args(spec.Loss):
        activation = (told["activations"] or ["tanh"])[0]
        body = OK | {"method": method, "model": {"name": "mlp", "activation": activation}, "loss": loss}
        answer = shared.client.post("/v1/jobs?dry_run=true", json=body)
        assert answer.status_code == (200 if loss in told["losses"] else 422)


def test_models(shared: Service) -> None:
    models = {model["name"]: model for model in shared.client.get("/v1/models").json()["data"]}
    assert "pepita" not in models["cnn"]["methods"]
    assert set(models["mlp"]["methods"]) == set(spec.menu(spec.Method))
    assert "layers" in models["custom"]["options"]["properties"]


def test_dataset(shared: Service) -> None:
    cifar10 = shared.client.get("/v1/datasets/cifar10").json()
    assert (cifar10["shape"], cifar10["classes"]) == ([3, 32, 32], 10)
    assert (cifar10["train_images"], cifar10["test_images"]) == (50_000, 10_000)
    assert shared.client.get("/v1/datasets/fashion-mnist-mini").json()["bundled"] is True
    chest = shared.client.get("/v1/datasets/chestmnist").json()
    assert "14 labels" in chest["refusal"]
    assert chest["validation_images"] > 0


def test_unknown_names(shared: Service) -> None:
    document = assert_problem(shared.client.get("/v1/methods/dfaa"), 404, "not_found")
    assert "did you mean 'dfa'?" in document["detail"]
    for path in ("/v1/methods/DFA", "/v1/methods/%00", "/v1/datasets/imagenet", "/v1/datasets/" + "x" * 5000):
        assert_problem(shared.client.get(path), 404, "not_found")
