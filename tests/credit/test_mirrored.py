"""Feedback alignment's kin: signs of W, learned B, learned and label-driven broadcast, each against its equation."""

import math

import pytest
import torch
import torch.nn.functional as F

from credit import spec
from credit.flow import params
from credit.mirror import weighted
from credit.rule import hand_over
from tests.credit.builders import CLASSES, batch, build, generator
from tests.credit.test_rules import assert_close, autograd, gradients

SIGNS = [spec.USF, spec.FRSF, spec.BRSF]


def angle(u, v):
    return math.degrees(math.acos(float(F.cosine_similarity(u.flatten(), v.flatten(), dim=0))))


def told(rule, net):
    """B of each mirrored layer, and its W."""
    weights = weighted(net)
    return [(rule.feedback(k, weights[path]), weights[path].detach()) for k, path in rule.layers.items()]


@pytest.mark.parametrize("kind", [spec.FRSF, spec.BRSF])
def test_sign_feedback_with_the_magnitudes_of_w_is_bp(kind):
    net, rule = build(kind())
    weights = weighted(net)
    for k, path in rule.layers.items():
        rule.get_buffer(f"M_{k}").copy_(weights[path])
    x, y = batch()
    assert_close(gradients(net, rule, x, y), autograd(net, "cross_entropy", x, y), torch.float64)


def test_usf_is_bp_where_w_is_its_signs():
    net, rule = build(spec.USF())
    with torch.no_grad():
        for B, W in told(rule, net):
            W.copy_(B)
    x, y = batch()
    assert_close(gradients(net, rule, x, y), autograd(net, "cross_entropy", x, y), torch.float64)


@pytest.mark.parametrize("kind", SIGNS)
def test_the_last_layer_may_send_its_true_weights(kind):
    net, rule = build(kind(last_layer="bp"))
    *signs, (B, W) = told(rule, net)
    assert torch.equal(B, W)
    assert all(not torch.equal(B, W) for B, W in signs)


@pytest.mark.parametrize("kind", SIGNS)
def test_feedback_always_has_the_signs_of_the_present_weights(kind):
    net, rule = build(kind())
    optimizer = torch.optim.SGD(net.parameters(), 1.0)
    for step in range(5):
        rule.advance(step, 5)
        hand_over(rule.assign(net, *batch(seed=step)), net, rule)
        optimizer.step()
        assert all(torch.equal(B.sign(), W.sign()) for B, W in told(rule, net))


@pytest.mark.parametrize(
    ("kind", "uniform", "gaussian"),
    [
        (spec.USF, math.acos(math.sqrt(3) / 2), math.acos(math.sqrt(2 / math.pi))),
        (spec.FRSF, math.acos(3 / 4), math.acos(2 / math.pi)),
    ],
)
def test_initial_angles_between_w_and_its_signs(kind, uniform, gaussian):
    """30.0° and 41.4° for uniform weights and magnitudes, 37.1° and 50.5° for Gaussian ones."""
    net, rule = build(kind(feedback=spec.LayerFeedback(init="kaiming_uniform")), hidden=(400, 400))
    (B, W), *_ = told(rule, net)
    assert angle(B, W) == pytest.approx(math.degrees(uniform), abs=0.5)
    net, rule = build(kind(feedback=spec.LayerFeedback(init="gaussian")), hidden=(400, 400))
    with torch.no_grad():
        net[1].parts[0].weight.normal_(generator=generator(3))
    (B, W), *_ = told(rule, net)
    assert angle(B, W) == pytest.approx(math.degrees(gaussian), abs=0.5)


@pytest.mark.parametrize("init", ["xavier_uniform", "kaiming_uniform", "gaussian"])
def test_the_constant_of_usf_is_the_deviation_of_the_initial_weights(init):
    net, rule = build(spec.USF(feedback=spec.LayerFeedback(init=init)), hidden=(40, 30))
    (B, _), *_ = told(rule, net)
    expected = {
        "xavier_uniform": math.sqrt(2 / 70),
        "kaiming_uniform": math.sqrt(1 / 120),
        "gaussian": math.sqrt(1 / 30),
    }
    assert B.abs().unique().tolist() == pytest.approx([expected[init]])


def test_brsf_redraws_at_every_step_and_repeats():
    (net, one), (_, two) = build(spec.BRSF()), build(spec.BRSF())
    seen = []
    for step in range(3):
        one.advance(step, 3)
        seen.append(told(one, net)[0][0].clone())
    assert not torch.equal(seen[0], seen[1])
    two.advance(2, 3)
    assert torch.equal(told(two, net)[0][0], seen[2])


# ---- Kolen-Pollack ----


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, 0.1),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, 0.01),
        lambda p: torch.optim.RMSprop(p, 0.01),
    ],
    ids=["sgd", "momentum", "adam", "rmsprop"],
)
def test_kp_shrinks_the_difference_by_its_decay_under_any_optimizer(optimizer):
    decay, steps = 0.9, 12
    net, rule = build(spec.KP(decay=decay))
    before = [(B - W).clone() for B, W in told(rule, net)]
    optimizer = optimizer([*rule.learns(net), *rule.parameters()])
    for step in range(steps):
        hand_over(rule.assign(net, *batch(seed=step)), net, rule)
        optimizer.step()
        rule.settle(net, 0.1)
    for (B, W), difference in zip(told(rule, net), before, strict=True):
        assert torch.allclose(B - W, decay**steps * difference, rtol=1e-9, atol=1e-12)


