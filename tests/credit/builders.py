"""Small nets, rules and batches for the tests of the science."""

from typing import Any

import torch
from torch import Tensor

from credit import spec
from credit.losses import LOSSES
from credit.nets import build_net
from credit.nets.blocks import Net
from credit.rule import Rule, Task
from credit.rules import build_rule

SHAPE, CLASSES = (1, 5, 4), 7

METHODS = {name: kind() for name, kind in spec.menu(spec.Method).items()}
"""Every method with its defaults: what the conformance tests walk through."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(
    method: Any,
    *,
    hidden: tuple[int, ...] = (12, 9, 12),
    loss: str = "cross_entropy",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    adaptive: bool = False,
    **model: Any,
) -> tuple[Net, Rule]:
    """A net of a method and its rule; the same seed gives the same weights for every method."""
    net = build_net(spec.MLP(hidden=hidden, **model), method, SHAPE, CLASSES, generator(seed)).to(dtype)
    task = Task(LOSSES[loss], torch.zeros(1, *SHAPE, dtype=dtype), generator(seed + 1), adaptive)
    return net, build_rule(method, net, task).to(dtype)


def batch(samples: int = 16, *, dtype: torch.dtype = torch.float64, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Random inputs and labels."""
    source = generator(seed)
    x = torch.randn(samples, *SHAPE, dtype=dtype, generator=source)
    return x, torch.randint(CLASSES, (samples,), generator=source)
