"""Regularisers at a block's output: gradients, the inverse they keep, and their place in every broadcast method."""

import pytest
import torch

from credit import spec
from credit.alignment import measure
from credit.flow import params
from credit.penalties import Penalties, l1_gradient, power_gradient, renewed
from tests.credit.builders import METHODS, batch, build, generator

OFF = {"power": {"weight": 0.0, "target": 0.25}, "entropy": {"weight": 0.0, "forgetting": 0.99, "eps": 1e-3}, "l1": 0.0}
BROADCAST = [name for name, method in METHODS.items() if hasattr(method, "regularizers")]
ALL = spec.Regularizers(
    power=spec.Power(weight=0.3, target=0.2), entropy=spec.Entropy(weight=0.5, forgetting=0.9, eps=1e-2), l1=0.1
)


def activations(n=6, samples=10, seed=0):
    return torch.randn(samples, n, dtype=torch.float64, generator=generator(seed))


def penalties(n=6, **weights):
    """For one hidden block of n units, in float64."""
    return Penalties([torch.Size([n])], **OFF | weights).double()


def differences(objective, h, step=1e-6):
    """Central finite differences of a function of all activations."""
    found = torch.empty_like(h)
    for at in range(h.numel()):
        ends = []
        for sign in (1, -1):
            moved = h.clone()
            moved.view(-1)[at] += sign * step
            ends.append(objective(moved))
        found.view(-1)[at] = (ends[0] - ends[1]) / (2 * step)
    return found


def assert_gradient(ours, objective, h):
    """Ours is that of autograd and, more loosely, of finite differences."""
    leaf = h.clone().requires_grad_()
    (true,) = torch.autograd.grad(objective(leaf), leaf)
    assert (ours - true).norm() < 1e-12 * true.norm()
    assert (ours - differences(objective, h)).norm() < 1e-6 * true.norm()


def test_power_gradient():
    assert_gradient(
        power_gradient(activations(), 0.25), lambda h: (h.square().mean(0) - 0.25).square().sum(), activations()
    )


def test_power_gradient_of_maps():
    h = torch.randn(5, 2, 3, 2, dtype=torch.float64, generator=generator(1))
    assert_gradient(power_gradient(h, 0.25), lambda h: (h.square().mean(0) - 0.25).square().sum(), h)


def test_l1_gradient():
    assert_gradient(l1_gradient(activations()), lambda h: h.abs().sum(1).mean(), activations())


def test_entropy_gradient_is_that_of_half_the_log_determinant():
    ours = penalties(entropy={"weight": 1.0, "forgetting": 0.9, "eps": 1e-2})
    for seed in range(3):  # A is no longer trivial
        ours.added(0, activations(seed=seed), torch.zeros(10, 6))
        ours.settle()
    A, ridge = torch.linalg.inv(ours.inverse_1), ours._ridge(activations())

    def entropy(h):
        return 0.5 * torch.logdet(0.9 * A + 0.1 * (h.mT @ h / len(h) + ridge.mT @ ridge))

    h = activations(seed=9)
    assert_gradient(-ours.added(0, h, torch.zeros_like(h)), entropy, h)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("forgetting", [0.9, 0.999])
def test_the_kept_inverse_is_the_direct_one_after_many_updates(dtype, tolerance, forgetting):
    """Units that never fire included, whose part of A is the ridge alone."""
    n = 8
    ours = penalties(n, entropy={"weight": 1.0, "forgetting": forgetting, "eps": 1e-3}).to(dtype)
    A = torch.linalg.inv(ours.inverse_1.double())
    source = generator(3)
    for _ in range(1000):
        h = torch.randn(20, n, dtype=torch.float64, generator=source)
        h[:, :2] = 0
        ridge = ours._ridge(h)
        A = forgetting * A + (1 - forgetting) * (h.mT @ h / 20 + ridge.mT @ ridge)
        ours.added(0, h.to(dtype), torch.zeros(20, n, dtype=dtype))
        ours.settle()
    direct = torch.linalg.inv(A)
    assert (ours.inverse_1.double() - direct).norm() < tolerance * direct.norm()
    assert torch.equal(ours.inverse_1, ours.inverse_1.mT)


@pytest.mark.parametrize("forgetting", [0.99999, 0.97, 0.5])
def test_the_ridge_of_a_round_is_eps_times_the_identity(forgetting):
    ours = penalties(12, entropy={"weight": 1.0, "forgetting": forgetting, "eps": 0.02})
    h, total, turns = activations(12), torch.zeros(12, 12, dtype=torch.float64), 12
    for _ in range(turns):
        ridge = ours._ridge(h)
        total += ridge.mT @ ridge / turns
        ours.turn += 1
    assert torch.allclose(total, 0.02 * torch.eye(12, dtype=torch.float64), atol=1e-15)


