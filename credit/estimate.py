"""Parameters and floating-point operations of a spec by arithmetic, for dry runs. No torch."""

import math
from itertools import pairwise

from credit import spec


def widths(run: spec.Run) -> list[int]:
    """Input, hidden and output widths of the net's weight layers."""
    hidden = (800, 800, 800) if isinstance(run.model, spec.LaunayFC) else run.model.hidden
    return [math.prod(run.dataset.shape), *hidden, run.dataset.classes]


def parameters(run: spec.Run) -> int:
    """Trainable numbers of the net: weights, biases, and two per unit of a batch norm."""
    n = widths(run)
    bias = getattr(run.model, "bias", True)
    norms = 2 * sum(n[1:-1]) if run.model.batch_norm else 0
    return sum(fan_in * fan_out + bias * fan_out for fan_in, fan_out in pairwise(n)) + norms


def flops_per_step(run: spec.Run) -> int:
    """Floating-point operations of the matrix products of a full batch's step, a multiply-add as two.

    Forward and weight gradients cost a product per weight layer each; what carries the error to the hidden layers is
    a product per weight layer but the first (bp, fa), one of C × n_k per hidden layer (dfa), or nothing (shallow).
    """
    n, classes = widths(run), run.dataset.classes
    per_layer = [fan_in * fan_out for fan_in, fan_out in pairwise(n)]
    forward = sum(per_layer)
    match run.method:
        case spec.Shallow():
            backward = per_layer[-1]
        case spec.DFA():
            backward = forward + classes * sum(n[1:-1])
        case _:
            backward = forward + sum(per_layer[1:])
    return 2 * run.training.batch_size * (forward + backward)
