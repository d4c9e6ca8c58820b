"""Specs of optimizers and schedules -> ``torch.optim`` and a learning rate per step."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn, optim

from credit import spec


def build_optimizer(
    chosen: spec.Optimizer, parameters: Iterable[nn.Parameter], *, recorded: bool = False
) -> optim.Optimizer:
    """The ``torch.optim`` optimizer of a spec, in its fused form where torch has one.

    ``recorded``: its steps can be part of a CUDA graph; the learning rate is a tensor beside the parameters then.
    """
    parameters = list(parameters)
    left_out = {"name", "schedule", "beta1", "beta2"}
    options: dict[str, Any] = {key: value for key, value in asdict(chosen).items() if key not in left_out}
    if recorded:
        options["lr"] = torch.tensor(chosen.lr, device=parameters[0].device)
        if not isinstance(chosen, spec.SGD):
            options["capturable"] = True
    match chosen:
        case spec.SGD():
            return optim.SGD(parameters, fused=True, **options)
        case spec.Adam():
            return optim.Adam(parameters, fused=True, betas=(chosen.beta1, chosen.beta2), **options)
        case spec.AdamW():
            return optim.AdamW(parameters, fused=True, betas=(chosen.beta1, chosen.beta2), **options)
        case spec.RMSprop():
            return optim.RMSprop(parameters, foreach=True, **options)


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


ADAPTIVE = (spec.Adam, spec.AdamW, spec.RMSprop)


def learning_rate(chosen: spec.Optimizer, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning rate of a step (0-based), from the step alone, so that a resumed run needs no scheduler state."""
    epoch = step // steps_per_epoch
    match chosen.schedule:
        case spec.Constant():
            factor = 1.0
        case spec.Cosine(final=final):
            factor = final + (1 - final) * (1 + math.cos(math.pi * step / steps)) / 2
        case spec.Linear(final=final):
            factor = 1 - (1 - final) * step / steps
        case spec.Step(milestones=milestones, gamma=gamma):
            factor = gamma ** sum(milestone <= epoch for milestone in milestones)
        case spec.Exponential(gamma=gamma):
            factor = gamma**epoch
    return chosen.lr * factor
