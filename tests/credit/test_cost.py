"""Costs: counted on a real step, and equal to arithmetic on the spec."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from credit import estimate, spec
from credit.meter import metered
from credit.train import run
from tests.credit.builders import METHODS, batch, build


def chosen(method, **model):
    return spec.Run(
        method=method,
        model=spec.MLP(hidden=(40, 30), **model),
        dataset=spec.FashionMNISTMini(train_samples=300, test_samples=100),
        training=spec.Training(epochs=1, batch_size=100, seed=0, threads=1),
        alignment=spec.Alignment(every="never"),
    )


@pytest.mark.parametrize("name", METHODS)
def test_counted_equals_calculated(name, tmp_path):
    wanted = chosen(METHODS[name], batch_norm=True, bias=False)
    cost = list(run(wanted, datasets=None, cache=tmp_path))[-1].results["cost"]
    assert cost["parameters"] == estimate.parameters(wanted) == 784 * 40 + 40 * 30 + 30 * 10 + 2 * 70
    assert cost["flops_per_step"] == estimate.flops_per_step(wanted)
    assert cost["train_seconds"] > 0
    assert cost["peak_memory_bytes"] > cost["saved_activation_bytes"] > 0


def test_parameters_of_launay_fc():
    wanted = replace(chosen(spec.BP()), model=spec.LaunayFC(), dataset=spec.CIFAR10())
    assert estimate.parameters(wanted) == 3072 * 800 + 800 + 2 * (800 * 800 + 800) + 800 * 10 + 10


def test_dfa_does_two_thirds_of_bps_arithmetic_and_shallow_a_third():
    bp, dfa, shallow = (
        estimate.flops_per_step(replace(chosen(method), model=spec.MLP(hidden=(2048,) * 8)))
        for method in (spec.BP(), spec.DFA(), spec.Shallow())
    )
    assert dfa / bp == pytest.approx(0.69, abs=0.02)
    assert shallow / bp == pytest.approx(0.34, abs=0.02)


def test_live_and_saved_bytes_are_those_of_the_tensors():
    """y = tanh(x W): saved are x (known here) and y; live at most are y, its gradient and that of W."""
    x, W = torch.randn(50, 20), torch.randn(20, 30, requires_grad=True)
    with metered((x, W)) as cost:
        y = torch.tanh(x @ W)
        gradient = torch.autograd.grad(y, W, torch.ones_like(y))[0]
        del y, gradient
    assert cost.flops == 2 * 2 * 50 * 20 * 30
    assert cost.saved_bytes == 4 * 50 * 30
    assert 4 * 50 * 30 * 2 < cost.peak_bytes <= 4 * (50 * 30 * 4 + 20 * 30)


def test_metering_changes_no_number():
    net, rule = build(spec.DFA())
    plain = rule.assign(net, *batch())
    with metered(net.parameters()):
        watched = rule.assign(net, *batch())
    assert all(
        torch.equal(a, b)
        for one, two in zip(plain.blocks, watched.blocks, strict=True)
        for a, b in zip(one, two, strict=True)
    )


LIMITED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from credit import spec
from credit.events import RunError
from credit.train import run
wanted = spec.Run(method=spec.BP(), model=spec.MLP(hidden=(65_536, 65_536)), dataset=spec.FashionMNISTMini(),
                  training=spec.Training(seed=0, threads=1))
try:
    list(run(wanted, datasets=None, cache=Path(sys.argv[1])))
except RunError as error:
    print(error.code, error)
"""


def test_memory_that_cannot_be_had_is_named(tmp_path):
    """In a process of its own that may have 6 GiB of addresses; the second layer alone needs 16."""
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("out_of_memory this machine's memory does not suffice"), done.stderr
