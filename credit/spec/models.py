"""The models and their options."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MaxLen, MinLen

from credit.spec.base import ByName, Probability, Spec, Width

Activation = Literal["tanh", "relu", "leaky_relu", "sigmoid", "gelu", "silu", "elu"]


@dataclass(frozen=True, kw_only=True)
class MLP(Spec):
    """A multilayer perceptron; each hidden layer is weight → dropout → activation → batch norm (Launay's order)."""

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Width, ...], MinLen(1), MaxLen(256)] = (800, 800)
    """Widths of the hidden layers, from the input on."""
    activation: Activation = "tanh"
    batch_norm: bool = False
    dropout: Probability = 0.0
    """Dropout on the pre-activations of the hidden layers."""
    input_dropout: Probability = 0.0
    """Dropout on the input."""
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class LaunayFC(Spec):
    """The fully connected net of Launay, Poli and Krzakala (arXiv 1906.04554): three hidden layers of 800 units."""

    name: Literal["launay_fc"] = "launay_fc"
    activation: Activation = "tanh"
    batch_norm: bool = False
    dropout: Probability = 0.0
    input_dropout: Probability = 0.0


Model = Annotated[MLP | LaunayFC, ByName()]
