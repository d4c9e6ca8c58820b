"""A twin of a net that shares every weight but sends errors back through feedback weights B instead of Wᵀ.

The only layer classes a method ever needs: the feedback-alignment family runs ``flow.backward`` on a mirror, and the
net itself stays untouched, so that evaluation and the backpropagation reference are exact.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _LinearThroughB(torch.autograd.Function):
    """Forward: a = h Wᵀ + b. Backward: W and b get their true gradients, h gets δ B."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, B: Tensor) -> Tensor:
        ctx.save_for_backward(h, B)
        ctx.has_bias = bias is not None
        return F.linear(h, weight, bias)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        h, B = ctx.saved_tensors
        back = delta @ B.to(delta.dtype) if ctx.needs_input_grad[0] else None
        return back, delta.mT @ h.to(delta.dtype), delta.sum(0) if ctx.has_bias else None, None


class MirrorLinear(nn.Module):
    """A linear layer that borrows weight and bias of another and transports by B (n_out × n_in)."""

    def __init__(self, linear: nn.Linear, B: Callable[[], Tensor]) -> None:
        super().__init__()
        self.weight, self.bias, self.B = linear.weight, linear.bias, B

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = _LinearThroughB.apply(h, self.weight, self.bias, self.B())  # type: ignore[no-untyped-call]
        return out


def mirror(net: nn.Sequential, feedback: Mapping[str, Callable[[], Tensor]]) -> nn.Sequential:
    """A twin of ``net`` sharing all parameters and buffers, with the linear layers named in ``feedback`` mirrored.

    Args:
        net: on its final device; the twin borrows its tensors as they are.
        feedback: path of a linear layer in the net -> a function that gives its B at every use.
    """
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    twin = copy.deepcopy(net, shared)
    for path, B in feedback.items():
        parent, _, name = path.rpartition(".")
        linear = twin.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        setattr(twin.get_submodule(parent), name, MirrorLinear(linear, B))
    return twin.train()  # a probe puts it into evaluation mode for as long as it lasts
