"""Small nets, rules and batches for the tests of the science."""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from credit import spec
from credit.losses import LOSSES
from credit.nets import build_net
from credit.nets.blocks import Net
from credit.rule import Rule, Task
from credit.rules import build_rule
from credit.spec.plan import plan, unsuited

SHAPE, CLASSES = (1, 6, 4), 7

NETS: dict[str, spec.Model] = {
    "mlp": spec.MLP(hidden=(12, 9, 12)),
    "cnn": spec.CNN(
        blocks=(
            spec.ConvBlock(channels=3, pool=spec.Pooling(kind="avg")),
            spec.ConvBlock(channels=5, kernel=2, padding=0, order=("conv", "norm", "activation")),
        ),
        hidden=(12,),
        activation="tanh",
    ),
    "mixer": spec.MLPMixer(patch_size=2, width=6, depth=1, token_width=5, channel_width=8),
    "relu": spec.MLP(hidden=(12, 9, 12), activation="relu"),
}
"""Small models of three kinds, each with three hidden layers; relu is for methods that do not train tanh."""

METHODS = {name: kind() for name, kind in spec.menu(spec.Method).items()}
"""Every method with its defaults."""


def trains(method: Any, model: Any) -> bool:
    return unsuited(model, plan(model, SHAPE, CLASSES), method) is None


PAIRS = [
    (name, kind)
    for name, method in METHODS.items()
    for kind, model in NETS.items()
    if trains(method, model) and not (kind == "relu" and trains(method, NETS["mlp"]))
]
"""Every method with every kind of net that it trains: what the conformance tests walk through."""
TRUE_OUTPUT = [(name, kind) for name, kind in PAIRS if name not in {"ff", "pepita"}]
"""Those whose output layer learns from the plain gradient of the loss, on the plain input."""
MOVING = {"ff", "ebd", "sbd"}
"""Methods whose own state moves while they assign credit."""


def fitting(name: str, *, rich: bool = False, **options: Any) -> dict[str, Any]:
    """Method, loss and an MLP that go together, as parts of a ``spec.Run``; ``rich``: with dropout and batch norm."""
    method = METHODS[name]
    activation = "tanh" if trains(method, NETS["mlp"]) else "relu"
    extras = {"dropout": 0.1, "batch_norm": True} if rich and not method.plain else {}
    return {"method": method, "loss": method.losses[0], "model": spec.MLP(activation=activation, **extras, **options)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(
    method: Any,
    *,
    kind: str = "mlp",
    loss: str = "cross_entropy",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    adaptive: bool = False,
    **model: Any,
) -> tuple[Net, Rule]:
    """A net of a method and its rule; the same seed gives the same weights for every method.

    ``model`` are options of the net's spec; those that this kind of net does not have are left out.
    """
    known = {field.name for field in fields(NETS[kind])}
    chosen = replace(NETS[kind], **{key: value for key, value in model.items() if key in known})
    built = build_net(chosen, method, SHAPE, CLASSES, generator(seed)).to(dtype)
    task = Task(LOSSES[loss], torch.zeros(1, *SHAPE, dtype=dtype), generator(seed + 1), adaptive)
    return built, build_rule(method, built, task).to(dtype)


def batch(samples: int = 16, *, dtype: torch.dtype = torch.float64, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Random inputs and labels."""
    source = generator(seed)
    x = torch.randn(samples, *SHAPE, dtype=dtype, generator=source)
    return x, torch.randint(CLASSES, (samples,), generator=source)
