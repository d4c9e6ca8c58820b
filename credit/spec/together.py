"""Runs that can train together, as members of one computation (``credit.members``), and whether that pays."""

from collections.abc import Sequence
from dataclasses import replace

from credit.spec.layers import ActivationLayer, DenseLayer, DropoutLayer, FlattenLayer, NormLayer, Part
from credit.spec.methods import (
    BP,
    DFA,
    DKP,
    DRTP,
    EBD,
    FA,
    FRSF,
    KP,
    SBD,
    BroadcastMethod,
    Method,
    MonoForward,
    Shallow,
)
from credit.spec.plan import parts_of, plan
from credit.spec.run import Run, Training

METHODS = (
    BP,
    Shallow,
    FA,
    FRSF,
    KP,
    DFA,
    DKP,
    DRTP,
    SBD,
    EBD,
    MonoForward,
)
"""Whose equations hold with members in front."""
WIDEST = 512
"""The widest layer for which it was measured that members pay (docs/members.md)."""


def batchable(run: Run) -> str | None:
    """Why a run cannot train together with others of its kind; None: it can."""
    if not isinstance(run.method, METHODS):
        return f"{run.method.name} is not written for several nets at once"
    parts = parts_of(plan(run.model, run.dataset.shape, run.dataset.classes))
    return _unbatched_part(parts) or _unbatched_training(run.training) or _unbatched_option(run.method)


def _unbatched_part(parts: Sequence[Part]) -> str | None:
    if not isinstance(parts[0], FlattenLayer) or not isinstance(parts[1], DenseLayer):
        return "only nets that begin by flattening their images into a dense layer train together"
    for part in parts[1:]:
        if isinstance(part, DropoutLayer) and part.rate:
            return "dropout draws from the one random state of its process"
        if not isinstance(part, DenseLayer | ActivationLayer | NormLayer | DropoutLayer):
            kind = type(part).__name__.removesuffix("Layer").lower()
            return f"only dense nets train together, and this one has a {kind} layer"
    return None


def _unbatched_training(training: Training) -> str | None:
    if training.precision != "fp32":
        return f"{training.precision} leaves too few digits for numbers as alone"
    if training.devices > 1:
        return "each member would train on several devices"
    if training.engine in {"compiled", "graph"}:
        return f"the engine {training.engine} is for one net"
    return None


def _unbatched_option(method: Method) -> str | None:
    regularizers = getattr(method, "regularizers", None)
    if regularizers and regularizers.entropy.weight:
        return "the entropy's running inverse is that of one net"
    if regularizers and regularizers.l1:
        return "the sign in l1 turns rounding errors into other numbers"
    chosen = {"lean": isinstance(method, BroadcastMethod) and method.lean}
    if isinstance(method, SBD | EBD):
        chosen |= {
            "normalize_r": method.normalize_r,
            "forward_projection": method.forward_projection > 0,
            "weight_sparsity": method.weight_sparsity > 0,
            "score_expansion": method.score_expansion.kind != "none",
        }
    return next((f"{name} is not written for several nets at once" for name, used in chosen.items() if used), None)


def pays(run: Run, members: int) -> bool:
    """Whether so many members of a batchable run train in less time together than one after the other."""
    parts = parts_of(plan(run.model, run.dataset.shape, run.dataset.classes))
    widths = [part.units for part in parts if isinstance(part, DenseLayer)]
    return members > 1 and max(widths) <= WIDEST


def alone(run: Run) -> str | None:
    """Why a run trains alone though it may train with others; None: it trains with those that it finds."""
    if reason := batchable(run):
        return reason
    return None if pays(run, 2) else f"nets with layers of more than {WIDEST} units train no quicker together"


def kind(run: Run) -> Run:
    """The run without what members may differ in."""
    return replace(run, name=None, labels={}, training=replace(run.training, seed=None))
