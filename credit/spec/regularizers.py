"""Regularisers of hidden activations, open to every broadcast method."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from credit.spec.base import Positive, Spec

Weight = Annotated[float, Ge(0), Le(1e6)]


@dataclass(frozen=True, kw_only=True)
class Power(Spec):
    """Holds the mean square of every unit near a target: Σ_l (mean h_l² − target)²."""

    weight: Weight = 0.0
    target: Positive = 0.25


@dataclass(frozen=True, kw_only=True)
class Entropy(Spec):
    """Spreads the activations of a layer: the maximised ½ logdet of their running correlation matrix + eps·I.

    For layers whose output is a vector; those of maps (conv, mixer) go without.
    """

    weight: Weight = 0.0
    forgetting: Annotated[float, Gt(0), Lt(1)] = 0.99999
    """λ_E of the running correlation matrix; its gradient carries the factor 1 − λ_E."""
    eps: Annotated[float, Gt(0), Le(1)] = 1e-5


@dataclass(frozen=True, kw_only=True)
class Regularizers(Spec):
    """Gradients at the outputs of the hidden layers, added to what is broadcast there."""

    power: Power = field(default_factory=Power)
    entropy: Entropy = field(default_factory=Entropy)
    l1: Weight = 0.0
    """Weight of the mean over the batch of ‖h‖₁."""
