"""Optimizers and schedules of the learning rate."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from credit.spec.base import ByName, Count, Incompatible, Positive, Rate, Spec


@dataclass(frozen=True, kw_only=True)
class Constant(Spec):
    """The learning rate stays as it is."""

    name: Literal["constant"] = "constant"


@dataclass(frozen=True, kw_only=True)
class Cosine(Spec):
    """From lr to final·lr along half a cosine over the whole run, step by step."""

    name: Literal["cosine"] = "cosine"
    final: Annotated[float, Ge(0), Le(1)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Linear(Spec):
    """From lr to final·lr along a straight line over the whole run, step by step."""

    name: Literal["linear"] = "linear"
    final: Annotated[float, Ge(0), Le(1)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Step(Spec):
    """Multiply lr by gamma at the end of every epoch listed."""

    name: Literal["step"] = "step"
    milestones: Annotated[tuple[Count, ...], MinLen(1), MaxLen(1000)]
    gamma: Annotated[float, Gt(0), Le(1)] = 0.1

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise Incompatible("/milestones", "epochs must be increasing")


@dataclass(frozen=True, kw_only=True)
class Exponential(Spec):
    """Multiply lr by gamma at the end of every epoch."""

    name: Literal["exponential"] = "exponential"
    gamma: Annotated[float, Gt(0), Le(1)] = 0.95


Schedule = Annotated[Constant | Cosine | Linear | Step | Exponential, ByName()]
Decay = Annotated[float, Ge(0), Le(100)]
Beta = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class SGD(Spec):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = "sgd"
    lr: Rate = 0.05
    momentum: Beta = 0.0
    nesterov: bool = False
    weight_decay: Decay = 0.0
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise Incompatible("/nesterov", "Nesterov's form needs a momentum above 0")


@dataclass(frozen=True, kw_only=True)
class Adam(Spec):
    """Adam (Kingma and Ba 2015)."""

    name: Literal["adam"] = "adam"
    lr: Rate = 1e-3
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    eps: Positive = 1e-8
    weight_decay: Decay = 0.0
    schedule: Schedule = field(default_factory=Constant)


@dataclass(frozen=True, kw_only=True)
class AdamW(Spec):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: Rate = 1e-3
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    eps: Positive = 1e-8
    weight_decay: Decay = 0.01
    schedule: Schedule = field(default_factory=Constant)


@dataclass(frozen=True, kw_only=True)
class RMSprop(Spec):
    """RMSprop (Hinton's lecture 6e)."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: Rate = 1e-4
    alpha: Beta = 0.99
    eps: Positive = 1e-8
    momentum: Beta = 0.0
    weight_decay: Decay = 0.0
    schedule: Schedule = field(default_factory=Constant)


Optimizer = Annotated[SGD | Adam | AdamW | RMSprop, ByName()]
