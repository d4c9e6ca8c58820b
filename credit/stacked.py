"""Modules of several nets at once: every tensor has the members in front, every output too.

M members, N batch, D features. A net whose modules are stacked computes for each member what that member's own net
computes, in one batched product instead of M small ones. An input without members, (N, D), is the same for all.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from credit.heads import Projection

Kind = TypeVar("Kind", bound=nn.Module)


def affine(h: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """The sum h Wᵀ + b; of each member by its own W (M, D', D) and b (M, D').

    The latter as (W hᵀ + b)ᵀ: so the gradient of W lies in memory as W does, which torch's fused optimizers rely on.
    """
    if W.dim() == 2:
        return F.linear(h, W, b)
    if h.dim() == 2:  # the same batch for all: one wide layer
        a: Tensor = (W.flatten(0, 1) @ h.mT).unflatten(0, W.shape[:2])
        return (a if b is None else a + b[:, :, None]).mT
    return (W @ h.mT if b is None else torch.baddbmm(b[:, :, None], W, h.mT)).mT


class Dense(nn.Module):
    """(M, N, D) -> (M, N, D')"""

    def __init__(self, alike: Sequence[Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(joined([layer.weight for layer in alike]))
        biased = alike[0].bias is not None
        self.bias = nn.Parameter(joined([layer.bias for layer in alike])) if biased else None

    def forward(self, h: Tensor) -> Tensor:
        return affine(h, self.weight, self.bias)


class Flatten(nn.Module):
    """Maps at the input of a net, (…, N, channels, height, width) -> (…, N, D)."""

    def __init__(self, alike: Sequence[nn.Flatten]) -> None:  # noqa: ARG002  (it holds nothing)
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(-3)


class BatchNorm(nn.Module):
    """Each unit of each member over the batch: the units of all members are those of one wide layer."""

    def __init__(self, alike: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        self.eps, self.momentum = alike[0].eps, alike[0].momentum
        hold(self, alike)

    def forward(self, h_MND: Tensor) -> Tensor:
        if self.training:
            self.get_buffer("num_batches_tracked").add_(1)
        mean, var = (self.get_buffer(name).view(-1) for name in ("running_mean", "running_var"))
        weight, bias = (self.get_parameter(name).flatten() for name in ("weight", "bias"))
        wide = h_MND.movedim(0, 1).flatten(1)
        wide = F.batch_norm(wide, mean, var, weight, bias, self.training, self.momentum or 0.0, self.eps)
        h: Tensor = wide.unflatten(1, (len(h_MND), -1)).movedim(1, 0)
        return h


class LayerNorm(nn.Module):
    """Each sample over its features, with each member's own scale and shift."""

    def __init__(self, alike: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.eps = alike[0].eps
        hold(self, alike)

    def forward(self, h_MND: Tensor) -> Tensor:
        weight, bias = (self.get_parameter(name)[:, None] for name in ("weight", "bias"))
        return torch.addcmul(bias, F.layer_norm(h_MND, h_MND.shape[-1:], eps=self.eps), weight)


STACKED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Linear: Dense,
    Projection: Dense,  # vectors are not pooled
    nn.Flatten: Flatten,
    nn.BatchNorm1d: BatchNorm,
    nn.LayerNorm: LayerNorm,
}
"""Kinds of modules whose forward pass is another one with members in front; all others work as they are."""


def stacked(alike: Sequence[Kind]) -> Kind:
    """One module for modules of the same structure, which become views of its tensors: their own slice, always."""
    whole: Kind = _stacked(alike)
    for m, one in enumerate(alike):
        for part, joint in zip(one.modules(), whole.modules(), strict=True):
            own = (*part.parameters(recurse=False), *part.buffers(recurse=False))
            theirs = (*joint.parameters(recurse=False), *joint.buffers(recurse=False))
            for tensor, tensors in zip(own, theirs, strict=True):
                tensor.data = tensors.data[m]
    return whole


def _stacked(alike: Sequence[Any]) -> Any:
    if type(alike[0]) in STACKED:
        return STACKED[type(alike[0])](alike)
    whole = copy.deepcopy(alike[0])
    hold(whole, alike)
    for name, _ in alike[0].named_children():
        whole.register_module(name, _stacked([one.get_submodule(name) for one in alike]))
    return whole


def hold(whole: nn.Module, alike: Sequence[nn.Module]) -> None:
    """Give a module the tensors of all members' modules, under their names."""
    for name, _ in alike[0].named_parameters(recurse=False):
        whole.register_parameter(name, nn.Parameter(joined([one.get_parameter(name) for one in alike])))
    for name, _ in alike[0].named_buffers(recurse=False):
        whole.register_buffer(name, joined([one.get_buffer(name) for one in alike]))


def joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.detach() for tensor in tensors])
