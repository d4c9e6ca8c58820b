"""Score broadcast and decorrelation: its equation, and what it is equal to where it should be."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from credit import spec
from credit.alignment import correlations, measure
from credit.events import Aligned, from_json
from credit.flow import error, params
from credit.losses import BRIER, LOSSES
from credit.nets.blocks import fingerprint
from credit.rule import hand_over
from credit.rules.sbd import slope
from tests.credit.builders import CLASSES, batch, build, generator

QUICK = 0.9
EVERYTHING = {
    "forgetting": QUICK,
    "g": "square",
    "normalize_r": True,
    "forward_projection": 0.3,
    "weight_sparsity": 0.25,
    "regularizers": spec.Regularizers(
        power=spec.Power(weight=0.1), entropy=spec.Entropy(weight=0.1, forgetting=QUICK, eps=1e-2), l1=0.01
    ),
    "score_expansion": spec.ScoreExpansion(kind="random_feat", features=2),
}
EXPANSIONS = ["none", "stack", "random_feat", "input_scale"]


def steps(net, rule, count, *, start=0):
    """Steps of Adam; the losses as they come."""
    optimizer = torch.optim.Adam(rule.learns(net), 0.01, weight_decay=0.01)
    for seed in range(start, start + count):
        credit = rule.assign(net, *batch(seed=seed, dtype=next(net.parameters()).dtype))
        hand_over(credit, net, rule)
        optimizer.step()
        rule.settle(net, 0.01)
        yield credit.loss


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def hidden_outputs(net, x):
    """What every block of the net says."""
    hs = []
    for block in net:
        x = block(x).detach()
        hs.append(x)
    return hs


def score(loss, net, x, y):
    """(N, C) the score, by its own formula."""
    z = net(x).detach()
    p = {"cross_entropy": z.softmax(1), "mse": z, "bce": z.sigmoid()}[loss]
    return p - F.one_hot(y, CLASSES)


# ---- losses ----


@pytest.mark.parametrize("loss", LOSSES)
def test_the_error_is_the_score_over_the_batch(loss):
    net, _ = build(spec.BP())
    x, y = batch()
    assert torch.allclose(error(LOSSES[loss], net(x), y)[1], score(loss, net, x, y) / len(y), rtol=1e-12, atol=1e-15)


def test_bce_sums_over_classes():
    z, y = torch.randn(4, CLASSES, generator=generator(0)).double(), torch.tensor([0, 1, 2, 3])
    p, t = z.sigmoid(), F.one_hot(y, CLASSES)
    assert torch.allclose(LOSSES["bce"](z, y), -(t * p.log() + (1 - t) * (1 - p).log()).sum(1).mean())


# ---- the equation ----


@pytest.mark.parametrize("g", ["identity", "square"])
@pytest.mark.parametrize("loss", LOSSES)
def test_sbd_is_its_equation(loss, g):
    net, rule = build(spec.SBD(forgetting=QUICK, g=g), hidden=(12, 9), loss=loss)
    (W1, b1), (W2, b2), _ = (params(block) for block in net)
    R1, R2 = rule.R_1, rule.R_2
    for seed in range(3):
        x, y = batch(seed=seed)
        n, h0 = len(y), x.flatten(1)
        h1 = torch.tanh(h0 @ W1.T + b1)
        h2 = torch.tanh(h1 @ W2.T + b2)
        s = score(loss, net, x, y)
        of, slope_of = (lambda h: h, torch.ones_like) if g == "identity" else (torch.square, lambda h: 2 * h)
        R1, R2 = (QUICK * R + (1 - QUICK) / n * s.T @ of(h) for R, h in ((R1, h1), (R2, h2)))
        d1, d2 = ((s @ R) * slope_of(h) * (1 - h**2) for R, h in ((R1, h1), (R2, h2)))
        expected = [d1.T @ h0, d1.sum(0), d2.T @ h1, d2.sum(0), s.T @ h2, s.sum(0)]
        ours = [gradient for block in rule.assign(net, x, y).blocks for gradient in block]
        for a, b in zip(ours, expected, strict=True):
            assert torch.allclose(a, b / n, rtol=1e-10, atol=1e-14)
        rule.settle(net, 0.1)
    assert torch.allclose(rule.R_1, R1.detach(), rtol=1e-12)
    assert torch.allclose(rule.R_2, R2.detach(), rtol=1e-12)


@pytest.mark.parametrize("net", ["mlp", "cnn", "mixer"])
@pytest.mark.parametrize("g", ["identity", "square"])
def test_the_signal_is_the_local_gradient_of_the_squared_correlation(g, net):
    """(1 − λ) q_k is ∂J_k/∂h_k with the score held fixed, J_k = ½‖R_k‖²."""
    net, rule = build(spec.SBD(forgetting=QUICK, g=g), net=net)
    x, y = batch(6)
    s = error(LOSSES["cross_entropy"], net(x), y)[1]
    before = [rule.get_buffer(f"R_{k}").clone() for k in (1, 2, 3)]
    ours = rule.assign(net, x, y)
    for k, (block, h) in enumerate(zip(net[:-1], hidden_outputs(net, x)[:-1], strict=True)):
        leaf = h.clone().requires_grad_()
        now = torch.tensordot(s, leaf.square() if g == "square" else leaf, ([0], [0]))
        J = 0.5 * (QUICK * before[k] + (1 - QUICK) * now).square().sum()
        (told,) = torch.autograd.grad(J, leaf)
        below = x if k == 0 else hidden_outputs(net, x)[k - 1]
        expected = torch.autograd.grad(block(below), params(block), told / (1 - QUICK))
        for a, b in zip(ours.blocks[k], expected, strict=True):
            assert (a - b).norm() < 1e-9 * b.norm() + 1e-15


@pytest.mark.parametrize("kind", EXPANSIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_forward_broadcast_is_the_gradient_through_the_score(loss, kind):
    """(1 − λ) (δ_L − e) / w is ∂Σ_k J_k/∂z with the activations held fixed."""
    expansion = spec.ScoreExpansion(kind=kind, companions=() if loss == "mse" else ("brier",))
    net, rule = build(spec.SBD(forgetting=QUICK, forward_projection=0.7, score_expansion=expansion), loss=loss)
    x, y = batch(6)
    *hs, z = hidden_outputs(net, x)
    before = [rule.get_buffer(f"R_{k}").clone() for k in (1, 2, 3)]

    def objective(z):
        s = rule.expansion(x, hs[-1], z, y, slope(LOSSES[loss], z, y))
        return sum(0.5 * (QUICK * R + (1 - QUICK) * s.T @ h).square().sum() for R, h in zip(before, hs, strict=True))

    told = rule.assign(net, x, y).blocks[-1][1]  # the bias of the output layer is told the sum of δ_L
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(leaf), leaf)
    expected = error(LOSSES[loss], z, y)[1] + 0.7 * gradient / (1 - QUICK)
    assert torch.allclose(told, expected.sum(0), rtol=1e-9, atol=1e-15)
    moved = z.clone()
    moved[2, 3] += 1e-5
    difference = (objective(moved) - objective(z)).item() / 1e-5
    assert difference == pytest.approx(gradient[2, 3].item(), rel=1e-3)


def test_the_forward_broadcast_of_the_squared_error_is_the_papers():
    """δ_L = ε + w Σ_k g(h_k) R_kᵀ, both over the batch."""
    net, rule = build(spec.EBD(forgetting=1.0, forward_projection=0.7), loss="mse")
    x, y = batch(6)
    *hs, z = hidden_outputs(net, x)
    told = (
        z - F.one_hot(y, CLASSES) + 0.7 * sum(h @ R.T for h, R in zip(hs, (rule.R_1, rule.R_2, rule.R_3), strict=True))
    )
    W, b = rule.assign(net, x, y).blocks[-1]
    assert torch.allclose(W, told.T @ hs[-1] / len(y), rtol=1e-10, atol=1e-15)
    assert torch.allclose(b, told.mean(0), rtol=1e-10, atol=1e-15)


# ---- identities ----


@pytest.mark.parametrize("net", ["mlp", "cnn", "mixer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_without_forgetting_sbd_is_dfa_bit_for_bit(loss, dtype, net):
    one, ours = build(spec.SBD(forgetting=1.0), net=net, loss=loss, dtype=dtype)
    two, theirs = build(spec.DFA(inject="post_activation"), net=net, loss=loss, dtype=dtype)
    for k in (1, 2, 3):
        setattr(theirs, f"B_{k}", ours.get_buffer(f"R_{k}").clone())
    assert all(torch.equal(a, b) for a, b in zip(steps(one, ours, 5), steps(two, theirs, 5), strict=True))
    assert fingerprint(one) == fingerprint(two)


@pytest.mark.parametrize("options", [{}, {"forgetting": QUICK}, EVERYTHING], ids=["default", "quick", "everything"])
def test_sbd_of_the_squared_error_is_ebd_bit_for_bit(options):
    runs = [build(method(**options), loss="mse") for method in (spec.SBD, spec.EBD)]
    one, two = (list(steps(net, rule, 20)) for net, rule in runs)
    assert same(one, two)
    assert fingerprint(runs[0][0]) == fingerprint(runs[1][0])
    assert same(*(list(rule.state_dict().values()) for _, rule in runs))


@pytest.mark.parametrize("loss", LOSSES)
def test_under_constant_activations_and_scores_the_correlation_has_its_closed_form(loss):
    net, rule = build(spec.SBD(forgetting=QUICK), loss=loss)
    x, y = batch()
    start = {k: rule.get_buffer(f"R_{k}").clone() for k in (1, 2, 3)}
    m = 30
    for _ in range(m):
        rule.assign(net, x, y)
        rule.settle(net, 0.1)
    s = score(loss, net, x, y)
    for k, h in enumerate(hidden_outputs(net, x)[:-1], start=1):
        expected = QUICK**m * start[k] + (1 - QUICK**m) * s.T @ h / len(y)
        assert torch.allclose(rule.get_buffer(f"R_{k}"), expected, rtol=1e-11, atol=1e-15)


def test_scores_of_the_cross_entropy_sum_to_zero_and_so_do_correlations_but_for_their_start():
    net, rule = build(spec.SBD(forgetting=QUICK))
    start = {k: rule.get_buffer(f"R_{k}").sum(0) for k in (1, 2, 3)}
    assert len(list(steps(net, rule, 15))) == 15
    for k, begun in start.items():
        assert torch.allclose(rule.get_buffer(f"R_{k}").sum(0), QUICK**15 * begun, rtol=1e-9, atol=1e-15)


def test_a_stack_of_one_loss_is_no_expansion():
    stack = spec.ScoreExpansion(kind="stack", companions=())
    runs = [
        build(spec.SBD(forgetting=QUICK, forward_projection=0.1, score_expansion=e))
        for e in (stack, spec.ScoreExpansion())
    ]
    assert same(*(list(steps(net, rule, 5)) for net, rule in runs))
    assert fingerprint(runs[0][0]) == fingerprint(runs[1][0])


# ---- score expansion ----


@pytest.mark.parametrize(("kind", "copies"), list(zip(EXPANSIONS, (1, 2, 5, 1), strict=True)))
@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_expanded_scores_keep_a_conditional_mean_of_zero(loss, kind, copies):
    """Where the net says the true probabilities of the classes: Σ_y p(y|x) s̃(x, y) = 0."""
    net, rule = build(spec.SBD(score_expansion=spec.ScoreExpansion(kind=kind)), loss=loss)
    x, _ = batch()
    p = torch.rand(len(x), CLASSES, dtype=torch.float64, generator=generator(2)).softmax(1)
    z = p.log() if loss == "cross_entropy" else p.logit()
    below, mean, size = hidden_outputs(net, x)[-2], 0.0, 0.0
    for c in range(CLASSES):
        y = torch.full((len(x),), c)
        expanded = rule.expansion(x, below, z, y, error(LOSSES[loss], z, y)[1])
        assert expanded.shape == (len(x), copies * CLASSES)
        mean, size = mean + p[:, c, None] * expanded, size + expanded.abs().mean()
    assert mean.abs().max() < 1e-14 < size
    assert rule.R_1.shape == (copies * CLASSES, 12)


def test_random_features_of_the_penultimate_layer_multiply_the_score():
    net, rule = build(spec.SBD(score_expansion=spec.ScoreExpansion(kind="random_feat", features=2)))
    x, y = batch()
    *_, below, z = hidden_outputs(net, x)
    s = error(LOSSES["cross_entropy"], z, y)[1]
    expanded = rule.expansion(x, below, z, y, s).reshape(len(x), 3, CLASSES)
    psi = below @ rule.expansion.psi
    assert torch.equal(expanded[:, 0], s)
    for j in (0, 1):
        assert torch.allclose(expanded[:, 1 + j], psi[:, j, None] * s)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_the_brier_score_goes_through_the_link(loss):
    z, y = torch.randn(9, CLASSES, generator=generator(0)).double(), torch.arange(9) % CLASSES
    p = z.softmax(1) if loss == "cross_entropy" else z.sigmoid()
    residual = p - F.one_hot(y, CLASSES)
    expected = (
        p * (residual - (p * residual).sum(1, keepdim=True)) if loss == "cross_entropy" else p * (1 - p) * residual
    )
    assert torch.allclose(error(BRIER[LOSSES[loss]], z, y)[1], expected / 9, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("kind", EXPANSIONS[1:])
def test_expansions_change_hidden_layers_and_not_the_output_layer(kind):
    x, y = batch()
    runs = [build(spec.SBD(score_expansion=spec.ScoreExpansion(kind=k))) for k in ("none", kind)]
    plain, ours = (rule.assign(net, x, y).blocks for net, rule in runs)
    assert same(plain[-1], ours[-1])
    assert not same(plain[0], ours[0])


# ---- options ----


def test_the_normalised_projection_does_not_depend_on_the_size_of_r():
    x, y = batch()
    runs = [
        build(spec.SBD(normalize_r=True, forgetting=1.0, r_init=spec.CorrelationInit(gain=gain)))
        for gain in (0.01, 10.0)
    ]
    one, two = ([g for block in rule.assign(net, x, y).blocks for g in block] for net, rule in runs)
    assert all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(one, two, strict=True))
    net, rule = runs[0]
    rule.R_1 = rule.R_1 / rule.R_1.norm() * math.sqrt(12)
    plain_net, plain = build(spec.SBD(forgetting=1.0))
    plain.R_1 = rule.R_1.clone()
    ours, theirs = rule.assign(net, x, y).blocks[0], plain.assign(plain_net, x, y).blocks[0]
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("distribution", "deviation"), [("xavier_uniform", math.sqrt(2 / (400 + CLASSES))), ("gaussian", 1.0)]
)
def test_correlations_start_as_the_papers_do(distribution, deviation):
    _, rule = build(spec.SBD(r_init=spec.CorrelationInit(distribution=distribution, gain=0.5)), hidden=(400, 300))
    assert rule.R_1.shape == (CLASSES, 400)
    assert float(rule.R_1.std()) == pytest.approx(0.5 * deviation, rel=0.05)


def test_sparse_weights_stay_zero_and_the_output_layer_dense():
    net, rule = build(spec.SBD(weight_sparsity=0.55))
    weights = [module.weight for module in net.modules() if isinstance(module, nn.Linear)]
    zeros = [weight.detach() == 0 for weight in weights]
    assert [int(mask.sum()) for mask in zeros] == [round(0.55 * weight.numel()) for weight in weights[:-1]] + [0]
    assert len(list(steps(net, rule, 5))) == 5
    assert all(torch.equal(weight.detach() == 0, mask) for weight, mask in zip(weights, zeros, strict=True))
    dense = build(spec.SBD())[0]
    assert all(
        torch.equal(a[~m], b[~m])
        for a, b, m in zip(
            *(
                [module.weight.detach() for module in each.modules() if isinstance(module, nn.Linear)]
                for each in (build(spec.SBD(weight_sparsity=0.55))[0], dense)
            ),
            zeros,
            strict=True,
        )
    )


def run(method, loss="cross_entropy", model=None):
    return spec.Run(method=method, loss=loss, model=model or spec.MLP(), dataset=spec.FashionMNISTMini())


@pytest.mark.parametrize(
    ("pointer", "parts"),
    [
        ("/method/weight_sparsity", {"method": spec.SBD(weight_sparsity=0.5), "model": spec.CNN()}),
        (
            "/method/score_expansion/companions",
            {"method": spec.SBD(score_expansion=spec.ScoreExpansion(kind="stack")), "loss": "mse"},
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(pointer, parts):
    with pytest.raises(spec.Incompatible) as refusal:
        run(**parts)
    assert refusal.value.pointer == pointer


# ---- state ----


@pytest.mark.parametrize("options", [{"forgetting": QUICK}, EVERYTHING], ids=["plain", "everything"])
def test_a_probe_moves_nothing_and_a_loaded_state_continues_bit_for_bit(options):
    net, rule = build(spec.SBD(**options))
    assert len(list(steps(net, rule, 3))) == 3
    kept = {name: tensor.clone() for name, tensor in rule.state_dict().items()}
    measure(net, rule, *batch(32))
    rule.settle(net, 0.1)
    assert same(kept.values(), rule.state_dict().values())
    other_net, other = build(spec.SBD(**options), seed=9)
    other_net.load_state_dict(net.state_dict())
    other.load_state_dict(kept)
    assert same(list(steps(net, rule, 4, start=3)), list(steps(other_net, other, 4, start=3)))
    assert fingerprint(net) == fingerprint(other_net)
    assert same(rule.state_dict().values(), other.state_dict().values())


def test_the_correlation_moves_when_a_step_is_settled_and_only_then():
    net, rule = build(spec.SBD(forgetting=QUICK))
    start = rule.R_1.clone()
    one, two = (rule.assign(net, *batch()) for _ in range(2))
    assert torch.equal(rule.R_1, start)
    assert all(same(a, b) for a, b in zip(one.blocks, two.blocks, strict=True))
    rule.settle(net, 0.1)
    assert not torch.equal(rule.R_1, start)
    assert torch.equal(rule.R0_1, start)


def test_the_correlation_is_kept_at_full_precision_under_autocast():
    net, rule = build(spec.SBD(**EVERYTHING), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        credit = rule.assign(net, *batch(dtype=torch.float32))
    assert {R.dtype for R in rule.pending.values()} == {torch.float32}
    assert all(g.isfinite().all() and g.dtype == torch.float32 for block in credit.blocks for g in block)
    full_net, full = build(spec.SBD(**EVERYTHING), dtype=torch.float32)
    full.assign(full_net, *batch(dtype=torch.float32))
    assert all(torch.allclose(rule.pending[k], full.pending[k], rtol=0.1, atol=1e-3) for k in (0, 1, 2))


# ---- what is logged ----


def test_the_cosine_between_r_and_its_start_is_logged_per_layer():
    net, rule = build(spec.SBD(forgetting=QUICK))
    assert list(rule.gauges()["layer/r_cosine"].values()) == pytest.approx([1.0] * 3, abs=1e-12)
    assert len(list(steps(net, rule, 10))) == 10
    moved = rule.gauges()["layer/r_cosine"]
    for k in (1, 2, 3):
        R, R0 = rule.get_buffer(f"R_{k}").flatten(), rule.get_buffer(f"R0_{k}").flatten()
        assert moved[f"hidden{k}"] == pytest.approx(F.cosine_similarity(R, R0, dim=0, eps=0).item(), abs=1e-12)
        assert moved[f"hidden{k}"] < 0.9
    rule.R_2.zero_()
    assert rule.gauges()["layer/r_cosine"]["hidden2"] is None


def test_gauges_and_correlations_are_points_of_the_probe():
    net, rule = build(spec.SBD())
    told = Aligned(step=3, epoch=0.5, layers=measure(net, rule, *batch(32)), gauges=rule.gauges())
    assert from_json(told.to_json()) == told
    points = {(point.series, point.layer): point.value for point in told.points()}
    assert points["layer/r_cosine", "hidden3"] == pytest.approx(1.0)
    assert {layer for series, layer in points if series == "layer/score_correlation"} == {
        "hidden1",
        "hidden2",
        "hidden3",
        "output",
    }
    assert Aligned(step=3, epoch=0.5, layers=[]).gauges == {}


def test_score_correlation_is_the_mean_of_absolute_pearson_coefficients():
    net, rule = build(spec.SBD())
    x, y = batch(32)
    s, h = score("cross_entropy", net, x, y), hidden_outputs(net, x)[0]
    both = torch.corrcoef(torch.cat((h, s), 1).T)[:12, 12:]
    assert torch.allclose(correlations(h, s / 32), both.abs(), rtol=1e-10)
    assert measure(net, rule, x, y)[0].score_correlation == pytest.approx(both.abs().mean().item(), rel=1e-10)


def test_units_that_never_change_have_no_correlation():
    h = torch.tensor([[0.0, 0.1, 1.0], [0.0, 0.1, 2.0], [0.0, 0.1, 4.0]])
    found = correlations(h, torch.tensor([[1.0], [2.0], [4.0]]))
    assert found[:2].isnan().all()
    assert found[2].item() == pytest.approx(1.0)
