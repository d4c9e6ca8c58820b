"""From a model's spec to its net."""

import torch

from credit import spec
from credit.nets.blocks import Net, assemble
from credit.nets.modules import Draw, module
from credit.parallel import ALONE, Group
from credit.spec.plan import blocks, plan


def build_net(
    model: spec.Model,
    method: spec.Method,
    shape: tuple[int, ...],
    classes: int,
    generator: torch.Generator,
    group: Group = ALONE,
) -> Net:
    """The net of a model's spec on the CPU, initialised from ``generator`` and cut where the method wants it.

    ``shape`` is that of one input: (channels, height, width); ``group`` trains it.
    """
    draw = Draw(getattr(method, "forward_init", "default"), generator, group)
    layers = plan(model, shape, classes)
    modules = {placed: module(placed.part, placed.shape, draw) for layer in layers for placed in layer.parts}
    return assemble(layers, blocks(layers, method), modules)
