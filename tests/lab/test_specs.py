"""Wrong specs are refused with a pointer to each wrong field; right ones survive the way to JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit import spec
from lab import specs
from lab.errors import InvalidSpec

BARE = {"method": "dfa", "model": "mlp", "dataset": "fashion-mnist-mini"}

CONTRACT = {
    "name": "dfa on fashion-mnist",
    "method": {"name": "dfa", "feedback": {"kind": "unified", "distribution": "gaussian", "normalize": True}},
    "model": {
        "name": "mlp",
        "hidden": [800, 800, 800],
        "activation": "tanh",
        "batch_norm": False,
        "dropout": 0.0,
    },
    "dataset": {
        "name": "fashion-mnist",
        "train_samples": 10000,
        "test_samples": None,
        "validation_fraction": 0.0,
        "augment": "none",
    },
    "loss": "cross_entropy",
    "optimizer": {
        "name": "sgd",
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": {"name": "constant"},
    },
    "training": {"epochs": 5, "batch_size": 128, "seed": 0, "device": "auto", "precision": "fp32"},
    "alignment": {"every": "epoch", "samples": 512},
    "controls": ["bp", "shallow"],
    "labels": {"table": "1"},
    "max_runtime_seconds": 3600,
    "priority": 0,
}


def faults(body) -> dict[str, dict]:
    with pytest.raises(InvalidSpec) as refusal:
        specs.parse(body)
    assert refusal.value.status == 422
    json.dumps(refusal.value.extra, allow_nan=False).encode()
    found = refusal.value.extra["errors"]
    assert len({fault["pointer"] for fault in found}) == len(found)
    return {fault["pointer"]: fault for fault in found}


def sgd(**fields):
    return {"optimizer": {"name": "sgd"} | fields}


def feedback(**fields):
    return {"method": {"name": "dfa", "feedback": fields}}


def mlp(**fields):
    return {"model": {"name": "mlp"} | fields}


def mini(**fields):
    return {"dataset": {"name": "fashion-mnist-mini"} | fields}


def training(**fields):
    return {"training": fields}


WRONG = [
    ({"method": "dfaa"}, "#/method", "'dfaa' is not a method; did you mean 'dfa'?"),
    ({"method": {"name": "dfaa"}}, "#/method/name", "did you mean 'dfa'?"),
    ({"method": {}}, "#/method/name", "required"),
    ({"method": None}, "#/method", "null is not an object"),
    ({"method": ["dfa"]}, "#/method", '["dfa"] is not an object'),
    ({"method": {"name": "dfa", "feedbak": {}}}, "#/method/feedbak", "did you mean 'feedback'?"),
    ({"method": {"name": "bp", "feedback": {}}}, "#/method/feedback", "'feedback' is not a field here"),
    (feedback(kind="u"), "#/method/feedback/kind", "'u' is not one of unified, per_layer"),
    (feedback(normalize=1), "#/method/feedback/normalize", "1 is not true or false"),
    (feedback(gain="big"), "#/method/feedback/gain", "one of auto or a number (0 < gain <= 1000000.0)"),
    (feedback(gain=0), "#/method/feedback/gain", "0"),
    ({"model": "mpl"}, "#/model", "did you mean 'mlp'?"),
    (mlp(hidden=[800, "x"]), "#/model/hidden/1", "'x' is not an integer (1 <= hidden <= 65536)"),
    (mlp(hidden=[0]), "#/model/hidden/0", "0 is out of range: 1 <= hidden <= 65536"),
    (mlp(hidden=[]), "#/model/hidden", "has the wrong length"),
    (mlp(hidden=800), "#/model/hidden", "800 is not a list of 1 to 256 items"),
    (mlp(hidden={"0": 1}), "#/model/hidden", "is not a list"),
    (mlp(dropout=1), "#/model/dropout", "1 is out of range: 0 <= dropout < 1"),
    (mlp(activation="thah"), "#/model/activation", "did you mean 'tanh'?"),
    (mlp(bias=None), "#/model/bias", "null is not true or false"),
    ({"dataset": "mnits"}, "#/dataset", "did you mean 'mnist'?"),
    (mini(train_samples=0), "#/dataset/train_samples", "0 is out of range"),
    (mini(train_samples=10**7), "#/dataset/train_samples", "more than"),
    (mini(validation_fraction="half"), "#/dataset/validation_fraction", "'half' is not a number"),
    ({"loss": "crossentropy"}, "#/loss", "did you mean 'cross_entropy'?"),
    ({"loss": None}, "#/loss", "null is not one of cross_entropy, mse"),
    ({"optimizer": "adam"}, "#/optimizer", 'an object with the "name" of an optimizer'),
    (sgd(lr=-1), "#/optimizer/lr", "-1 is out of range: 0 < lr <= 100"),
    (sgd(lr="0.1"), "#/optimizer/lr", "'0.1' is not a number (0 < lr <= 100)"),
    (sgd(lr=True), "#/optimizer/lr", "true is not a number"),
    (sgd(nesterov=True), "#/optimizer/nesterov", "needs a momentum above 0"),
    (sgd(schedule={"name": "step"}), "#/optimizer/schedule/milestones", "required: a list"),
    (sgd(schedule={"name": "step", "milestones": [3, 1]}), "#/optimizer/schedule/milestones", "increasing"),
    (sgd(schedule={"name": "cos"}), "#/optimizer/schedule/name", "did you mean 'cosine'?"),
    (training(epochs=1.5), "#/training/epochs", "1.5 is not an integer"),
    (training(epochs=True), "#/training/epochs", "true is not an integer"),
    (training(seed=-1), "#/training/seed", "-1 is out of range: 0 <= seed <= 9223372036854775807"),
    (training(seed=2**63), "#/training/seed", "out of range"),
    (training(device="gpu"), "#/training/device", "'gpu' is not one of auto, cpu, cuda, cuda:N"),
    (training(engine="jit"), "#/training/engine", "'jit' is not one of auto, eager, compiled, graph"),
    (training(engine="graph", device="cpu"), "#/training/engine", "the device is cpu"),
    (training(engine="graph") | {"method": {"name": "dkp"}}, "#/training/engine", "a rate that the host sets"),
    (training(precision="fp16"), "#/training/precision", "'fp16' is not one of fp32, tf32, bf16"),
    ({"training": None}, "#/training", "null is not an object"),
    ({"alignment": {"every": 0}}, "#/alignment/every", "one of epoch, never or an integer"),
    ({"alignment": {"every": "step"}}, "#/alignment/every", "'step' is not one of epoch, never"),
    ({"controls": ["dfa"]}, "#/controls/0", "'dfa' is not one of bp, shallow"),
    ({"controls": ["bp", "bp"]}, "#/controls", "named once"),
    ({"controls": "bp"}, "#/controls", "'bp' is not a list"),
    ({"labels": {"": "x"}}, "#/labels/", "wrong length"),
    ({"labels": {"a/b~c d": 1}}, "#/labels/a~1b~0c%20d", "1 is not a text of at most 256 characters"),
    ({"labels": {"k" * 65: "v"}}, f"#/labels/{'k' * 65}", "a text of 1 to 64 characters"),
    ({"labels": ["a"]}, "#/labels", "is not an object"),
    ({"name": 5}, "#/name", "5 is not a text of at most 200 characters or null"),
    ({"priority": 101}, "#/priority", "101 is out of range: -100 <= priority <= 100"),
    ({"max_runtime_seconds": 0}, "#/max_runtime_seconds", "0 is out of range: 0 < max_runtime_seconds"),
    ({"nmae": "x"}, "#/nmae", "did you mean 'name'?"),
]


@pytest.mark.parametrize(("change", "pointer", "said"), WRONG, ids=[row[1] + " " + row[2][:20] for row in WRONG])
def test_a_wrong_field_is_pointed_at(change, pointer, said):
    found = faults(BARE | change)
    assert list(found) == [pointer]
    assert said in found[pointer]["detail"]


@pytest.mark.parametrize("body", [None, 5, "dfa", [], True])
def test_a_body_that_is_no_object_is_refused_as_a_whole(body):
    assert list(faults(body)) == ["#"]


def test_all_wrong_fields_are_named_at_once_and_fifty_at_most():
    found = faults({"model": "mlp", "training": {"epochs": 0, "seed": "x"}, "extra": 1})
    assert set(found) == {"#/method", "#/dataset", "#/training/epochs", "#/training/seed", "#/extra"}
    assert len(faults(BARE | {f"unknown{n}": n for n in range(80)})) == 50


def test_choices_are_listed():
    assert faults(BARE | {"loss": "l2"})["#/loss"]["allowed"] == ["cross_entropy", "mse", "bce"]
    assert faults(BARE | {"method": "x"})["#/method"]["allowed"] == list(spec.menu(spec.Method))


def test_long_values_are_shortened():
    (fault,) = faults(BARE | {"loss": "x" * 10_000}).values()
    assert len(fault["detail"]) < 200


def test_bare_names_are_the_defaults():
    run = specs.parse(BARE)
    assert (run.method, run.model, run.dataset) == (spec.DFA(), spec.MLP(), spec.FashionMNISTMini())


def test_the_spec_of_the_contract_is_read():
    run = specs.parse(CONTRACT)
    assert run.controls == ("bp", "shallow")
    assert run.model.hidden == (800, 800, 800)
    assert specs.to_dict(run)["optimizer"] == CONTRACT["optimizer"] | {"nesterov": False}


def test_resolving_leaves_nothing_open_and_changes_nothing_given():
    drawn = specs.resolve(specs.parse(BARE), threads=3)
    assert drawn.training.threads == 3
    assert drawn.training.seed is not None
    given_run = specs.parse(CONTRACT | {"training": {"seed": 7, "threads": 2}})
    assert specs.resolve(given_run, threads=3, seed=9) == given_run


@given(
    st.fixed_dictionaries(
        {
            "method": st.sampled_from(["dfa", "bp", "fa", "shallow"]),
            "model": st.fixed_dictionaries(
                {"name": st.just("mlp"), "hidden": st.lists(st.integers(1, 65_536), min_size=1, max_size=9)}
            ),
            "dataset": st.sampled_from(["mnist", "cifar10", "fashion-mnist"]),
            "training": st.fixed_dictionaries({"seed": st.integers(0, 2**63 - 1), "threads": st.integers(1, 256)}),
            "name": st.none() | st.text(max_size=200),
            "optimizer": st.fixed_dictionaries({"name": st.just("sgd"), "lr": st.floats(1e-9, 100)}),
        }
    )
)
def test_a_spec_survives_json_and_its_hash_tells_it_from_others(body):
    run = specs.parse(body)
    stored = json.loads(json.dumps(specs.to_dict(run)))
    assert specs.from_dict(stored) == run
    assert specs.sha256(specs.from_dict(stored)) == specs.sha256(run)
    other = specs.parse(body | {"training": {"seed": body["training"]["seed"] ^ 1, "threads": 1}})
    assert specs.sha256(other) != specs.sha256(run)


def test_every_method_has_a_schema_with_its_description():
    for name, method in spec.menu(spec.Method).items():
        schema = specs.schema(method)
        assert schema["properties"]["name"]["const"] == name
        assert schema["description"]
        assert schema["additionalProperties"] is False
