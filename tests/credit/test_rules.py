"""Every rule against its equation, and the identities between rules."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from credit import spec
from credit.flow import params
from credit.losses import LOSSES
from credit.nets.blocks import fingerprint
from credit.optimizers import build_optimizer
from credit.rule import draw_broadcast, hand_over
from tests.credit.builders import CLASSES, METHODS, MOVING, NETS, PAIRS, TRUE_OUTPUT, batch, build, generator

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
PRECISIONS = pytest.mark.parametrize("dtype", TOLERANCE)


def gradients(net, rule, x, y):
    return [gradient for block in rule.assign(net, x, y).blocks if block is not None for gradient in block]


def autograd(net, loss, x, y):
    return list(torch.autograd.grad(LOSSES[loss](net(x), y), params(net)))


def assert_close(ours, theirs, dtype):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).detach().norm() <= TOLERANCE[dtype] * max(1.0, float(b.detach().norm()))


@PRECISIONS
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("bias", [True, False])
def test_bp_is_autograd(dtype, loss, bias):
    net, rule = build(spec.BP(), loss=loss, dtype=dtype, bias=bias, batch_norm=True)
    x, y = batch(dtype=dtype)
    assert_close(gradients(net, rule, x, y), autograd(net, loss, x, y), dtype)


@PRECISIONS
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (spec.SGD(lr=0.1, momentum=0.9, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
        (spec.Adam(lr=0.01), lambda p: torch.optim.Adam(p, 0.01)),
        (spec.AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, 0.01)),
        (spec.RMSprop(lr=0.001), lambda p: torch.optim.RMSprop(p, 0.001)),
    ],
    ids=["sgd", "adam", "adamw", "rmsprop"],
)
def test_training_with_bp_is_plain_torch_training(dtype, ours, theirs):
    net, rule = build(spec.BP(), dtype=dtype)
    plain, _ = build(spec.BP(), dtype=dtype)
    optimizer, reference = build_optimizer(ours, net.parameters()), theirs(plain.parameters())
    for step in range(20):
        x, y = batch(dtype=dtype, seed=step)
        hand_over(rule.assign(net, x, y), net, rule)
        optimizer.step()
        reference.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        reference.step()
    assert_close(list(net.parameters()), list(plain.parameters()), dtype)


@PRECISIONS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", NETS)
def test_fa_with_b_equal_to_w_is_bp(dtype, bias, kind):
    net, rule = build(spec.FA(), kind=kind, dtype=dtype, bias=bias)
    for k, path in rule.layers.items():
        setattr(rule, f"B_{k}", net.get_submodule(path).weight.detach().clone())
    x, y = batch(dtype=dtype)
    assert_close(gradients(net, rule, x, y), autograd(net, "cross_entropy", x, y), dtype)


def test_the_mirror_trains_with_dropout_and_moves_the_nets_own_statistics():
    net, rule = build(spec.FA(), batch_norm=True, dropout=0.5)
    rule.chain(net.eval())
    net.train()
    one, two = (rule.assign(net, *batch()) for _ in range(2))
    assert not torch.equal(one.loss, two.loss)
    assert net[0].parts[-1].running_mean.any()


def test_fa_is_its_equation():
    net, rule = build(spec.FA(), hidden=(12, 9), activation="tanh")
    x, y = batch()
    (W1, b1), (W2, b2), (W3, b3) = (params(block) for block in net)
    h0 = x.flatten(1)
    h1 = torch.tanh(h0 @ W1.T + b1)
    h2 = torch.tanh(h1 @ W2.T + b2)
    s = torch.softmax(h2 @ W3.T + b3, 1) - F.one_hot(y, CLASSES)
    d2 = (s @ rule.B_3) * (1 - h2**2)
    d1 = (d2 @ rule.B_2) * (1 - h1**2)
    expected = [d1.T @ h0, d1.sum(0), d2.T @ h1, d2.sum(0), s.T @ h2, s.sum(0)]
    assert_close(gradients(net, rule, x, y), [g / len(y) for g in expected], torch.float64)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_dfa_is_its_equation(loss, reduction):
    net, rule = build(spec.DFA(score_reduction=reduction), hidden=(12, 9), loss=loss)
    x, y = batch()
    (W1, b1), (W2, b2), (W3, b3) = (params(block) for block in net)
    h0 = x.flatten(1)
    h1 = torch.tanh(h0 @ W1.T + b1)
    h2 = torch.tanh(h1 @ W2.T + b2)
    z = h2 @ W3.T + b3
    s = (torch.softmax(z, 1) if loss == "cross_entropy" else z) - F.one_hot(y, CLASSES)
    n = len(y)
    d1, d2 = ((s @ B) * (1 - h**2) * (n if reduction == "sum" else 1) for B, h in ((rule.B_1, h1), (rule.B_2, h2)))
    expected = [d1.T @ h0, d1.sum(0), d2.T @ h1, d2.sum(0), s.T @ h2, s.sum(0)]
    assert_close(gradients(net, rule, x, y), [g / n for g in expected], torch.float64)


@PRECISIONS
def test_dfa_with_one_hidden_layer_and_b_equal_to_w2_is_bp(dtype):
    net, rule = build(spec.DFA(), hidden=(12,), dtype=dtype)
    rule.B_1 = net[1].parts[0].weight.detach().clone()
    x, y = batch(dtype=dtype)
    assert_close(gradients(net, rule, x, y), autograd(net, "cross_entropy", x, y), dtype)


def test_dfa_sends_the_signal_through_batch_norm_and_dropout():
    """δ_k is q_k pulled back through the adjoints of norm, activation and dropout (in this order of the block)."""
    net, rule = build(spec.DFA(), batch_norm=True, dropout=0.3)
    x, y = batch()
    torch.manual_seed(3)
    ours = rule.assign(net, x, y)
    torch.manual_seed(3)
    h, hs = x, []
    for block in net:
        h = block(h.detach())
        hs.append(h)
    s = (torch.softmax(h, 1) - F.one_hot(y, CLASSES)).detach() / len(y)
    for k, block in enumerate(net[:-1]):
        q = s @ getattr(rule, f"B_{k + 1}")
        assert_close(list(ours.blocks[k]), list(torch.autograd.grad((hs[k] * q).sum(), params(block))), torch.float64)


def test_sum_is_n_times_mean_in_hidden_layers_alone():
    x, y = batch()
    mean, total = (gradients(*build(spec.DFA(score_reduction=reduction)), x, y) for reduction in ("mean", "sum"))
    assert_close(total[:-2], [g * len(y) for g in mean[:-2]], torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(total[-2:], mean[-2:], strict=True))


def test_layer_input_and_post_activation_agree_where_nothing_lies_between():
    x, y = batch()
    ours = [gradients(*build(spec.DFA(inject=inject)), x, y) for inject in ("layer_input", "post_activation")]
    assert all(torch.equal(a, b) for a, b in zip(*ours, strict=True))


def test_post_activation_hands_the_norm_to_the_next_block_and_keeps_weights_and_order():
    one, two = (build(spec.DFA(inject=inject), batch_norm=True)[0] for inject in ("layer_input", "post_activation"))
    assert [type(block.parts[0]) for block in two[1:]] == [nn.BatchNorm1d] * 3
    assert [type(block.parts[-1]) for block in one[:-1]] == [nn.BatchNorm1d] * 3
    assert list(one.tensors()) == list(two.tensors())
    assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), two.tensors().values(), strict=True))


def test_sign_transform_broadcasts_the_sign_of_the_score():
    net, rule = build(spec.DFA(score_transform="sign"), hidden=(12,))
    x, y = batch()
    (W1, b1), (W2, b2) = (params(block) for block in net)
    h1 = torch.tanh(x.flatten(1) @ W1.T + b1)
    s = torch.softmax(h1 @ W2.T + b2, 1) - F.one_hot(y, CLASSES)
    d1 = (s.sign() @ rule.B_1) * (1 - h1**2) / len(y)
    assert_close(gradients(net, rule, x, y)[:2], [d1.T @ x.flatten(1), d1.sum(0)], torch.float64)


def test_forward_init_zeros():
    net, _ = build(spec.DFA(forward_init="zeros"))
    assert all(not parameter.any() for parameter in net.parameters())


# ---- feedback ----


def broadcast_feedback(sizes, **options):
    settings = {
        "kind": "unified",
        "distribution": "gaussian",
        "normalize": True,
        "gain": 1.0,
        "adaptive": False,
    } | options
    return draw_broadcast([torch.Size([n]) for n in sizes], 10, generator(0), **settings)


@pytest.mark.parametrize("kind", ["unified", "per_layer"])
@pytest.mark.parametrize("distribution", ["gaussian", "uniform", "kaiming_uniform"])
def test_normalised_feedback_has_expected_norm_one(kind, distribution):
    for B in broadcast_feedback([800, 400, 800], kind=kind, distribution=distribution):
        assert float(B.norm()) == pytest.approx(1.0, abs=4 / math.sqrt(2 * B.numel()))


def test_unified_feedback_is_shared_by_layers_of_equal_width_and_sliced_for_narrower_ones():
    wide, narrow, same = broadcast_feedback([800, 200, 800])
    assert torch.equal(wide, same)
    assert torch.allclose(narrow, wide[:, :200] * math.sqrt(800 / 200))


def test_per_layer_feedback_is_independent():
    one, two = broadcast_feedback([800, 800], kind="per_layer")
    assert abs(float((one * two).sum())) < 4 / math.sqrt(one.numel())


def test_normalisation_is_an_exact_factor():
    for plain, unit in zip(broadcast_feedback([30, 20], normalize=False), broadcast_feedback([30, 20]), strict=True):
        assert torch.allclose(plain, unit * math.sqrt(10 * plain.shape[1]))


@pytest.mark.parametrize(
    ("distribution", "bound"), [("uniform", lambda n: 1 / n**0.5), ("kaiming_uniform", lambda n: (6 / n) ** 0.5)]
)
def test_uniform_feedback_has_the_published_bounds(distribution, bound):
    for B in broadcast_feedback([300, 500], kind="per_layer", distribution=distribution, normalize=False):
        assert 0.99 * bound(B.shape[1]) < float(B.abs().max()) <= bound(B.shape[1])


def test_auto_gain_gives_unit_rows_under_adaptive_optimizers():
    for B in broadcast_feedback([800, 400], gain="auto", adaptive=True):
        assert float(B.std()) == pytest.approx(1 / math.sqrt(10), rel=0.05)
    assert torch.equal(broadcast_feedback([800], gain="auto")[0], broadcast_feedback([800])[0])


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("xavier_uniform", lambda i, o: math.sqrt(2 / (i + o))),
        ("kaiming_uniform", lambda i, o: 1 / math.sqrt(3 * i)),
        ("uniform_fanout", lambda i, o: 1 / math.sqrt(3 * o)),
        ("gaussian", lambda i, o: 1 / math.sqrt(o)),
    ],
)
def test_layer_feedback_distributions(init, deviation):
    _, rule = build(spec.FA(feedback=spec.LayerFeedback(init=init)), hidden=(400, 300))
    assert rule.B_2.shape == (300, 400)
    assert float(rule.B_2.std()) == pytest.approx(deviation(400, 300), rel=0.02)


# ---- what all rules share ----


def step(net, rule, optimizer, seed):
    hand_over(rule.assign(net, *batch(seed=seed)), net, rule)
    optimizer.step()


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_fixed_state_is_bit_identical_at_the_end(name, kind):
    """Feedback never moves; shallow's hidden weights never move, weight decay notwithstanding."""
    net, rule = build(METHODS[name], kind=kind)
    frozen = {} if name in MOVING else {key: value.clone() for key, value in rule.named_buffers()}
    hidden = [parameter.detach().clone() for block in net[:-1] for parameter in block.parameters()]
    optimizer = torch.optim.AdamW(rule.learns(net), 0.01, weight_decay=0.1)
    for seed in range(10):
        step(net, rule, optimizer, seed)
    assert all(torch.equal(rule.get_buffer(key), value) for key, value in frozen.items())
    moved = [not torch.equal(p, q) for p, q in zip((p for b in net[:-1] for p in b.parameters()), hidden, strict=True)]
    assert not any(moved) if name == "shallow" else all(moved)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_gradients_fit_the_parameters_are_finite_and_not_zero(name, kind, bias):
    net, rule = build(METHODS[name], kind=kind, bias=bias)
    credit = rule.assign(net, *batch())
    for block, told in zip(net, credit.blocks, strict=True):
        trained = any(parameter is other for parameter in block.parameters() for other in rule.learns(net))
        assert (told is not None) == trained
        for parameter, gradient in zip(block.parameters(), told or (), strict=bool(told)):
            assert gradient.shape == parameter.shape
            assert gradient.dtype == parameter.dtype
            assert gradient.isfinite().all()
            assert gradient.any()
            assert not gradient.requires_grad


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_assign_writes_nothing_where_state_may_not_move(name, kind):
    net, rule = build(METHODS[name], kind=kind)
    rule.eval()
    before = [tensor.clone() for tensor in (*net.parameters(), *rule.buffers())]
    state = torch.get_rng_state()
    one, two = (rule.assign(net, *batch()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(before, (*net.parameters(), *rule.buffers()), strict=True))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.loss, two.loss)
    assert not one.loss.requires_grad
    assert not one.outputs.requires_grad
    for a, b in zip(one.blocks, two.blocks, strict=True):
        assert a is b is None or all(torch.equal(g, h) for g, h in zip(a, b, strict=True))


@pytest.mark.parametrize(("name", "kind"), TRUE_OUTPUT)
def test_the_output_layers_weight_is_told_the_true_gradient(name, kind):
    net, rule = build(METHODS[name], kind=kind)
    x, y = batch()
    told = rule.assign(net, x, y).blocks[-1][-2:]
    assert_close(told, autograd(net, "cross_entropy", x, y)[-2:], torch.float64)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_same_seed_gives_every_method_the_same_weights(name, kind):
    assert fingerprint(build(METHODS[name], kind=kind)[0]) == fingerprint(build(spec.BP(), kind=kind)[0])
    assert fingerprint(build(METHODS[name], kind=kind, seed=9)[0]) != fingerprint(build(spec.BP(), kind=kind)[0])
