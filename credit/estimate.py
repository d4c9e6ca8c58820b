"""Parameters and floating-point operations of a spec by arithmetic, for dry runs. No torch."""

import math
from collections.abc import Sequence

from credit import spec
from credit.spec.layers import Learned, Shape, pooled, pooling
from credit.spec.plan import LayerPlan, Placed, blocks, plan

Parts = Sequence[Placed]
Net = Sequence[Parts]
"""Blocks of parts."""


def layers(run: spec.Run) -> list[LayerPlan]:
    return plan(run.model, run.dataset.shape, run.dataset.classes)


def parameters(run: spec.Run) -> int:
    """Trainable numbers of the net: weights, biases, and the scales and shifts of norms."""
    return sum(module.numbers for layer in layers(run) for module in learned(layer.parts))


def flops_per_step(run: spec.Run) -> int:
    """Floating-point operations of the matrix products and convolutions of a full batch's step, a multiply-add as two.

    Whatever the method, each product of the forward pass costs one more for the gradient of its weight, and one for
    that of its input if anything before it in the same graph is to be told. Methods differ in what is one graph, in
    what they make their signals of, and in what else they learn. The entropy regulariser's products are left out.
    """
    net = blocks(layers(run), run.method)
    return 2 * run.training.batch_size * _products(run, net)


def _products(run: spec.Run, net: Net) -> int:
    """Multiply-adds of a step per sample."""
    classes, whole = run.dataset.classes, joined(net)
    match run.method:
        case spec.Shallow():
            return forward(whole) + backward(net[-1])
        case spec.DFA() | spec.DRTP():
            return by_blocks(net) + broadcast(net, classes)
        case spec.DKP():
            return by_blocks(net) + 2 * broadcast(net, classes)
        case spec.SBD() | spec.EBD():
            return by_blocks(net) + _correlated(run.method, net, classes)
        case spec.MonoForward():
            return _mono_forward(run.method, net, classes)
        case spec.LocalLoss():
            return by_blocks(net) + _local_heads(run.method, net, classes, run.training.batch_size)
        case spec.FF():
            return _forward_forward(run.method, net, classes)
        case spec.PEPITA():
            return 3 * forward(whole) + classes * math.prod(run.dataset.shape)
        case _:
            return forward(whole) + backward(whole)


# ---- the net alone ---------------------------------------------------------------------------------------------------


def learned(parts: Parts) -> list[Learned]:
    return [module for placed in parts for module in placed.part.learned(placed.shape)]


def joined(net: Net) -> Parts:
    return [placed for block in net for placed in block]


def forward(parts: Parts) -> int:
    """A forward pass."""
    return sum(module.products for module in learned(parts))


def backward(graph: Parts) -> int:
    """The gradients of one graph's parameters: through weights, and through inputs of all but its first module."""
    _, *later = modules = learned(graph)
    return sum(module.products for module in (*modules, *later))


def by_blocks(net: Net) -> int:
    """A forward pass, and the gradients of each block on a graph of its own."""
    return forward(joined(net)) + sum(backward(block) for block in net)


def ends(net: Net) -> list[Shape]:
    """Shapes of the hidden blocks' outputs."""
    return [following[0].shape for following in net[1:]]


def broadcast(net: Net, classes: int) -> int:
    """s B_k for every hidden block, B_k of classes × numbers at the block's output."""
    return sum(classes * math.prod(shape) for shape in ends(net))


# ---- what methods add ------------------------------------------------------------------------------------------------


def _correlated(method: spec.SBD | spec.EBD, net: Net, classes: int) -> int:
    """s̃ R_k, the update of R_k where it moves, and the forward broadcast; random features of s̃."""
    expansion = method.score_expansion
    features = expansion.features if expansion.kind == "random_feat" else 0
    copies = 1 + features + (len(expansion.companions) if expansion.kind == "stack" else 0)
    uses = 1 + (method.forgetting < 1) + (method.forward_projection > 0)
    return uses * broadcast(net, classes * copies) + features * math.prod(ends(net)[-1])


def _mono_forward(method: spec.MonoForward, net: Net, classes: int) -> int:
    """Each projection costs its product, and the gradients of M and h; greedy: the mean over the blocks' turns."""
    limit = method.head.max_features
    heads = [3 * classes * math.prod(pooled(shape, pooling(shape, limit))) for shape in ends(net)] + [0]
    if method.schedule == "simultaneous":
        return by_blocks(net) + sum(heads)
    turns = [
        forward(joined(net[: k + 1])) + backward(block) + head
        for k, (block, head) in enumerate(zip(net, heads, strict=True))
    ]
    return sum(turns) // len(turns)


def _local_heads(method: spec.LocalLoss, net: Net, classes: int, samples: int) -> int:
    """Decoders; matching layers and the similarities of all pairs of samples: thrice each, as a weight's product."""
    pred = method.loss == "pred" or (method.loss == "predsim" and method.beta < 1)
    sim = method.loss == "sim" or (method.loss == "predsim" and method.beta > 0)
    products = samples * classes  # the similarities of the labels, a forward product
    for shape in ends(net):
        if pred:
            products += 3 * classes * math.prod(pooled(shape, pooling(shape, method.dim_in_decoder)))
        if sim:
            maps = len(shape) == 3
            matched = shape[0] * 9 if maps else shape[-1]
            compared = shape[0] if maps and method.similarity_std else math.prod(shape)
            products += 3 * (math.prod(shape) * matched + samples * compared)
    return products


def _forward_forward(method: spec.FF, net: Net, classes: int) -> int:
    """Positive and negative samples train the hidden blocks, neutral ones the readout of all layers but the first."""
    *hidden, output = net
    contrast = by_blocks(hidden) if method.locality == "local" else forward(joined(hidden)) + backward(joined(hidden))
    between = sum(2 * classes * math.prod(shape) for shape in ends(net)[1:-1])
    return 2 * contrast + forward(joined(net)) + backward(output) + between
