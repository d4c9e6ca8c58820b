"""The alignment probe: exact where theory says so, null where undefined, and without any effect on the run."""

import math

import pytest
import torch
import torch.nn.functional as F

from credit import spec
from credit.alignment import PIECE, cosines, measure
from credit.flow import params
from tests.credit.builders import CLASSES, METHODS, PAIRS, TRUE_OUTPUT, batch, build

FIELDS = ("delta_cosine", "preactivation_cosine", "update_cosine", "norm_ratio")


def test_bp_aligns_with_itself_in_every_layer():
    net, rule = build(spec.BP(), batch_norm=True, dropout=0.2)
    for layer in measure(net, rule, *batch(64)):
        assert [getattr(layer, field) for field in FIELDS] == pytest.approx([1.0] * 4, abs=1e-12)
        assert layer.delta_angle == pytest.approx(0.0, abs=1e-5)
        assert layer.delta_cosine_std == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("name", "kind"), TRUE_OUTPUT)
def test_the_output_layer_is_exact(name, kind):
    """Not ff's, which reads the neutral image and is compared with backpropagation on the labelled one."""
    net, rule = build(METHODS[name], kind=kind)
    layer = measure(net, rule, *batch(64))[-1]
    assert layer.layer == "output"
    assert [getattr(layer, field) for field in FIELDS] == pytest.approx([1.0] * 4, abs=1e-12)


def test_random_feedback_is_orthogonal_at_the_start():
    n = 800
    net, rule = build(spec.DFA(), hidden=(n, n, n), dtype=torch.float32)
    *hidden, _ = measure(net, rule, *batch(128, dtype=torch.float32))
    assert [layer.layer for layer in hidden] == ["hidden1", "hidden2", "hidden3"]
    for layer in hidden:
        assert abs(layer.delta_cosine) < 4 / math.sqrt(n)
        assert layer.delta_angle == pytest.approx(90, abs=10)


def test_every_number_is_its_definition():
    """Recomputed by hand for a two-layer tanh net under DFA."""
    net, rule = build(spec.DFA(score_reduction="sum"), hidden=(12, 9))
    x, y = batch(8)
    first, second, _ = measure(net, rule, x, y)
    (W1, b1), (W2, b2), (W3, b3) = (params(block) for block in net)
    h1 = torch.tanh(x.flatten(1) @ W1.T + b1)
    h2 = torch.tanh(h1 @ W2.T + b2)
    s = torch.softmax(h2 @ W3.T + b3, 1) - F.one_hot(y, CLASSES)
    g2 = s @ W3
    g1 = (g2 * (1 - h2**2)) @ W2
    for layer, q, g, h, below in ((first, s @ rule.B_1, g1, h1, x.flatten(1)), (second, s @ rule.B_2, g2, h2, h1)):
        cosine = F.cosine_similarity(q, g, dim=1, eps=0)
        before = [v * (1 - h**2) for v in (q, g)]
        updates = [(d.T @ below).flatten() for d in before]
        assert layer.delta_cosine == pytest.approx(cosine.mean().item(), abs=1e-12)
        assert layer.delta_cosine_std == pytest.approx(cosine.std().item(), abs=1e-12)
        assert layer.delta_angle == pytest.approx(torch.rad2deg(cosine.acos()).mean().item(), abs=1e-9)
        assert layer.preactivation_cosine == pytest.approx(
            F.cosine_similarity(*before, dim=1, eps=0).mean().item(), abs=1e-12
        )
        assert layer.update_cosine == pytest.approx(F.cosine_similarity(*updates, dim=0, eps=0).item(), abs=1e-12)
        assert layer.norm_ratio == pytest.approx((len(y) * q.norm(dim=1) / g.norm(dim=1)).mean().item(), rel=1e-12)
        assert layer.activation_rms == pytest.approx(h.square().mean().sqrt().item(), rel=1e-12)


def test_fa_at_the_output_of_the_last_hidden_layer_is_told_through_b():
    net, rule = build(spec.FA(), hidden=(12,))
    x, y = batch(8)
    layer = measure(net, rule, x, y)[0]
    (W1, b1), (W2, b2) = (params(block) for block in net)
    s = torch.softmax(torch.tanh(x.flatten(1) @ W1.T + b1) @ W2.T + b2, 1) - F.one_hot(y, CLASSES)
    expected = F.cosine_similarity(s @ rule.B_2, s @ W2, dim=1, eps=0).mean().item()
    assert layer.delta_cosine == pytest.approx(expected, abs=1e-12)


def test_the_cut_does_not_change_what_is_measured_where_nothing_lies_between():
    ours = [measure(*build(spec.DFA(inject=inject)), *batch()) for inject in ("layer_input", "post_activation")]
    assert ours[0] == ours[1]


def test_undefined_is_none():
    net, rule = build(spec.Shallow())
    *hidden, _ = measure(net, rule, *batch())
    for layer in hidden:
        assert [getattr(layer, field) for field in FIELDS] == [None] * 4
        assert layer.delta_angle is None
        assert layer.activation_rms > 0
    net, rule = build(spec.DFA(forward_init="zeros"))
    assert [layer.delta_cosine for layer in measure(net, rule, *batch())[:-1]] == [None] * 3  # BP's gradient is zero


def test_cosines_of_tiny_but_real_gradients_are_exact_and_of_none_are_nan():
    u = torch.tensor([[3.0, 4.0], [1e-12, 0.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    g = torch.tensor([[4.0, 3.0], [1e-12, 1e-12], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    found = cosines(u, g)
    assert found[:2].tolist() == pytest.approx([0.96, math.sqrt(0.5)])
    assert found[2:].isnan().all()


def test_long_vectors_are_multiplied_by_pieces_of_the_same_sum():
    generator = torch.Generator().manual_seed(0)
    u, g = torch.randn(2, 2, 2 * PIECE + 3, dtype=torch.float64, generator=generator)
    assert cosines(u, g).tolist() == pytest.approx(F.cosine_similarity(u, g).tolist(), abs=1e-15)


@pytest.mark.parametrize("rule", [spec.BP(), spec.DFA(), spec.DFA(lean=True), spec.SBD(), spec.MonoForward()])
def test_a_probe_runs_the_net_once_for_the_method_and_for_backpropagation(rule):
    net, rule = build(rule)
    runs = []
    for block in net:
        block.register_forward_hook(lambda block, *_: runs.append(block))
    measure(net, rule, *batch())
    assert runs == list(net)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_probe_moves_nothing(name, kind):
    options = {} if METHODS[name].plain else {"batch_norm": True, "dropout": 0.5}
    net, rule = build(METHODS[name], kind=kind, **options)
    net.train()
    rule.assign(net, *batch())  # running statistics are no longer trivial
    before = {key: tensor.clone() for key, tensor in (*net.state_dict().items(), *rule.state_dict().items())}
    state = torch.get_rng_state()
    one, two = (measure(net, rule, *batch(32)) for _ in range(2))
    after = {**net.state_dict(), **rule.state_dict()}
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in net.modules())
    assert all(not module._forward_hooks for module in net.modules())
    assert one == two
