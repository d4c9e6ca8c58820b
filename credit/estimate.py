"""Parameters and floating-point operations of a spec by arithmetic, for dry runs. No torch."""

import math
from collections.abc import Callable, Sequence

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
    net, classes = blocks(layers(run), run.method), run.dataset.classes
    products = PRODUCTS.get(type(run.method), _backward)(run, net, classes)
    if isinstance(run.method, spec.BroadcastMethod) and run.method.lean:
        products += forward(joined(net))
    return 2 * run.training.batch_size * products


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
    """The signals s B_k of every hidden block, B_k of classes × numbers at the block's output."""
    return sum(classes * math.prod(shape) for shape in ends(net))


# ---- multiply-adds of a step per sample, by method -------------------------------------------------------------------


def _backward(_: spec.Run, net: Net, __: int) -> int:
    """One graph through every block, whatever the errors come back through."""
    return forward(joined(net)) + backward(joined(net))


def _shallow(_: spec.Run, net: Net, __: int) -> int:
    return forward(joined(net)) + backward(net[-1])


def _broadcast(_: spec.Run, net: Net, classes: int) -> int:
    return by_blocks(net) + broadcast(net, classes)


def _learned_broadcast(_: spec.Run, net: Net, classes: int) -> int:
    """B_k learns from a product of its own size."""
    return by_blocks(net) + 2 * broadcast(net, classes)


def _correlated(run: spec.Run, net: Net, classes: int) -> int:
    """s̃ R_k, the update of R_k where it moves, and the forward broadcast; random features of s̃."""
    method = run.method
    assert isinstance(method, spec.SBD | spec.EBD)
    expansion = method.score_expansion
    features = expansion.features if expansion.kind == "random_feat" else 0
    copies = 1 + features + (len(expansion.companions) if expansion.kind == "stack" else 0)
    uses = 1 + (method.forgetting < 1) + (method.forward_projection > 0)
    return by_blocks(net) + uses * broadcast(net, classes * copies) + features * math.prod(ends(net)[-1])


def _mono_forward(run: spec.Run, net: Net, classes: int) -> int:
    """Each projection costs its product, and the gradients of M and h; greedy: the mean over the blocks' turns."""
    method = run.method
    assert isinstance(method, spec.MonoForward)
    heads = [readout(shape, classes, method.head.max_features) for shape in ends(net)] + [0]
    if method.schedule == "simultaneous":
        return by_blocks(net) + sum(heads)
    turns = [
        forward(joined(net[: k + 1])) + backward(block) + head
        for k, (block, head) in enumerate(zip(net, heads, strict=True))
    ]
    return sum(turns) // len(turns)


def _local_loss(run: spec.Run, net: Net, classes: int) -> int:
    """Decoders; matching layers and the similarities of all pairs of samples, thrice each as any product."""
    method, samples = run.method, run.training.batch_size
    assert isinstance(method, spec.LocalLoss)
    beta = {"pred": 0.0, "sim": 1.0, "predsim": method.beta}[method.loss]
    products = samples * classes  # the similarities of the labels: no gradient
    for shape in ends(net):
        if beta < 1:
            products += readout(shape, classes, method.dim_in_decoder)
        if beta > 0:
            maps = len(shape) == 3
            matched = math.prod(shape) * (9 * shape[0] if maps else shape[-1])
            compared = shape[0] if maps and method.similarity_std else math.prod(shape)
            products += 3 * (matched + samples * compared)
    return by_blocks(net) + products


def readout(shape: Shape, classes: int, max_features: int) -> int:
    """A projection with the gradients of its weight and of what it reads; tokens are averaged by a product."""
    window = pooling(shape, max_features)
    averages = shape[0] * math.prod(pooled(shape, window)) if len(shape) == 2 and window > 1 else 0
    return 3 * projection(shape, classes, max_features) + 2 * averages


def projection(shape: Shape, classes: int, max_features: int) -> int:
    """The weights of a projection, each of which is one multiplication of its product."""
    return classes * math.prod(pooled(shape, pooling(shape, max_features)))


def _forward_forward(run: spec.Run, net: Net, classes: int) -> int:
    """Positive and negative samples train the hidden blocks, neutral ones the readout of all layers but the first."""
    assert isinstance(run.method, spec.FF)
    *hidden, output = net
    contrast = by_blocks(hidden) if run.method.locality == "local" else _backward(run, hidden, classes)
    heads = sum(classes * math.prod(shape) for shape in ends(net)[1:-1])
    return 2 * contrast + forward(joined(net)) + backward(output) + 2 * heads


def _two_passes(run: spec.Run, net: Net, classes: int) -> int:
    """Two forward passes, the products of the updates, and s Fᵀ."""
    return 3 * forward(joined(net)) + classes * math.prod(run.dataset.shape)


PRODUCTS: dict[type[spec.Spec], Callable[[spec.Run, Net, int], int]] = {
    spec.Shallow: _shallow,
    spec.DFA: _broadcast,
    spec.DRTP: _broadcast,
    spec.DKP: _learned_broadcast,
    spec.SBD: _correlated,
    spec.EBD: _correlated,
    spec.MonoForward: _mono_forward,
    spec.LocalLoss: _local_loss,
    spec.FF: _forward_forward,
    spec.PEPITA: _two_passes,
}
"""A line per method that does not go backward through the whole net."""
