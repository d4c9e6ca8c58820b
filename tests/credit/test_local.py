"""Local methods: Mono-Forward, local losses and Forward-Forward, against their equations and autograd."""

import pytest
import torch
import torch.nn.functional as F

from credit import spec
from credit.flow import params
from credit.heads import Projection, pooling
from credit.rule import hand_over
from credit.rules.ff import normalised
from credit.rules.local_loss import similarity
from tests.credit.builders import CLASSES, batch, build, generator
from tests.credit.test_rules import assert_close, gradients

LOCAL = [spec.MonoForward(), spec.LocalLoss(loss="pred"), spec.LocalLoss(loss="sim"), spec.LocalLoss(), spec.FF()]


def own(rule, credit):
    return dict(zip((name for name, _ in rule.named_parameters()), credit.own, strict=True))


# ---- locality ----


@pytest.mark.parametrize("method", LOCAL, ids=lambda m: f"{m.name}-{getattr(m, 'loss', '')}")
def test_a_layer_learns_the_same_whatever_stands_above_it(method):
    net, rule = build(method)
    rule.eval()  # running means stay
    x, y = batch()
    before = [gradient.clone() for gradient in rule.assign(net, x, y).blocks[0]]
    with torch.no_grad():
        for parameter in (
            *net[1:].parameters(),
            *(p for n, p in rule.named_parameters() if not n.startswith("heads.0")),
        ):
            parameter.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, rule.assign(net, x, y).blocks[0], strict=True))


def test_the_global_form_of_ff_is_not_local():
    net, rule = build(spec.FF(locality="global"))
    x, y = batch()
    before = [gradient.clone() for gradient in rule.assign(net, x, y).blocks[0]]
    with torch.no_grad():
        net[1].parts[0].weight.add_(1)
    assert not any(torch.equal(a, b) for a, b in zip(before, rule.assign(net, x, y).blocks[0], strict=True))


# ---- Mono-Forward ----


def test_mono_forward_with_one_hidden_layer_is_bp_of_w_and_m():
    net, rule = build(spec.MonoForward(), hidden=(12,))
    x, y = batch()
    assert len(net) == 1
    expected = torch.autograd.grad(F.cross_entropy(net(x), y), params(net))
    assert_close(gradients(net, rule, x, y), list(expected), torch.float64)


@pytest.mark.parametrize("bias", [True, False])
def test_mono_forward_is_its_equation(bias):
    net, rule = build(spec.MonoForward(), hidden=(12, 9), bias=bias)
    x, y = batch()
    credit = rule.assign(net, x, y)
    (W1, *b1), (W2, *b2) = params(net[0]), params(net[1])[: 1 + bias]
    M1, M2 = rule.heads[0].weight, params(net[1])[1 + bias]
    c2 = params(net[1])[-1] if bias else 0
    h0 = x.flatten(1)
    h1 = torch.tanh(h0 @ W1.T + sum(b1))
    h2 = torch.tanh(h1 @ W2.T + sum(b2))
    e1, e2 = (torch.softmax(G, 1) - F.one_hot(y, CLASSES) for G in (h1 @ M1.T, h2 @ M2.T + c2))
    d1, d2 = (e1 @ M1) * (1 - h1**2), (e2 @ M2) * (1 - h2**2)
    first, second = [d1.T @ h0, d1.sum(0)], [d2.T @ h1, d2.sum(0), e2.T @ h2, e2.sum(0)]
    expected = first + second if bias else [first[0], second[0], second[2]]
    assert_close([g for block in credit.blocks for g in block], [g / len(y) for g in expected], torch.float64)
    assert_close([own(rule, credit)["heads.0.weight"]], [e1.T @ h1 / len(y)], torch.float64)


@pytest.mark.parametrize("predict", ["sum", "last"])
def test_mono_forward_predicts_by_the_sum_of_goodness_or_by_the_last(predict):
    net, rule = build(spec.MonoForward(predict=predict))
    x, _ = batch()
    scores, layers = rule.predict(net, x)
    assert list(layers) == ["hidden1", "hidden2", "output"]
    expected = torch.stack(list(layers.values())).sum(0) if predict == "sum" else layers["output"]
    assert torch.equal(scores, expected)
    assert torch.equal(layers["output"], net(x))


def test_greedy_mono_forward_trains_one_block_after_the_other():
    net, rule = build(spec.MonoForward(schedule="greedy"))
    optimizer = torch.optim.Adam([*net.parameters(), *rule.parameters()], 0.01)
    moved = []
    for step in range(9):
        before = [
            [parameter.clone() for parameter in (*params(block), *params(head))]
            for block, head in zip(net, rule.heads, strict=True)
        ]
        rule.advance(step, 9)
        hand_over(rule.assign(net, *batch(seed=step)), net, rule)
        optimizer.step()
        after = [(*params(block), *params(head)) for block, head in zip(net, rule.heads, strict=True)]
        moved.append(
            [not all(torch.equal(p, q) for p, q in zip(a, b, strict=True)) for a, b in zip(before, after, strict=True)]
        )
    assert moved == [[True, False, False]] * 3 + [[False, True, False]] * 3 + [[False, False, True]] * 3


