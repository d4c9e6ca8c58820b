"""The methods and their options."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MaxLen

from credit.spec.base import ByName, Fraction, Incompatible, Positive, Spec
from credit.spec.regularizers import Regularizers


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Spec):
    """What the menu says of every method: what it needs, and what it can train."""

    needs: ClassVar[tuple[str, ...]] = ("global_score", "derivatives")
    """global_score: the derivative of the loss at the output; labels; derivatives: autograd inside a block;
    weight_transport: Wᵀ (or its signs) on the way back; backward_pass: a layer waits for the one above it;
    second_forward: a second forward pass."""
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "mse", "bce")
    families: ClassVar[tuple[str, ...]] = ("dense", "conv", "mixer")
    """Kinds of models that it trains."""
    activations: ClassVar[tuple[str, ...] | None] = None
    """Nonlinearities that it works with; None: any."""
    plain: ClassVar[bool] = False
    """It trains layers of one weight and a nonlinearity only, without batch norm and dropout."""
    joined_readout: ClassVar[bool] = False
    """The model's output layer belongs to the last hidden block, whose local readout it is."""

    def check(self, loss: str, family: str) -> None:
        """Refuse what the method's options cannot train. Raises Incompatible."""

    def unrecordable(self) -> str | None:
        """Why its step is not the same operations on the device every time, if it is not."""
        return None


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
class BroadcastMethod(MethodSpec):
    """A method whose hidden layers are told something of the output, all at once."""

    lean: bool = False
    """Keep no graph of the forward pass: each block runs again when it is told. The same numbers to the bit in less
    memory, for a second forward pass."""

    def unrecordable(self) -> str | None:
        return "lean reads the random state on the host to run blocks again" if self.lean else None


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
class DFA(BroadcastMethod):
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
    regularizers: Regularizers = field(default_factory=Regularizers)


@dataclass(frozen=True, kw_only=True)
class SignConcordant(MethodSpec):
    """Feedback alignment whose B has the signs of W."""

    needs = ("global_score", "derivatives", "weight_transport", "backward_pass")
    feedback: LayerFeedback = field(default_factory=LayerFeedback)
    """Whose magnitudes B has."""
    last_layer: Literal["feedback", "bp"] = "feedback"
    """bp: the output layer sends the error back by its true weights."""


@dataclass(frozen=True, kw_only=True)
class USF(SignConcordant):
    """Uniform sign-concordant feedback: B is a constant times the sign of W."""

    name: Literal["usf"] = "usf"


@dataclass(frozen=True, kw_only=True)
class FRSF(SignConcordant):
    """Fixed random-magnitude sign-concordant feedback: magnitudes drawn once, signs of W."""

    name: Literal["frsf"] = "frsf"


@dataclass(frozen=True, kw_only=True)
class BRSF(SignConcordant):
    """Batch-wise random-magnitude sign-concordant feedback: magnitudes drawn anew for every batch, signs of W."""

    name: Literal["brsf"] = "brsf"


@dataclass(frozen=True, kw_only=True)
class KP(MethodSpec):
    """Kolen-Pollack: feedback weights learn by the same steps as the forward weights and become them."""

    needs = ("global_score", "derivatives", "backward_pass")
    name: Literal["kp"] = "kp"
    feedback: LayerFeedback = field(default_factory=LayerFeedback)
    decay: Annotated[float, Gt(0), Le(1)] = 0.999
    """Multiplies W and B after every step; B − W shrinks by it."""


@dataclass(frozen=True, kw_only=True)
class LearnedFeedback(Spec):
    """How the feedback of ``dkp`` starts and learns."""

    init_gain: Positive = 0.1
    """Standard deviation of the initial entries."""
    lr: Annotated[float, Ge(0), Le(100)] | None = None
    """null: the learning rate of the forward weights."""
    decay: Annotated[float, Ge(0), Le(1)] = 1e-3
    """B loses this share of itself with every step."""


@dataclass(frozen=True, kw_only=True)
class DKP(BroadcastMethod):
    """Direct Kolen-Pollack: direct feedback alignment whose feedback is learned. The rule is unverified."""

    name: Literal["dkp"] = "dkp"
    feedback: LearnedFeedback = field(default_factory=LearnedFeedback)
    inject: Literal["layer_input", "post_activation"] = "layer_input"
    regularizers: Regularizers = field(default_factory=Regularizers)

    def unrecordable(self) -> str:
        return "dkp's feedback learns at a rate that the host sets"


