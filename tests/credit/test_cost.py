"""Costs: counted on a real step, and equal to arithmetic on the spec."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from credit import estimate, spec
from credit.losses import LOSSES
from credit.meter import metered
from credit.nets import build_net
from credit.rule import Task
from credit.rules import build_rule
from credit.train import run
from tests.credit.builders import METHODS, NETS, PAIRS, batch, build, fitting, trains


def chosen(method, **model):
    return spec.Run(
        method=method,
        model=spec.MLP(hidden=(40, 30), **model),
        dataset=spec.FashionMNISTMini(train_samples=300, test_samples=100),
        loss=method.losses[0],
        training=spec.Training(epochs=1, batch_size=100, seed=0, threads=1),
        alignment=spec.Alignment(every="never"),
    )


@pytest.mark.parametrize("name", METHODS)
def test_counted_equals_calculated(name, tmp_path):
    batch_norm = not METHODS[name].plain
    activation = fitting(name)["model"].activation
    wanted = chosen(METHODS[name], batch_norm=batch_norm, bias=False, activation=activation)
    cost = list(run(wanted, datasets=None, cache=tmp_path))[-1].results["cost"]
    assert cost["parameters"] == estimate.parameters(wanted) == 784 * 40 + 40 * 30 + 30 * 10 + 2 * 70 * batch_norm
    assert cost["flops_per_step"] == estimate.flops_per_step(wanted)
    assert cost["train_seconds"] > 0
    assert cost["peak_memory_bytes"] > cost["saved_activation_bytes"] > 0


def counted(wanted):
    """FLOPs of one assignment of credit, and the parameters of the net."""
    source = torch.Generator().manual_seed(0)
    shape, classes, n = wanted.dataset.shape, wanted.dataset.classes, wanted.training.batch_size
    net = build_net(wanted.model, wanted.method, shape, classes, source)
    x, y = torch.randn(n, *shape, generator=source), torch.arange(n)
    rule = build_rule(wanted.method, net, Task(LOSSES[wanted.loss], x[:1], source, adaptive=False))
    with metered((*net.parameters(), *rule.parameters(), *rule.buffers(), x)) as cost:
        rule.assign(net, x, y)
    return cost.flops, sum(parameter.numel() for parameter in net.parameters())


FLOWS = {
    "bp": spec.BP(),
    "shallow": spec.Shallow(),
    "fa": spec.FA(),
    "dfa": spec.DFA(),
    "dfa, post_activation": spec.DFA(inject="post_activation"),
    "mono_forward": spec.MonoForward(),
}


@pytest.mark.parametrize("method", FLOWS.values(), ids=FLOWS)
@pytest.mark.parametrize("name", spec.menu(spec.Model))
def test_counted_equals_calculated_for_every_model(name, method):
    wanted = spec.Run(
        method=method,
        model=spec.menu(spec.Model)[name](),
        dataset=spec.CIFAR10(),
        training=spec.Training(batch_size=2),
    )
    assert counted(wanted) == (estimate.flops_per_step(wanted), estimate.parameters(wanted))


VARIANTS = [
    spec.FF(locality="global"),
    spec.LocalLoss(loss="pred"),
    spec.LocalLoss(loss="sim", similarity_std=False),
    spec.MonoForward(head=spec.Head(max_features=16)),
    spec.SBD(forgetting=1.0),
    spec.SBD(forward_projection=0.1),
    spec.SBD(score_expansion=spec.ScoreExpansion(kind="random_feat")),
    spec.SBD(score_expansion=spec.ScoreExpansion(kind="stack")),
]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *((METHODS[name], kind) for name, kind in PAIRS),
        *((method, kind) for method in VARIANTS for kind, model in NETS.items() if trains(method, model)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_counted_equals_calculated_for_every_method(method, kind):
    wanted = spec.Run(
        method=method,
        model=NETS[kind],
        dataset=spec.MNIST(),
        loss=method.losses[0],
        training=spec.Training(batch_size=5),
    )
    assert counted(wanted)[0] == estimate.flops_per_step(wanted)


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