def test_goodness_against_every_wrong_class_is_cross_entropy():
    """log(1 + Σ_j exp(g_j − g_+)) over all wrong classes is softmax cross-entropy; one sampled negative does not."""
    G = torch.randn(50, CLASSES, dtype=torch.float64, generator=generator(1))
    y = torch.randint(CLASSES, (50,), generator=generator(2))
    gaps = G - G.gather(1, y[:, None])
    wrong = torch.ones_like(G).scatter(1, y[:, None], 0)
    full = torch.log(1 + (wrong * gaps.exp()).sum(1))
    assert torch.allclose(full, F.cross_entropy(G, y, reduction="none"), rtol=1e-12)
    one = torch.log(1 + gaps.gather(1, ((y + 1) % CLASSES)[:, None]).exp())[:, 0]
    assert not torch.allclose(one, full)


@pytest.mark.parametrize(
    ("shape", "limit", "window"),
    [
        ((800,), 10, 1),
        ((8, 16, 16), 2048, 1),
        ((8, 16, 16), 512, 2),
        ((8, 15, 15), 512, 2),
        ((64, 7, 7), 576, 3),
        ((49, 32), 2048, 1),
        ((49, 32), 800, 2),
        ((3, 4, 4), 1, 4),
    ],
)
def test_maps_are_pooled_until_they_fit(shape, limit, window):
    assert pooling(shape, limit) == window
    head = Projection(shape, CLASSES, generator(0), init="kaiming_uniform", max_features=limit)
    assert head(torch.randn(2, *shape)).shape == (2, CLASSES)


# ---- local losses ----


def test_pred_alone_is_mono_forward():
    """Without zero initialisation and bias of the decoders, and through the same readouts."""
    mono, mono_rule = build(spec.MonoForward())
    pred, pred_rule = build(spec.LocalLoss(loss="pred", decoder_init="kaiming_uniform", decoder_bias=False))
    for one, two in zip(mono_rule.heads[:2], pred_rule.heads[:2], strict=True):
        two.decoder.weight.data.copy_(one.weight)
    x, y = batch()
    ours, theirs = mono_rule.assign(mono, x, y), pred_rule.assign(pred, x, y)
    for k in (0, 1):
        assert_close(list(ours.blocks[k]), list(theirs.blocks[k]), torch.float64)
        assert_close(
            [own(mono_rule, ours)[f"heads.{k}.weight"]],
            [own(pred_rule, theirs)[f"heads.{k}.decoder.weight"]],
            torch.float64,
        )


def test_a_zero_decoder_tells_its_block_nothing_at_first():
    net, rule = build(spec.LocalLoss(loss="pred"))
    credit = rule.assign(net, *batch())
    assert not any(gradient.any() for block in credit.blocks[:-1] for gradient in block)
    assert all(gradient.any() for gradient in credit.own)
    scores, layers = rule.predict(net, batch()[0])
    assert list(layers) == ["hidden1", "hidden2", "hidden3"]
    assert not layers["hidden1"].any()
    assert torch.equal(scores, net(batch()[0]))


def test_similarity_is_symmetric_with_unit_diagonal_and_blind_to_scale_and_shift_of_rows():
    v = torch.randn(20, 30, dtype=torch.float64, generator=generator(4))
    S = similarity(v)
    assert torch.allclose(S, S.T)
    assert torch.allclose(S.diagonal(), torch.ones(20, dtype=torch.float64))
    changed = v * torch.rand(20, 1, generator=generator(5)) * 9 + torch.randn(20, 1, generator=generator(6))
    assert torch.allclose(similarity(changed), S, atol=1e-6)


@pytest.mark.parametrize("kind", ["pred", "sim", "predsim"])
def test_local_losses_agree_with_finite_differences(kind):
    """Of the loss written out, along a random direction in the first block's weights and its heads."""
    net, rule = build(spec.LocalLoss(loss=kind, decoder_init="kaiming_uniform", beta=0.6), hidden=(12,))
    x, y = batch()
    head = rule.heads[0]
    wanted = similarity(F.one_hot(y, CLASSES).double())

    def loss():
        h = net[0](x)
        pred = F.cross_entropy(head.decoder(h), y) if kind != "sim" else 0
        sim = (similarity(h @ head.matching.weight.T) - wanted).square().mean() if kind != "pred" else 0
        return {"pred": pred, "sim": sim, "predsim": 0.4 * pred + 0.6 * sim}[kind]

    credit = rule.assign(net, x, y)
    pairs = list(zip((*params(net[0]), *params(head)), (*credit.blocks[0], *credit.own), strict=True))
    assert slope_error(loss, pairs) < 1e-6


