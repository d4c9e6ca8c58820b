from dataclasses import replace

import pytest
import torch

from credit import artifacts, checkpoint, spec, train
from credit.durable import sha256
from credit.events import Aligned, Diagnosed, Evaluated, Failed, Finished, Progress, Started
from credit.members import METHODS, batchable, kind, pays, run_members
from tests.credit.builders import fitting

SEEDS = (3, 4, 5)


def members(name="dfa", *, changes=None, **model):
    """Three runs of 50 steps that differ in their seeds."""
    chosen = spec.Run(
        **fitting(name, **({"hidden": (24, 16)} | model)),
        dataset=spec.FashionMNISTMini(train_samples=320, test_samples=360),
        optimizer=spec.Adam(lr=1e-3),
        training=spec.Training(epochs=5, batch_size=32, seed=0, threads=1, device="cpu", log_every=1),
        alignment=spec.Alignment(samples=64),
    )
    chosen = replace(chosen, **changes or {})
    return [replace(chosen, training=replace(chosen.training, seed=seed), name=f"seed {seed}") for seed in SEEDS]


def alone(run, folder, out=None):
    return list(train.run(run, datasets=None, cache=folder, out=out))


def together(runs, folder, outs=None):
    told = [[] for _ in runs]
    for m, event in run_members(runs, datasets=None, cache=folder, outs=outs):
        told[m].append(event)
    return told


def losses(events):
    return [value for event in events if isinstance(event, Progress) for _, _, value, _ in event.intervals]


def of(kind_of, events):
    return [event for event in events if isinstance(event, kind_of)]


def assert_as_alone(runs, folder, *, samples=3):
    """Every member tells what it tells alone: the same draws to the bit, the same numbers within float tolerance."""
    for run, mine in zip(runs, together(runs, folder), strict=True):
        lone = alone(run, folder)
        story = [type(event) for event in lone if not isinstance(event, Progress)]
        assert [type(event) for event in mine if not isinstance(event, Progress)] == story
        assert losses(mine) == pytest.approx(losses(lone), rel=1e-4)
        assert len(losses(mine)) == 50
        own, theirs = mine[-1].results, lone[-1].results
        assert own["pairing"] == theirs["pairing"]
        for split in ("train", "test"):
            size = {"train": 320, "test": 360}[split]
            assert own[split]["accuracy"] == pytest.approx(theirs[split]["accuracy"], abs=samples / size)
        for name in ("flops_per_step", "parameters"):
            assert own["cost"][name] == theirs["cost"][name]
        for one, other in zip(of(Aligned, mine), of(Aligned, lone), strict=True):
            for layer, same in zip(one.layers, other.layers, strict=True):
                assert layer.delta_cosine == pytest.approx(same.delta_cosine, abs=1e-3)
            assert one.gauges == {
                name: {k: pytest.approx(v, abs=1e-4) for k, v in row.items()} for name, row in other.gauges.items()
            }


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method().name)
def test_members_learn_what_they_learn_alone(method, tmp_path):
    assert_as_alone(members(method().name), tmp_path)
