"""The methods and their options."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from credit.spec.base import ByName, Positive, Spec


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Spec):
    """What the menu says of every method: what it needs, and what it can train."""

    needs: ClassVar[tuple[str, ...]] = ("global_score", "derivatives")
    """global_score: the derivative of the loss at the output; labels; derivatives: autograd inside a block;
    weight_transport: Wᵀ (or its signs) on the way back; backward_pass: a layer waits for the one above it;
    second_forward: a second forward pass."""
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "mse", "bce")
    joined_readout: ClassVar[bool] = False
    """The model's output layer belongs to the last hidden block, whose local readout it is."""


@dataclass(frozen=True, kw_only=True)
class BP(MethodSpec):
    """Backpropagation: the reference every other method is measured against."""

    needs = ("global_score", "derivatives", "weight_transport", "backward_pass")
    name: Literal["bp"] = "bp"


@dataclass(frozen=True, kw_only=True)
class Shallow(MethodSpec):
    """The frozen-hidden control: hidden layers keep their initial weights, the output layer alone learns."""

    needs = ("global_score",)
    name: Literal["shallow"] = "shallow"


@dataclass(frozen=True, kw_only=True)
class LayerFeedback(Spec):
    """How the feedback weights of the feedback-alignment family are drawn, one matrix per forward weight."""

    init: Literal["xavier_uniform", "kaiming_uniform", "uniform_fanout", "gaussian"] = "xavier_uniform"
    """xavier_uniform: U(±√(6/(fan_in+fan_out))); kaiming_uniform: U(±1/√fan_in); uniform_fanout: U(±1/√fan_out);
    gaussian: N(0, 1/fan_out)."""


@dataclass(frozen=True, kw_only=True)
class FA(MethodSpec):
    """Feedback alignment: the error travels backward through fixed random weights B instead of Wᵀ."""

    needs = ("global_score", "derivatives", "backward_pass")
    name: Literal["fa"] = "fa"
    feedback: LayerFeedback = field(default_factory=LayerFeedback)


@dataclass(frozen=True, kw_only=True)
class BroadcastFeedback(Spec):
    """How the matrices B_k (classes × width of layer k) of a broadcast method are drawn."""

    kind: Literal["unified", "per_layer"] = "unified"
    """unified: one matrix, of which every layer takes a slice (layers of equal width share it); per_layer: independent
    matrices."""
    distribution: Literal["gaussian", "uniform", "kaiming_uniform"] = "gaussian"
    """Before normalisation: gaussian N(0, 1); uniform U(±1/√n_k); kaiming_uniform U(±√(6/n_k))."""
    normalize: bool = True
    """Scale the entries to variance 1/(C·n_k), so that the expected squared Frobenius norm of every B_k is 1."""
    gain: Literal["auto"] | Positive = "auto"
    """Multiplies B_k. auto: √n_k for a normalised gaussian under an adaptive optimizer (entries N(0, 1/C)), else 1."""


@dataclass(frozen=True, kw_only=True)
class DFA(MethodSpec):
    """Direct feedback alignment: every hidden layer is told a fixed random projection of the output error."""

    name: Literal["dfa"] = "dfa"
    feedback: BroadcastFeedback = field(default_factory=BroadcastFeedback)
    inject: Literal["layer_input", "post_activation"] = "layer_input"
    """Where the signal lands: at the input of the next weight layer, or right after the nonlinearity."""
    score_reduction: Literal["mean", "sum"] = "mean"
    """mean: hidden layers are told the score over the batch's mean loss; sum: batch size times that (Launay's code)."""
    score_transform: Literal["none", "sign"] = "none"
    """sign: broadcast the sign of the score alone (sDFA)."""
    forward_init: Literal["default", "zeros"] = "default"
    """zeros: forward weights and biases start at zero, as in Nøkland's tanh and sigmoid nets."""


Method = Annotated[BP | Shallow | FA | DFA, ByName()]
