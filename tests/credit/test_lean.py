"""Blocks that are updated as they are told, and blocks that keep no graph: less memory, the same numbers to the bit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from credit import memory, spec
from credit.events import Evaluated, Progress
from credit.rerun import Rerun
from credit.train import run
from tests.credit.builders import METHODS, fitting

BROADCAST = [name for name, method in METHODS.items() if isinstance(method, spec.BroadcastMethod)]
STREAMED = [name for name, method in METHODS.items() if isinstance(method, memory.STREAMED)]
OPTIMIZERS = (spec.SGD(momentum=0.9), spec.Adam(), spec.AdamW(weight_decay=0.1), spec.RMSprop(momentum=0.5))


def chosen(parts, optimizer, **training):
    return spec.Run(
        **parts,
        optimizer=optimizer,
        dataset=spec.FashionMNISTMini(train_samples=20 * 32, test_samples=100),
        training=spec.Training(epochs=2, batch_size=32, seed=5, threads=1, log_every=1, **training),
        alignment=spec.Alignment(every=15, samples=32),
    )


def trained(wanted, folder):
    """Every loss, and every tensor of the model and the rule at the end."""
    folder.mkdir()
    told = list(run(wanted, datasets=None, cache=folder / "cache", out=folder))
    losses = [loss for event in told if isinstance(event, Progress) for _, _, loss, _ in event.intervals]
    tests = [(event.loss, event.accuracy) for event in told if isinstance(event, Evaluated)]
    return losses + tests, load_file(folder / "model.safetensors"), told[-1].results["cost"]


def assert_same(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.parametrize("name", BROADCAST)
def test_lean_is_the_same_to_the_bit(name, tmp_path):
    parts = fitting(name, rich=True, hidden=(24, 16, 24))
    lean = parts | {"method": replace(parts["method"], lean=True)}
    optimizer = OPTIMIZERS[len(name) % len(OPTIMIZERS)]
    assert_same(trained(chosen(parts, optimizer), tmp_path / "a"), trained(chosen(lean, optimizer), tmp_path / "b"))


def test_lean_with_maps_and_what_is_added_to_the_signal(tmp_path):
    regularizers = spec.Regularizers(power=spec.Power(weight=0.1), entropy=spec.Entropy(weight=0.1))
    model = spec.CNN(
        blocks=(
            spec.ConvBlock(channels=4, order=("conv", "norm", "activation", "pool"), pool=spec.Pooling(kind="max")),
        ),
        hidden=(16,),
        dropout=0.3,
    )
    both = [
        chosen({"method": spec.SBD(lean=lean, regularizers=regularizers), "model": model}, spec.Adam())
        for lean in (False, True)
    ]
    assert_same(*(trained(one, tmp_path / str(k)) for k, one in enumerate(both)))


@pytest.mark.parametrize(
    ("name", "optimizer", "precision"),
    [
        *((name, OPTIMIZERS[0], "fp32") for name in STREAMED),
        *(("mono_forward", optimizer, "fp32") for optimizer in OPTIMIZERS[1:]),
        ("sbd", OPTIMIZERS[1], "bf16"),
    ],
)
def test_an_update_as_soon_as_a_block_is_told_is_the_same_to_the_bit(name, optimizer, precision, tmp_path, monkeypatch):
    wanted = chosen(fitting(name, rich=True, hidden=(24, 16, 24)), optimizer, precision=precision)
    assert not memory.updates_as_told(wanted)
    together = trained(wanted, tmp_path / "a")
    monkeypatch.setattr(memory, "STREAMED_NUMBERS", 0)
    assert memory.updates_as_told(wanted)
    assert_same(together, trained(wanted, tmp_path / "b"))


def wide(method, batch_size):
    model = spec.MLP(hidden=(1024, 1024, 1024))
    return spec.Run(
        method=method,
        model=model,
        dataset=spec.FashionMNISTMini(train_samples=2 * batch_size, test_samples=10),
        training=spec.Training(epochs=1, batch_size=batch_size, seed=0, threads=1),
        alignment=spec.Alignment(every="never"),
    )


def step_bytes(wanted, cache):
    """What a step holds besides the state that outlives it."""
    cost = list(run(wanted, datasets=None, cache=cache))[-1].results["cost"]
    assert 0.5 < memory.peak_bytes(wanted) / cost["peak_memory_bytes"] < 2
    assert 0.5 < memory.saved_bytes(wanted) / cost["saved_activation_bytes"] < 2
    return cost["peak_memory_bytes"] - memory.state_bytes(wanted)


@pytest.mark.parametrize(("batch_size", "share"), [(32, 0.5), (512, 0.9)])
def test_a_step_holds_less(batch_size, share, tmp_path):
    bp, dfa, lean, local = (
        step_bytes(wide(method, batch_size), tmp_path)
        for method in (spec.BP(), spec.DFA(), spec.DFA(lean=True), spec.MonoForward())
    )
    assert lean < share * bp
    assert lean <= dfa < bp
    assert local < share * bp


def test_a_block_runs_again_as_it_ran():
    torch.manual_seed(3)
    block = torch.nn.Sequential(torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
    x, again = torch.randn(16, 8), Rerun(block)
    first = block(x)
    statistics, after = block[0].running_mean.clone(), torch.get_rng_state()
    assert torch.equal(again(x), first)
    assert torch.equal(block[0].running_mean, statistics)
    assert block[0].num_batches_tracked == 1
    assert torch.equal(torch.get_rng_state(), after)
