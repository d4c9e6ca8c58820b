"""MODULES: kind of part -> how its module is made, one line per kind; and how weights are drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from credit import spec
from credit.nets.mixer import Mixing, TokenMean, Tokens
from credit.parallel import ALONE, Group
from credit.spec.layers import Part, Shape

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


@dataclass(frozen=True)
class Draw:
    """Makes weights with torch's own distribution, U(±1/√fan_in), from the generator given; or all zeros."""

    init: Literal["default", "zeros"]
    generator: torch.Generator
    group: Group = ALONE
    """Whose net it is."""

    def linear(self, n_in: int, n_out: int, *, bias: bool = True) -> nn.Linear:
        layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
        self._fill(layer, n_in)
        return layer

    def conv(self, c_in: int, part: spec.ConvLayer) -> nn.Conv2d:
        how = {"stride": part.stride, "padding": part.padding, "bias": part.bias}
        layer: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, c_in, part.channels, part.kernel, **how)
        self._fill(layer, c_in * part.kernel**2)
        return layer

    @torch.no_grad()
    def _fill(self, layer: nn.Module, fan_in: int) -> None:
        bound = 1 / math.sqrt(fan_in) if self.init == "default" else 0.0
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=self.generator)


class SharedDropout(nn.Dropout):
    """Dropout whose mask is that of a sample, whichever process has it: all draw the mask of the whole batch."""

    def __init__(self, rate: float, group: Group) -> None:
        super().__init__(rate)
        self.group = group

    def forward(self, h_ND: Tensor) -> Tensor:
        if not self.training or not self.p:
            return super().forward(h_ND)
        mask_ND = h_ND.new_empty(self.group.samples(len(h_ND)), *h_ND.shape[1:]).bernoulli_(1 - self.p)
        return h_ND * self.group.own(mask_ND).div_(1 - self.p)


def _norm(part: spec.NormLayer, shape: Shape, draw: Draw) -> nn.Module:  # noqa: ARG001  (the table's signature)
    if part.kind == "layer":
        return nn.LayerNorm(list(shape))
    return nn.BatchNorm1d(shape[0]) if len(shape) == 1 else nn.BatchNorm2d(shape[0])


def _dropout(part: spec.DropoutLayer, shape: Shape, draw: Draw) -> nn.Module:  # noqa: ARG001
    return nn.Dropout(part.rate) if draw.group is ALONE else SharedDropout(part.rate, draw.group)


def _pool(part: spec.PoolLayer, shape: Shape, draw: Draw) -> nn.Module:  # noqa: ARG001
    if part.kind == "global_avg":
        return nn.AdaptiveAvgPool2d(1)
    return {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}[part.kind](part.size, part.stride)


def _mixing(part: spec.Mixing, shape: Shape, draw: Draw) -> nn.Module:
    tokens, width = shape
    side = tokens if part.over == "tokens" else width
    up, down = draw.linear(side, part.units), draw.linear(part.units, side)
    return Mixing(nn.LayerNorm(width), up, ACTIVATIONS[part.activation](), down, transposed=part.over == "tokens")


MODULES: dict[type[Part], Callable[[Any, Shape, Draw], nn.Module]] = {
    spec.DenseLayer: lambda part, shape, draw: draw.linear(shape[0], part.units, bias=part.bias),
    spec.ConvLayer: lambda part, shape, draw: draw.conv(shape[0], part),
    spec.PoolLayer: _pool,
    spec.FlattenLayer: lambda *_: nn.Flatten(),
    spec.NormLayer: _norm,
    spec.ActivationLayer: lambda part, *_: ACTIVATIONS[part.kind](),
    spec.DropoutLayer: _dropout,
    spec.Tokens: lambda *_: Tokens(),
    spec.Mixing: _mixing,
    spec.TokenMean: lambda _, shape, __: TokenMean(shape[1]),
}


def module(part: Part, shape: Shape, draw: Draw) -> nn.Module:
    """The module of a part whose input has this shape."""
    return MODULES[type(part)](part, shape, draw)
