"""Every kind of method on every kind of model through the whole service."""

import pytest

from creditlab.client import Client
from tests.stack import QUICK_SPEC, up

CNN = {"name": "cnn", "blocks": [{"channels": 3, "pool": {"kind": "avg"}}, {"channels": 4, "stride": 2}], "hidden": [8]}
MIXER = {"name": "mlp_mixer", "patch_size": 7, "width": 8, "depth": 1, "token_width": 6, "channel_width": 9}
CUSTOM = {
    "name": "custom",
    "layers": [
        {"name": "conv", "channels": 3, "stride": 2},
        {"name": "activation", "kind": "tanh"},
        {"name": "norm"},
        {"name": "flatten"},
        {"name": "dense", "units": 9},
        {"name": "activation", "kind": "sigmoid"},
    ],
}
RELU = {"name": "mlp", "hidden": [32, 24, 16], "activation": "relu"}
JOBS = {
    "backward": {"method": "kp", "model": CNN},
    "broadcast": {"method": {"name": "sbd", "regularizers": {"power": {"weight": 0.1}}}, "model": CNN},
    "labels": {"method": "drtp", "model": CUSTOM, "loss": "bce"},
    "local": {"method": "mono_forward", "model": MIXER},
    "contrast": {"method": {"name": "ff", "inference": "goodness"}, "model": RELU},
    "forward": {"method": "pepita", "model": RELU},
    "augmented": {"method": "local_loss", "model": CNN, "dataset": QUICK_SPEC["dataset"] | {"augment": "flip_crop"}},
}


@pytest.mark.slow
def test_all_kinds_of_methods_and_models(tmp_path):
    with up(tmp_path / "data") as service, Client(service.url) as lab:
        ids = {name: lab.submit(QUICK_SPEC | fields)["id"] for name, fields in JOBS.items()}
        ended = {name: lab.wait(job_id, timeout=120) for name, job_id in ids.items()}
        assert {name: job["error"] for name, job in ended.items()} == dict.fromkeys(JOBS)
        results = {name: lab.results(job_id) for name, job_id in ids.items()}
        series = {
            name: {(one["name"], one["layer"]) for one in lab.metrics(job_id)["series"]} for name, job_id in ids.items()
        }

        for name, told in results.items():
            hidden = [layer["layer"] for layer in told["alignment"]["layers"]]
            assert hidden == [f"hidden{k}" for k in range(1, len(hidden))] + ["output"], name
            assert told["cost"]["flops_per_step"] > 0
            assert ("test/accuracy", None) in series[name]
        assert {layer for name, layer in series["broadcast"] if name == "layer/r_cosine"} == {
            "hidden1",
            "hidden2",
            "hidden3",
        }
        for name, readouts in (
            ("local", ["hidden1", "hidden2", "output"]),
            ("contrast", ["hidden1", "hidden2", "hidden3"]),
            ("augmented", ["hidden1", "hidden2", "hidden3"]),
        ):
            assert sorted(results[name]["test"]["layers"]) == readouts
            assert {layer for one, layer in series[name] if one == "layer/accuracy"} == set(readouts)
            assert "readout of" in service.cli("results", ids[name]).stdout
        assert "layers" not in results["forward"]["test"]
        assert [layer["delta_cosine"]["mean"] for layer in results["forward"]["alignment"]["layers"]] == [None] * 4
        assert len(lab.artifacts(ids["forward"])["data"]) == 8