def slope_error(loss, pairs, step=1e-5):
    """Relative difference between Σ g·d and the central difference of the loss along random directions d."""
    directions = [torch.randn(p.shape, dtype=p.dtype, generator=generator(k)) for k, (p, _) in enumerate(pairs)]
    expected = sum((gradient * d).sum() for (_, gradient), d in zip(pairs, directions, strict=True))
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for (parameter, _), d in zip(pairs, directions, strict=True):
                parameter.add_(d, alpha=sign * step)
            values.append(loss())
    return float(abs((values[0] - values[1]) / (2 * step) - expected) / abs(expected))


# ---- Forward-Forward ----


def test_negatives_never_carry_the_true_label_and_all_others_come():
    _, rule = build(spec.FF())
    y = torch.zeros(5000, dtype=torch.int64) + 3
    seen = []
    for step in range(2):
        rule.advance(step, 2)
        seen.append(rule.wrong(y))
    assert all(sorted(wrong.unique().tolist()) == [0, 1, 2, 4, 5, 6] for wrong in seen)
    assert not torch.equal(*seen)


def test_labels_replace_the_first_numbers_of_an_image():
    _, rule = build(spec.FF())
    x, y = batch(4)
    labelled = rule.labelled(x, F.one_hot(y, CLASSES)).flatten(1)
    assert torch.equal(labelled[:, :CLASSES], F.one_hot(y, CLASSES).double())
    assert torch.equal(labelled[:, CLASSES:], x.flatten(1)[:, CLASSES:])
    assert torch.allclose(rule.neutral(x).flatten(1)[:, :CLASSES], torch.tensor(1 / CLASSES).double())


def test_only_the_direction_of_an_activity_reaches_the_next_layer():
    z = torch.rand(6, 30, dtype=torch.float64, generator=generator(0))
    assert torch.allclose(normalised(z), normalised(100 * z))
    assert torch.allclose(normalised(z).square().mean(1), torch.ones(6, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("peer", [0.0, 0.5])
def test_ff_is_its_equation(peer):
    """δ = 2u (σ(G − θ) − t) over the 2N samples, plus the peer term's gradient, through ReLU."""
    net, rule = build(spec.FF(theta=2.0, peer_weight=peer), hidden=(12, 9), activation="relu")
    x, y = batch()
    rule.eval()
    credit = rule.assign(net, x, y)
    z = torch.cat([rule.labelled(x, F.one_hot(label, CLASSES)) for label in (y, rule.wrong(y))]).flatten(1)
    t = torch.cat((torch.ones(len(y)), torch.zeros(len(y)))).double()
    for k in (0, 1):
        W, b = params(net[k])
        below = normalised(z)
        u = torch.relu(below @ W.T + b).detach()
        delta = 2 * u * (torch.sigmoid(u.square().sum(1) - 2.0) - t)[:, None] / len(t)
        r = 0.1 * u[: len(y)].mean(0)
        pull = 2 / len(r) * (r - r.mean()) * 0.1 / len(y)  # the mean over units carries no gradient of its own
        delta[: len(y)] += peer * pull * (u[: len(y)] > 0)
        assert_close(list(credit.blocks[k]), [delta.T @ below, delta.sum(0)], torch.float64)
        z = u


def test_the_peer_means_move_in_training_alone():
    net, rule = build(spec.FF())
    rule.eval()
    rule.assign(net, *batch())
    assert not rule.r_1.any()
    rule.train()
    rule.assign(net, *batch())
    assert rule.r_1.any()


def test_goodness_inference_takes_the_label_with_the_greatest_goodness_of_later_layers():
    net, rule = build(spec.FF(inference="goodness"))
    x, _ = batch(5)
    scores, layers = rule.predict(net, x)
    assert list(layers) == ["hidden1", "hidden2", "hidden3"]
    assert torch.allclose(scores, layers["hidden2"] + layers["hidden3"])
    z = rule.labelled(x, F.one_hot(torch.full((5,), 2), CLASSES))
    for block in net[:-1]:
        z = block(normalised(z))
    assert torch.allclose(layers["hidden3"][:, 2], z.square().sum(1))


def test_linear_inference_learns_from_the_neutral_image():
    net, rule = build(spec.FF())
    x, y = batch()
    credit = rule.assign(net, x, y)
    z, activities = rule.neutral(x), []
    with torch.no_grad():
        for block in net[:-1]:
            z = block(normalised(z))
            activities.append(normalised(z))
    W, b = params(net[-1])
    scores = activities[2] @ W.T + b + activities[1] @ rule.heads[0].T
    expected = torch.autograd.grad(F.cross_entropy(scores, y), (W, b, rule.heads[0]))
    assert_close([*credit.blocks[-1], *credit.own], list(expected), torch.float64)
    assert torch.allclose(rule.predict(net, x).scores, scores)