def test_kp_that_starts_at_w_is_bp_for_ever():
    net, rule = build(spec.KP())
    with torch.no_grad():
        for B, W in told(rule, net):
            B.copy_(W)
    optimizer = torch.optim.Adam([*rule.learns(net), *rule.parameters()], 0.01)
    for step in range(5):
        x, y = batch(seed=step)
        assert_close(gradients(net, rule, x, y), autograd(net, "cross_entropy", x, y), torch.float64)
        hand_over(rule.assign(net, x, y), net, rule)
        optimizer.step()
        rule.settle(net, 0.01)


# ---- learned and label-driven broadcast ----


def test_dkp_without_learning_is_dfa_bit_for_bit():
    frozen = spec.DKP(feedback=spec.LearnedFeedback(lr=0.0, decay=0.0))
    plain = spec.DFA(feedback=spec.BroadcastFeedback(kind="per_layer", normalize=False, gain=0.1))
    nets = [build(method) for method in (frozen, plain)]
    for step in range(5):
        x, y = batch(seed=step)
        for net, rule in nets:
            hand_over(rule.assign(net, x, y), net, rule)
            torch.optim.SGD(net.parameters(), 0.1).step()
            rule.settle(net, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(nets[0][0].parameters(), nets[1][0].parameters(), strict=True))


def test_dkp_is_kolen_pollack_for_the_last_hidden_layer():
    lr, decay, steps = 0.2, 0.05, 10
    net, rule = build(spec.DKP(feedback=spec.LearnedFeedback(decay=decay)))
    W = net[-1].parts[0].weight
    before = (rule.B_3 - W).detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr, weight_decay=decay / lr)
    for step in range(steps):
        hand_over(rule.assign(net, *batch(seed=step)), net, rule)
        optimizer.step()
        rule.settle(net, lr)
    assert torch.allclose((rule.B_3 - W).detach(), (1 - decay) ** steps * before, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_drtp_is_its_equation(reduction):
    net, rule = build(spec.DRTP(score_reduction=reduction), hidden=(12, 9))
    x, y = batch()
    (W1, b1), (W2, b2), (_, _) = (params(block) for block in net)
    h0 = x.flatten(1)
    h1 = torch.tanh(h0 @ W1.T + b1)
    h2 = torch.tanh(h1 @ W2.T + b2)
    targets = F.one_hot(y, CLASSES).double() / (len(y) if reduction == "mean" else 1)
    d1, d2 = ((targets @ B) * (1 - h**2) for B, h in ((rule.B_1, h1), (rule.B_2, h2)))
    assert_close(gradients(net, rule, x, y)[:4], [d1.T @ h0, d1.sum(0), d2.T @ h1, d2.sum(0)], torch.float64)


def test_drtp_needs_no_later_layer():
    net, rule = build(spec.DRTP())
    x, y = batch()
    before = gradients(net, rule, x, y)[:2]
    with torch.no_grad():
        for block in net[1:]:
            for parameter in block.parameters():
                parameter.mul_(-3)
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(net, rule, x, y)[:2], strict=True))


def test_drtp_does_not_care_about_the_sign_of_its_feedback():
    """With an odd nonlinearity, (W_1, b_1, B_1, W_2) and their negatives give the same logits for a whole run."""
    (one, plain), (two, flipped) = build(spec.DRTP(), hidden=(12,)), build(spec.DRTP(), hidden=(12,))
    with torch.no_grad():
        for tensor in (*two[0].parameters(), flipped.B_1, two[1].parts[0].weight):
            tensor.neg_()
    for step in range(50):
        x, y = batch(seed=step)
        answers = []
        for net, rule in ((one, plain), (two, flipped)):
            credit = rule.assign(net, x, y)
            answers.append(credit.outputs)
            hand_over(credit, net, rule)
            torch.optim.SGD(net.parameters(), 0.1).step()
        assert torch.equal(*answers)


# ---- PEPITA ----


def test_pepita_without_feedback_learns_at_the_output_alone():
    net, rule = build(spec.PEPITA())
    rule.F.zero_()
    x, y = batch()
    *hidden, weight, bias = gradients(net, rule, x, y)
    assert not any(gradient.any() for gradient in hidden)
    assert_close([weight, bias], autograd(net, "cross_entropy", x, y)[-2:], torch.float64)


@pytest.mark.parametrize("output_error", ["second", "first"])
def test_pepita_is_its_equation_and_needs_no_derivative(output_error):
    net, rule = build(spec.PEPITA(output_error=output_error), hidden=(12, 9), activation="relu", bias=False)
    for parameter in net.parameters():
        parameter.requires_grad_(requires_grad=False)
    x, y = batch()

    def forward(h):
        hs = [h.flatten(1)]
        for block in net:
            hs.append(block(h))
            h = hs[-1]
        return hs

    clean = forward(x)
    s = torch.softmax(clean[-1], 1) - F.one_hot(y, CLASSES)
    err = forward(x + (s @ rule.F.T).view_as(x))
    s_err = torch.softmax(err[-1], 1) - F.one_hot(y, CLASSES) if output_error == "second" else s
    expected = [(clean[1] - err[1]).T @ err[0], (clean[2] - err[2]).T @ err[1], s_err.T @ err[2]]
    assert_close(gradients(net, rule, x, y), [g / len(y) for g in expected], torch.float64)
