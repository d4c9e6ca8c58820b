"""A twin of a net that shares every weight but sends errors back through feedback weights B instead of Wᵀ.

    δ_k = (δ_{k+1} B_{k+1}) ⊙ f′_k(a_k)        B_{k+1} in the shape of W_{k+1}

The only layer classes a method ever needs: the feedback-alignment family runs ``flow.backward`` on a mirror, and the
net itself stays untouched, so that evaluation and the backpropagation reference are exact.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from credit.flow import NONE, Credit, Taps, backward
from credit.rule import Rule, Task
from credit.stacked import Dense, affine

Feedback = Callable[[], Tensor]
"""Gives the B of one layer, in the shape of its weight, when an error comes back: what is made of W is never kept."""


class _LinearThroughB(torch.autograd.Function):
    """Forward: a = h Wᵀ + b. Backward: W and b get their true gradients, h gets δ B."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, B: Feedback) -> Tensor:
        ctx.save_for_backward(h)
        ctx.has_bias, ctx.B, ctx.alone = bias is not None, B, weight.dim() == 2
        return affine(h, weight, bias)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (h,) = ctx.saved_tensors
        back = delta @ ctx.B().to(delta.dtype) if ctx.needs_input_grad[0] else None
        h = h.to(delta.dtype)
        if ctx.alone:  # one weight for all places of a sample; members have one each
            delta, h = delta.flatten(0, -2), h.flatten(0, -2)
        return back, delta.mT @ h, delta.sum(-2) if ctx.has_bias else None, None


class _ConvThroughB(torch.autograd.Function):
    """Forward: a = conv2d(h, W) + b. Backward: W and b get their true gradients, h gets the adjoint by B."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, B: Feedback, how: dict[str, Any]) -> Tensor:
        ctx.save_for_backward(h)
        ctx.has_bias, ctx.B, ctx.how, ctx.shape = bias is not None, B, how, weight.shape
        return F.conv2d(h, weight, bias, **how)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (h,) = ctx.saved_tensors
        back = conv2d_input(h.shape, ctx.B().to(delta.dtype), delta, **ctx.how) if ctx.needs_input_grad[0] else None
        update = conv2d_weight(h.to(delta.dtype), ctx.shape, delta, **ctx.how)
        return back, update, delta.sum((0, 2, 3)) if ctx.has_bias else None, None, None


class MirrorLinear(nn.Module):
    """A linear layer that borrows weight and bias of another and transports by B (n_out × n_in)."""

    def __init__(self, layer: nn.Linear | Dense, B: Feedback) -> None:
        super().__init__()
        self.weight, self.bias, self.B = layer.weight, layer.bias, B

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = _LinearThroughB.apply(h, self.weight, self.bias, self.B)  # type: ignore[no-untyped-call]
        return out


class MirrorConv2d(nn.Module):
    """A convolution that borrows weight and bias of another and transports by B (c_out × c_in × q × q)."""

    def __init__(self, layer: nn.Conv2d, B: Feedback) -> None:
        super().__init__()
        self.weight, self.bias, self.B = layer.weight, layer.bias, B
        self.how = {"stride": layer.stride, "padding": layer.padding}

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = _ConvThroughB.apply(h, self.weight, self.bias, self.B, self.how)  # type: ignore[no-untyped-call]
        return out


MIRRORS: dict[type[nn.Module], Callable[[Any, Feedback], nn.Module]] = {
    nn.Linear: MirrorLinear,
    Dense: MirrorLinear,
    nn.Conv2d: MirrorConv2d,
}


def weighted(net: nn.Module) -> dict[str, nn.Parameter]:
    """The weight of every layer that can be mirrored, by its path in the net, in order."""
    return {path: module.get_parameter("weight") for path, module in net.named_modules() if type(module) in MIRRORS}


def mirror(net: nn.Sequential, feedback: Mapping[str, Feedback]) -> nn.Sequential:
    """A twin of ``net`` sharing all parameters and buffers, with the layers named in ``feedback`` mirrored.

    Args:
        net: on its final device; the twin borrows its tensors as they are.
        feedback: path of a layer in the net -> its B.
    """
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    twin = copy.deepcopy(net, shared)
    for path, B in feedback.items():
        parent, _, name = path.rpartition(".")
        layer = twin.get_submodule(path)
        setattr(twin.get_submodule(parent), name, MIRRORS[type(layer)](layer, B))
    return twin.train()  # a probe puts it into evaluation mode for as long as it lasts


class Mirrored(Rule):
    """A rule whose error comes back through a mirror; its kin differ in what B is."""

    def __init__(self, net: nn.Sequential, task: Task) -> None:
        super().__init__(net, task)
        _, *later = weighted(net)
        self.layers = dict(enumerate(later, start=2))
        """Path of each layer k ≥ 2 of the net: those that an error passes on its way back."""
        self.mirrors: list[tuple[nn.Sequential, nn.Sequential]] = []  # kept from nn.Module: its weights are the net's

    def feedback(self, k: int, weight: nn.Parameter) -> Tensor:
        """B_k in the shape of W_k, asked for whenever an error comes back."""
        raise NotImplementedError

    def chain(self, net: nn.Sequential) -> nn.Sequential:
        if not self.mirrors or self.mirrors[0][0] is not net:
            weights = weighted(net)
            feedback = {path: partial(self.feedback, k, weights[path]) for k, path in self.layers.items()}
            self.mirrors = [(net, mirror(net, feedback))]
        return self.mirrors[0][1]

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        return backward(self.chain(net), x, y_N, self.loss, taps)


class SignConcordant(Mirrored):
    """Feedback with the signs of W: B = magnitude ⊙ sign(W), anew for every error that comes back.

    Args:
        feedback: ``{"init"}``: whose magnitudes B has.
        last_layer: ``bp``: the output layer sends the error back by its true weights.
    """

    def __init__(
        self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any], last_layer: Literal["feedback", "bp"]
    ) -> None:
        super().__init__(net, task)
        self.init, self.exact = feedback["init"], max(self.layers, default=0) if last_layer == "bp" else None

    def magnitude(self, k: int, W: Tensor) -> Tensor | float:
        """Of B_k, in the shape of W_k or the same for all entries."""
        raise NotImplementedError

    def feedback(self, k: int, weight: nn.Parameter) -> Tensor:
        W = weight.detach()
        return W if k == self.exact else W.sign().mul_(self.magnitude(k, W))
