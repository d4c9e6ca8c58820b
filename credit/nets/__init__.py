"""NETS: spec class -> builder of its layers, one line per model."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from credit import spec
from credit.nets.blocks import Layer, Net, assemble
from credit.nets.mlp import mlp
from credit.nets.papers import launay_fc

NETS: dict[type[spec.Spec], Callable[..., list[Layer]]] = {
    spec.MLP: mlp,
    spec.LaunayFC: launay_fc,
}


def build_net(
    model: spec.Model, method: spec.Method, shape: tuple[int, ...], classes: int, generator: torch.Generator
) -> Net:
    """The net of a model's spec on the CPU, initialised from ``generator`` and cut where the method wants it.

    ``shape`` is that of one input: (channels, height, width).
    """
    options: dict[str, Any] = {key: value for key, value in asdict(model).items() if key != "name"}
    init = getattr(method, "forward_init", "default")
    layers = NETS[type(model)](math.prod(shape), classes, generator, init, **options)
    return assemble(layers, getattr(method, "inject", "layer_input"), joined_readout=method.joined_readout)