@dataclass(frozen=True, kw_only=True)
class TargetFeedback(Spec):
    """How the matrices of ``drtp`` are drawn."""

    distribution: Literal["gaussian", "uniform", "kaiming_uniform"] = "kaiming_uniform"
    """gaussian N(0, 1); uniform U(±1/√n_k); kaiming_uniform U(±√(6/n_k))."""


@dataclass(frozen=True, kw_only=True)
class DRTP(BroadcastMethod):
    """Direct random target projection: every hidden layer is told a fixed random projection of the label."""

    needs = ("labels", "derivatives")
    activations = ("tanh", "sigmoid")
    name: Literal["drtp"] = "drtp"
    feedback: TargetFeedback = field(default_factory=TargetFeedback)
    inject: Literal["layer_input", "post_activation"] = "post_activation"
    score_reduction: Literal["mean", "sum"] = "mean"
    """sum: the projection is not divided by the batch size (the authors' code)."""
    regularizers: Regularizers = field(default_factory=Regularizers)


@dataclass(frozen=True, kw_only=True)
class CorrelationInit(Spec):
    """How the correlations R_k of ``sbd`` and ``ebd`` start."""

    distribution: Literal["xavier_uniform", "gaussian"] = "xavier_uniform"
    """xavier_uniform: U(±√(6/(n_k + C))); gaussian: N(0, 1)."""
    gain: Positive = 0.01
    """Multiplies R_k."""


@dataclass(frozen=True, kw_only=True)
class ScoreExpansion(Spec):
    """What is broadcast in the place of the score s. Experimental: constructions of ours, not of the paper."""

    kind: Literal["none", "stack", "random_feat", "input_scale"] = "none"
    """stack: beside s the scores of the companions; random_feat: beside s its products with random features of the
    penultimate activation; input_scale: s times the root mean square of the input."""
    companions: Annotated[tuple[Literal["brier"], ...], MaxLen(1)] = ("brier",)
    """brier: ½‖p − y‖² through the same softmax or sigmoid as the loss, whose minimiser it shares (``stack``)."""
    features: Annotated[int, Ge(1), Le(256)] = 4
    """Number of random features (``random_feat``)."""


@dataclass(frozen=True, kw_only=True)
class Correlated(BroadcastMethod):
    """What ``sbd`` and ``ebd`` have in common: all but the losses they are for."""

    forgetting: Annotated[float, Ge(0), Le(1)] = 0.99999
    """λ of the running correlation; 1: it stays where it started, which is direct feedback alignment."""
    g: Literal["identity", "square"] = "identity"
    """The function of the activations that the score is to be uncorrelated with."""
    r_init: CorrelationInit = field(default_factory=CorrelationInit)
    inject: Literal["layer_input", "post_activation"] = "post_activation"
    """Where R_k is taken and the signal lands: after the nonlinearity, or at the input of the next weight layer."""
    normalize_r: bool = False
    """Experimental: project with R_k scaled to Frobenius norm √n_k."""
    forward_projection: Annotated[float, Ge(0), Le(1e6)] = 0.0
    """Weight of the forward broadcast: the gradient of ½‖R_k‖² through the score, for the output layer."""
    weight_sparsity: Fraction = 0.0
    """Share of the weights of the hidden layers that is zero from the start and stays so (MLPs only)."""
    regularizers: Regularizers = field(default_factory=Regularizers)
    score_expansion: ScoreExpansion = field(default_factory=ScoreExpansion)

    def check(self, loss: str, family: str) -> None:
        if self.weight_sparsity and family != "dense":
            raise Incompatible("/method/weight_sparsity", "fixed sparse weights are for MLPs; set 0")
        if self.score_expansion.kind == "stack" and self.score_expansion.companions and loss == "mse":
            raise Incompatible(
                "/method/score_expansion/companions", "the Brier score of outputs without a link is mse itself; set []"
            )


@dataclass(frozen=True, kw_only=True)
class SBD(Correlated):
    """Score broadcast and decorrelation: each hidden layer is told the score by its correlation with the layer."""

    name: Literal["sbd"] = "sbd"


