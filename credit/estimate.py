"""Parameters and floating-point operations of a spec by arithmetic, for dry runs. No torch."""

import math
from collections.abc import Sequence

from credit import spec
from credit.spec.layers import Learned
from credit.spec.plan import LayerPlan, Placed, blocks, plan


def layers(run: spec.Run) -> list[LayerPlan]:
    return plan(run.model, run.dataset.shape, run.dataset.classes)


def parameters(run: spec.Run) -> int:
    """Trainable numbers of the net: weights, biases, and the scales and shifts of norms."""
    return sum(module.numbers for layer in layers(run) for module in learned(layer.parts))


def flops_per_step(run: spec.Run) -> int:
    """Floating-point operations of the matrix products and convolutions of a full batch's step, a multiply-add as two.

    Whatever the method, each product of the forward pass costs one more for the gradient of its weight, and one for
    that of its input if anything before it in the same graph is to be told. Methods differ in what is one graph, and
    in what they make their signals of.
    """
    net = blocks(layers(run), run.method)
    whole = [placed for block in net for placed in block]
    match run.method:
        case spec.Shallow():
            products = forward(whole) + backward(net[-1])
        case spec.DFA():
            products = forward(whole) + sum(backward(block) for block in net) + broadcast(net, run.dataset.classes)
        case _:
            products = forward(whole) + backward(whole)
    return 2 * run.training.batch_size * products


def learned(parts: Sequence[Placed]) -> list[Learned]:
    return [module for placed in parts for module in placed.part.learned(placed.shape)]


def forward(parts: Sequence[Placed]) -> int:
    """Multiply-adds of a forward pass, per sample."""
    return sum(module.products for module in learned(parts))


def backward(graph: Sequence[Placed]) -> int:
    """Multiply-adds of the gradients of one graph's parameters: weights, and inputs of all but its first module."""
    _, *later = modules = learned(graph)
    return sum(module.products for module in (*modules, *later))


def broadcast(net: Sequence[Sequence[Placed]], classes: int) -> int:
    """Multiply-adds of s B_k for every hidden block, B_k of classes × numbers at the block's output."""
    return sum(classes * math.prod(following[0].shape) for following in net[1:])
