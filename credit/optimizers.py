"""Specs of optimizers and schedules -> ``torch.optim`` and a learning rate per step."""

import math
from collections.abc import Iterable
from dataclasses import asdict

from torch import nn, optim

from credit import spec


def build_optimizer(chosen: spec.Optimizer, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """The ``torch.optim`` optimizer of a spec, in its fused form where torch has one."""
    options = {key: value for key, value in asdict(chosen).items() if key not in {"name", "schedule", "beta1", "beta2"}}
    match chosen:
        case spec.SGD():
            return optim.SGD(parameters, fused=True, **options)
        case spec.Adam():
            return optim.Adam(parameters, fused=True, betas=(chosen.beta1, chosen.beta2), **options)
        case spec.AdamW():
            return optim.AdamW(parameters, fused=True, betas=(chosen.beta1, chosen.beta2), **options)
        case spec.RMSprop():
            return optim.RMSprop(parameters, foreach=True, **options)


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
