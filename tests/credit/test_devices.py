"""One training by two processes comes to what one process comes to."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from credit import checkpoint, duration, estimate, memory, parallel, spec
from credit.events import Aligned, Checkpointed, Evaluated, Progress, RunError
from credit.parallel import Team
from credit.train import run
from lab import specs
from lab.errors import InvalidSpec
from tests.credit.builders import METHODS
from tests.credit.sharing import cases, images, small, trained
from tests.credit.test_train import comparable

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 1e-5
WIDER = {"local_loss, maps": 3e-5}
"""Weights of a case that was 1.3e-5 off on one kind of machine."""
CASES = cases()


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def together(given, tmp_path_factory):
    """Every case trained by this process and another: what was said, this one's tensors, the other's."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "tests.credit.sharing", str(folder / "meeting"), str(folder)]
    with subprocess.Popen(command, cwd=ROOT) as other:
        try:
            with Team(0, 2) as team:
                team.join(folder / "meeting", torch.device("cpu"), 240)
                found = {name: trained(chosen, given, group=team) for name, chosen in CASES.items()}
            assert other.wait(60) == 0
        finally:
            other.kill()
    return {name: (events, state, load_file(folder / f"{name}.safetensors")) for name, (events, state) in found.items()}


def values(events, kind):
    """Every number that events of a kind tell, by series, layer and step."""
    told = [point for event in events if isinstance(event, kind) for point in event.points()]
    return {(p.series, p.layer, p.step): p.value for p in told}


def off(one, two):
    """The greatest distance of two tensors of the same name, relative to the norm of the first."""
    assert one.keys() == two.keys()
    return max(
        float((one[k] - two[k]).norm() / one[k].norm().clamp_min(1e-6)) for k in one if one[k].is_floating_point()
    )


@pytest.mark.parametrize("name", CASES)
def test_two_processes_come_to_what_one_comes_to(name, together, given):
    events, state, others = together[name]
    alone, expected = trained(CASES[name], given)
    assert off(expected, state) < WIDER.get(name, TOLERANCE)
    assert all(torch.equal(state[key], others[key]) for key in state)
    losses = values(alone, Progress)
    assert len(losses) == 20
    assert values(events, Progress) == pytest.approx(losses, rel=TOLERANCE)
    assert values(events, Evaluated) == pytest.approx(values(alone, Evaluated), rel=TOLERANCE)
    cosines = values(alone, Aligned)
    assert {key: value is None for key, value in values(events, Aligned).items()} == {
        key: value is None for key, value in cosines.items()
    }
    assert len(cosines) > 20


def beside():
    """The processes that train beside this one."""
    return [child for child in psutil.Process().children() if "credit.follower" in " ".join(child.cmdline())]


def endless():
    return replace(small().training, epochs=100_000)


def until(events, kind):
    """What a run says up to an event of a kind."""
    told = []
    for event in events:
        told.append(event)
        if isinstance(event, kind):
            return told
    raise AssertionError


def test_a_run_of_two_processes_goes_on_where_it_was_bit_for_bit(tmp_path):
    """And tells of devices, costs of the whole batch and the same story as one process; nothing is left of it."""
    chosen = small(model=spec.MLP(hidden=(16, 12), dropout=0.2))
    whole = list(run(chosen, datasets=None, cache=tmp_path, out=tmp_path))
    weights, stored = load_file(tmp_path / "model.safetensors"), load_file(tmp_path / "checkpoint")
    asked = iter(range(1, 11))

    def save():
        return tmp_path / "state" if next(asked) == 7 else None

    events = run(chosen, datasets=None, cache=tmp_path, save=save)
    told = until(events, Checkpointed)
    (other,) = beside()
    events.close()
    assert not other.is_running()
    saved = checkpoint.read(tmp_path / "state", told[-1].sha256)
    rest = list(run(chosen, datasets=None, cache=tmp_path, out=tmp_path, resume=saved))
    assert comparable(told + rest) == comparable(whole)
    for before, file in ((weights, "model.safetensors"), (stored, "checkpoint")):
        after = load_file(tmp_path / file)
        assert all(torch.equal(before[key], after[key]) for key in before if key != "ledger.step_seconds")
    alone = list(run(replace(chosen, training=replace(chosen.training, devices=1)), datasets=None, cache=tmp_path))
    costs = [events[-1].results["cost"] for events in (whole, alone)]
    assert costs[0]["flops_per_step"] == costs[1]["flops_per_step"]
    assert costs[0]["samples_per_second"] == pytest.approx(460 / costs[0]["train_seconds"])
    assert [events[-1].results["environment"]["devices"] for events in (whole, alone)] == [2, 1]
    assert values(whole, Progress) == pytest.approx(values(alone, Progress), rel=TOLERANCE)
    assert not beside()