def test_renewing_is_the_inverse_of_the_sum():
    source = generator(4)
    root, rows = (torch.randn(k, 7, dtype=torch.float64, generator=source) for k in (9, 3))
    A = root.mT @ root + torch.eye(7, dtype=torch.float64)
    direct = torch.linalg.inv(0.8 * A + rows.mT @ rows)
    assert torch.allclose(renewed(torch.linalg.inv(A), rows, 0.8), direct, rtol=1e-10, atol=1e-12)


def test_only_a_settled_step_of_training_moves_the_inverse():
    ours = penalties(entropy={"weight": 1.0, "forgetting": 0.9, "eps": 1e-2})
    before, q = ours.inverse_1.clone(), torch.zeros(10, 6, dtype=torch.float64)
    ours.eval()
    ours.added(0, activations(), q)
    ours.settle()
    assert torch.equal(ours.inverse_1, before)
    assert ours.turn == 0
    ours.train()
    ours.added(0, activations(), q)
    assert torch.equal(ours.inverse_1, before)
    ours.settle()
    assert not torch.equal(ours.inverse_1, before)
    assert ours.turn == 1


def test_without_weights_the_signal_is_the_very_same_tensor_and_nothing_is_kept():
    none, q = penalties(), activations(seed=1)
    assert none.added(0, activations(), q) is q
    assert not none.state_dict()


def test_penalties_are_added_at_full_precision_under_autocast():
    ours = penalties(power={"weight": 1.0, "target": 0.25}, entropy={"weight": 1.0, "forgetting": 0.9, "eps": 1e-2})
    h = activations().to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        told = ours.float().added(0, h, torch.zeros(10, 6, dtype=torch.bfloat16))
    assert told.dtype == torch.float32
    assert ours.pending["inverse_1"].dtype == torch.float32


def test_every_broadcast_method_has_them():
    assert BROADCAST == ["dfa", "dkp", "drtp", "sbd", "ebd"]


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("name", BROADCAST)
def test_a_method_with_regularisers_is_told_its_signal_and_their_gradients(name, net):
    """The gradients of hidden blocks are those of ⟨q + penalties, h⟩; the output block knows nothing of them."""
    options = {"inject": "post_activation", "regularizers": ALL}
    (one, without), (two, with_) = (
        build(kind, net=net) for kind in (type(METHODS[name])(inject="post_activation"), type(METHODS[name])(**options))
    )
    without.eval(), with_.eval()  # A = εI
    x, y = batch()
    plain, ours = without.assign(one, x, y), with_.assign(two, x, y)
    h = x
    for k, block in enumerate(two):
        h = block(h.detach())
        expected = plain.blocks[k]
        if k < len(two) - 1:
            d = h.square().mean(0) - 0.2
            told = 0.3 * 4 / len(x) * d * h + 0.1 * h.sign() / len(x)
            if h.dim() == 2:
                told = told - 0.5 * 0.1 / len(x) * h / 1e-2
            extra = torch.autograd.grad(h, params(block), told.detach())
            expected = [a + b for a, b in zip(expected, extra, strict=True)]
        for a, b in zip(ours.blocks[k], expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-7, atol=1e-12)


def test_a_probe_moves_nothing_and_a_loaded_state_continues():
    net, rule = build(spec.DFA(regularizers=ALL))
    for seed in range(3):
        rule.assign(net, *batch(seed=seed))
        rule.settle(net, 0.1)
    before = {name: tensor.clone() for name, tensor in rule.state_dict().items()}
    measure(net, rule, *batch(32))
    rule.settle(net, 0.1)
    assert all(torch.equal(rule.state_dict()[name], tensor) for name, tensor in before.items())
    _, other = build(spec.DFA(regularizers=ALL), seed=7)
    other.load_state_dict(before)
    for seed in range(3):
        ours, theirs = (each.assign(net, *batch(seed=seed)) for each in (rule, other))
        assert all(
            torch.equal(a, b)
            for one, two in zip(ours.blocks, theirs.blocks, strict=True)
            for a, b in zip(one, two, strict=True)
        )
        rule.settle(net, 0.1)
        other.settle(net, 0.1)


def test_dfa_with_power_holds_the_power():
    """What ReLU nets need under dfa: activations that stay near the target instead of growing."""
    rms = []
    for weight in (0.0, 1.0):
        net, rule = build(
            spec.DFA(regularizers=spec.Regularizers(power=spec.Power(weight=weight))), adaptive=True, activation="relu"
        )
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for seed in range(200):
            for block, told in zip(net, rule.assign(net, *batch(seed=seed % 4)).blocks, strict=True):
                for parameter, gradient in zip(block.parameters(), told, strict=True):
                    parameter.grad = gradient
            optimizer.step()
        rms.append(net[:-1](batch(64)[0]).square().mean().sqrt().item())
    assert 0.3 < rms[1] < 0.7 < rms[0]
