"""Multilayer perceptrons; each hidden layer is weight → dropout → activation → batch norm (Launay's order)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from credit.nets.blocks import ACTIVATIONS, Layer, linear


def mlp(
    inputs: int,
    classes: int,
    generator: torch.Generator,
    init: Literal["default", "zeros"],
    *,
    hidden: Sequence[int],
    activation: str,
    batch_norm: bool,
    dropout: float,
    input_dropout: float,
    bias: bool = True,
) -> list[Layer]:
    """The layers ``hidden1`` … and ``output`` of an MLP on flattened inputs."""
    layers = []
    width = inputs
    for k, units in enumerate(hidden, start=1):
        weight = linear(width, units, bias=bias, init=init, generator=generator)
        nonlinearity = ACTIVATIONS[activation]()
        modules: list[nn.Module] = [weight]
        if k == 1:
            modules = [nn.Flatten(), *_dropout(input_dropout), weight]
        modules += [*_dropout(dropout), nonlinearity]
        if batch_norm:
            modules.append(nn.BatchNorm1d(units))
        layers.append(Layer(f"hidden{k}", modules, weight, nonlinearity))
        width = units
    readout = linear(width, classes, bias=bias, init=init, generator=generator)
    return [*layers, Layer("output", [readout], readout, None)]


def _dropout(rate: float) -> list[nn.Module]:
    return [nn.Dropout(rate)] if rate else []