def test_a_process_that_dies_or_hangs_ends_the_run_with_a_diagnosis(tmp_path, monkeypatch):
    events = run(small(training=endless()), datasets=None, cache=tmp_path)
    until(events, Progress)
    (other,) = beside()
    heard = {c.laddr.ip for p in (psutil.Process(), other) for c in p.net_connections() if c.status == "LISTEN"}
    assert heard == {"127.0.0.1"}
    other.kill()
    with pytest.raises(RunError, match=r"process 2 of 2 was killed by signal 9") as fault:
        list(events)
    assert fault.value.code == "killed"
    assert not beside()
    monkeypatch.setattr(parallel, "PATIENCE_SECONDS", 8.0)
    monkeypatch.setattr(parallel, "DYING_SECONDS", 0.1)
    events = run(small(training=endless()), datasets=None, cache=tmp_path)
    until(events, Progress)
    (other,) = beside()
    other.suspend()
    with pytest.raises(RunError, match=r"one of 2 processes has not answered"):
        list(events)
    assert not other.is_running()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_devices_that_are_not_there_are_named(tmp_path):
    chosen = small(training=replace(small().training, device="cuda"))
    with pytest.raises(RunError, match="devices 2 on cuda needs as many CUDA devices, and this machine has 0") as fault:
        list(run(chosen, datasets=None, cache=tmp_path))
    assert fault.value.code == "user_error"
    assert not beside()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", METHODS)
def test_two_gpus_come_to_what_one_comes_to(name, tmp_path):
    one, two = (
        list(
            run(
                replace(CASES[name], training=replace(small().training, device="cuda", devices=devices)),
                datasets=None,
                cache=tmp_path,
            )
        )
        for devices in (1, 2)
    )
    assert values(two, Progress) == pytest.approx(values(one, Progress), rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"training": {"devices": 0}}, "#/training/devices", "1 <= devices <= 64"),
        ({"training": {"devices": 65}}, "#/training/devices", "1 <= devices <= 64"),
        ({"training": {"devices": "2"}}, "#/training/devices", "is not an integer"),
        ({"training": {"devices": 4, "batch_size": 3}}, "#/training/devices", "more than batch_size, 3"),
        ({"training": {"devices": 2, "device": "cuda:1"}}, "#/training/device", "is one device, and 2 are asked for"),
        (
            {"training": {"devices": 2}, "model": {"name": "mlp", "batch_norm": True}},
            "#/training/devices",
            "batch norm",
        ),
        (
            {"training": {"devices": 4, "batch_size": 100}, "dataset": {"name": "mnist", "train_samples": 203}},
            "#/training/devices",
            "more than the samples of the last batch, 3",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(changes, pointer, said):
    with pytest.raises(InvalidSpec) as fault:
        specs.parse({"method": "dfa", "model": "mlp", "dataset": "mnist"} | changes)
    assert [found["pointer"] for found in fault.value.extra["errors"]] == [pointer]
    assert said in fault.value.extra["errors"][0]["detail"]


def test_what_can_be_shared_is_a_spec():
    many = {"devices": 4, "batch_size": 100, "drop_last": True}
    parsed = specs.parse({"method": "dfa", "model": "mlp", "dataset": "mnist", "training": many})
    assert parsed.training.devices == 4
    assert specs.parse({"method": "dfa", "model": "mlp", "dataset": "mnist"}).training.devices == 1


@pytest.mark.parametrize("name", ["bp", "dfa", "sbd", "local_loss", "ff"])
def test_the_forecast_is_of_one_process(name, together):
    """Peak memory and FLOPs of a run of two, within what is promised of any."""
    events, _, _ = together[name]
    cost, chosen = events[-1].results["cost"], CASES[name]
    more = 0.2 if name == "local_loss" else 0.1  # each process compares all pairs of samples
    assert estimate.flops_per_step(chosen) == pytest.approx(cost["flops_per_step"], rel=more)
    assert 0.5 < memory.peak_bytes(chosen) / cost["peak_memory_bytes"] < 2
    alone = replace(chosen, training=replace(chosen.training, devices=1))
    assert memory.saved_bytes(chosen) < memory.saved_bytes(alone)
    assert duration.seconds(chosen) != duration.seconds(alone)