@dataclass(frozen=True, kw_only=True)
class EBD(Correlated):
    """Error broadcast and decorrelation: ``sbd`` under the squared error."""

    losses = ("mse",)
    name: Literal["ebd"] = "ebd"


@dataclass(frozen=True, kw_only=True)
class PepitaFeedback(Spec):
    """How F, from the error to the input, is drawn."""

    gain: Positive = 0.05
    """Multiplies U(±√(6/n_0))."""


@dataclass(frozen=True, kw_only=True)
class PEPITA(MethodSpec):
    """PEPITA: the error perturbs the input, and a second forward pass does the rest."""

    needs = ("global_score", "second_forward")
    families = ("dense",)
    plain = True
    name: Literal["pepita"] = "pepita"
    feedback: PepitaFeedback = field(default_factory=PepitaFeedback)
    output_error: Literal["second", "first"] = "second"
    """Of which pass the output layer is told the error."""


@dataclass(frozen=True, kw_only=True)
class FF(MethodSpec):
    """Forward-Forward: layers tell images with their true label from images with a wrong one."""

    needs = ("labels", "derivatives")
    losses = ("cross_entropy",)
    families = ("dense",)
    activations = ("relu", "leaky_relu", "gelu", "silu", "elu")
    plain = True
    name: Literal["ff"] = "ff"
    theta: Literal["width"] | Positive = "width"
    """The goodness above which a sample counts as positive; width: the number of units of the layer."""
    peer_weight: Annotated[float, Ge(0), Le(1e3)] = 0.03
    inference: Literal["linear", "goodness"] = "linear"
    """linear: a softmax on the normalised activities for the neutral label; goodness: every label is tried."""
    locality: Literal["local", "global"] = "local"
    """global: the contrasts of all layers send their gradients through the whole net."""

    def unrecordable(self) -> str:
        return "ff draws its wrong labels on the host"


@dataclass(frozen=True, kw_only=True)
class Head(Spec):
    """The projection of a layer onto the classes."""

    init: Literal["kaiming_uniform", "normal"] = "kaiming_uniform"
    """kaiming_uniform: U(±1/√n); normal: N(0, 2/n)."""
    max_features: Annotated[int, Ge(1), Le(65_536)] = 2048
    """Maps are average-pooled until they have at most so many numbers (experimental: the paper's is not public)."""


@dataclass(frozen=True, kw_only=True)
class MonoForward(MethodSpec):
    """Mono-Forward: every layer learns from a cross-entropy of its own, through a learned projection."""

    needs = ("labels", "derivatives")
    losses = ("cross_entropy",)
    joined_readout = True
    name: Literal["mono_forward"] = "mono_forward"
    schedule: Literal["simultaneous", "greedy"] = "simultaneous"
    """greedy: one block after the other, each for an equal share of the steps."""
    predict: Literal["sum", "last"] = "sum"
    """The class with the greatest sum of goodness over the layers, or with the greatest goodness of the last."""
    head: Head = field(default_factory=Head)

    def unrecordable(self) -> str | None:
        return "the greedy schedule changes what a step trains" if self.schedule == "greedy" else None


@dataclass(frozen=True, kw_only=True)
class LocalLoss(MethodSpec):
    """Local error signals: prediction and similarity matching at every block."""

    needs = ("labels", "derivatives")
    losses = ("cross_entropy",)
    name: Literal["local_loss"] = "local_loss"
    loss: Literal["pred", "sim", "predsim"] = "predsim"
    beta: Annotated[float, Ge(0), Le(1)] = 0.99
    """Share of similarity matching in predsim."""
    dim_in_decoder: Annotated[int, Ge(1), Le(65_536)] = 4096
    """Maps are average-pooled until they have at most so many numbers."""
    similarity_std: bool = True
    """Maps are compared by the standard deviation over space of each channel."""
    decoder_init: Literal["zeros", "kaiming_uniform"] = "zeros"
    decoder_bias: bool = True


Method = Annotated[
    BP | Shallow | FA | USF | FRSF | BRSF | KP | DFA | DKP | DRTP | SBD | EBD | FF | MonoForward | LocalLoss | PEPITA,
    ByName(),
]
