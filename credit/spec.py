"""The menu: every method, model, data set, optimizer and option as a frozen dataclass.

The one vocabulary of the whole project: the API's schema, the command line, the training loop and the tests all
derive from these classes. No torch here, so that reading a spec costs nothing.

Ranges are ``annotated_types`` marks; the JSON layer (``lab.specs``) checks them and names the field that is wrong.
What a single field cannot know (a method that cannot train a model) is checked in ``Run.__post_init__``.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

MAX_SEED = 2**63 - 1

Seed = Annotated[int, Ge(0), Le(MAX_SEED)]
Positive = Annotated[float, Gt(0), Le(1e6)]
Rate = Annotated[float, Gt(0), Le(100)]
Probability = Annotated[float, Ge(0), Lt(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Width = Annotated[int, Ge(1), Le(65_536)]
Count = Annotated[int, Ge(1), Le(10_000_000)]


class Incompatible(ValueError):  # noqa: N818  (it names what the parts are, not that an error happened)
    """Parts of a spec that are right alone and wrong together.

    Attributes:
        pointer: JSON pointer (RFC 6901, without ``#``) of the field to change.
    """

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of every part of a spec: strict types, no unknown fields, no NaN."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }


class ByName:
    """Marks a union of specs that are told apart by their ``name``.

    Speaks pydantic's protocol without importing it, so that the JSON layer reports an unknown name once, with the
    names there are, instead of one error per member of the union.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        choices = {member.name: handler.generate_schema(member) for member in get_args(source)}
        return {"type": "tagged-union", "discriminator": "name", "choices": choices}


def menu(union: Any) -> dict[str, type[Spec]]:
    """The members of a ``ByName`` union by name: ``menu(Method)["dfa"] is DFA``."""
    return {member.name: member for member in get_args(get_args(union)[0])}


# ---- methods ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BP(Spec):
    """Backpropagation: the reference every other method is measured against."""

    name: Literal["bp"] = "bp"


@dataclass(frozen=True, kw_only=True)
class Shallow(Spec):
    """The frozen-hidden control: hidden layers keep their initial weights, the output layer alone learns."""

    name: Literal["shallow"] = "shallow"


@dataclass(frozen=True, kw_only=True)
class LayerFeedback(Spec):
    """How the feedback weights of the feedback-alignment family are drawn, one matrix per forward weight."""

    init: Literal["xavier_uniform", "kaiming_uniform", "uniform_fanout", "gaussian"] = "xavier_uniform"
    """xavier_uniform: U(±√(6/(fan_in+fan_out))); kaiming_uniform: U(±1/√fan_in); uniform_fanout: U(±1/√fan_out);
    gaussian: N(0, 1/fan_out)."""


@dataclass(frozen=True, kw_only=True)
class FA(Spec):
    """Feedback alignment: the error travels backward through fixed random weights B instead of Wᵀ."""

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
class DFA(Spec):
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

# ---- models ----------------------------------------------------------------------------------------------------------

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

# ---- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Images(Spec):
    """Options common to all image data sets."""

    train_images: ClassVar[int]
    test_images: ClassVar[int]
    shape: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int]

    train_samples: Count | None = None
    """Use this many training images, a subset that depends on the data set alone; null: all."""
    test_samples: Count | None = None
    """Likewise for the test images."""
    validation_fraction: Fraction = 0.0
    """Share of the chosen training images that is held out as the validation split."""
    augment: Literal["none"] = "none"
    normalize: Literal["standard", "unit"] = "standard"
    """standard: per channel, minus the data set's mean, over its deviation; unit: values in [0, 1]."""

    def __post_init__(self) -> None:
        for name, available in (("train_samples", self.train_images), ("test_samples", self.test_images)):
            wanted = getattr(self, name)
            if wanted is not None and wanted > available:
                raise Incompatible(f"/{name}", f"{wanted} is more than the {available} images there are")
        train = self.train_samples or self.train_images
        if self.validation_fraction and not 0 < round(train * self.validation_fraction) < train:
            raise Incompatible("/validation_fraction", f"leaves one of the splits of {train} images empty")


@dataclass(frozen=True, kw_only=True)
class FashionMNISTMini(Images):
    """A stratified subset of Fashion-MNIST that comes with CreditLab (MIT licence, Zalando SE)."""

    train_images, test_images, shape, classes = 8_000, 2_000, (1, 28, 28), 10
    name: Literal["fashion-mnist-mini"] = "fashion-mnist-mini"


@dataclass(frozen=True, kw_only=True)
class MNIST(Images):
    """Handwritten digits, 28×28 grey (LeCun, Bottou, Bengio and Haffner 1998)."""

    train_images, test_images, shape, classes = 60_000, 10_000, (1, 28, 28), 10
    name: Literal["mnist"] = "mnist"


@dataclass(frozen=True, kw_only=True)
class FashionMNIST(Images):
    """Articles of clothing, 28×28 grey (Xiao, Rasul and Vollgraf 2017)."""

    train_images, test_images, shape, classes = 60_000, 10_000, (1, 28, 28), 10
    name: Literal["fashion-mnist"] = "fashion-mnist"


@dataclass(frozen=True, kw_only=True)
class CIFAR10(Images):
    """Photographs of ten kinds of objects, 32×32 RGB (Krizhevsky 2009)."""

    train_images, test_images, shape, classes = 50_000, 10_000, (3, 32, 32), 10
    name: Literal["cifar10"] = "cifar10"


Dataset = Annotated[FashionMNISTMini | MNIST | FashionMNIST | CIFAR10, ByName()]

# ---- optimizers and schedules ----------------------------------------------------------------------------------------


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

# ---- the run ---------------------------------------------------------------------------------------------------------

Loss = Literal["cross_entropy", "mse"]
Control = Literal["bp", "shallow"]


@dataclass(frozen=True, kw_only=True)
class Training(Spec):
    """How long, in what portions, on what and from which seed."""

    epochs: Annotated[int, Ge(1), Le(100_000)] = 5
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 128
    drop_last: bool = False
    """Leave out the last, smaller batch of an epoch."""
    seed: Seed | None = None
    """Initial weights, feedback, order of samples and dropout masks all follow from it; null: drawn at submission."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: Annotated[int, Ge(1), Le(256)] | None = None
    """CPU threads of the training process (sums are split by thread, so it belongs to the numbers); null: the
    service's setting."""
    log_every: Annotated[int, Ge(1), Le(1_000_000)] = 10
    """Steps per point of train/loss and train/accuracy, each the mean over those steps."""

    def __post_init__(self) -> None:
        kind, _, index = self.device.partition(":")
        if self.device not in {"auto", "cpu", "cuda"} and not (
            kind == "cuda" and index.isascii() and index.isdigit() and len(index) < 4
        ):
            raise Incompatible("/device", f"{self.device!r} is not one of auto, cpu, cuda, cuda:N")


@dataclass(frozen=True, kw_only=True)
class Alignment(Spec):
    """When the method's signals are compared with backpropagation's, and on how many samples."""

    every: Literal["epoch", "never"] | Annotated[int, Ge(1), Le(10_000_000)] = "epoch"
    """epoch: before the first step and after every epoch; a number: every so many steps; never."""
    samples: Annotated[int, Ge(1), Le(65_536)] = 512
    """Size of the probe, the first images of the split (fewer where the split is smaller)."""
    split: Literal["test", "train"] = "test"


@dataclass(frozen=True, kw_only=True)
class Run(Spec):
    """A whole job: what to train, how, on what, and beside which controls."""

    method: Method
    model: Model
    dataset: Dataset
    name: Annotated[str, MaxLen(200)] | None = None
    loss: Loss = "cross_entropy"
    optimizer: Optimizer = field(default_factory=Adam)
    training: Training = field(default_factory=Training)
    alignment: Alignment = field(default_factory=Alignment)
    controls: Annotated[tuple[Control, ...], MaxLen(2)] = ()
    """Twins trained beside the job: same seed, same initial weights, same order of samples."""
    labels: Annotated[dict[Annotated[str, MinLen(1), MaxLen(64)], Annotated[str, MaxLen(256)]], MaxLen(32)] = field(
        default_factory=dict
    )
    max_runtime_seconds: Annotated[float, Gt(0), Le(31_536_000)] | None = None
    """Wall-clock limit of an attempt; null: none."""
    priority: Annotated[int, Ge(-100), Le(100)] = 0
    """Higher runs first."""

    def __post_init__(self) -> None:
        if len(set(self.controls)) < len(self.controls):
            raise Incompatible("/controls", "each control may be named once")
        train = self.dataset.train_samples or self.dataset.train_images
        train -= round(train * self.dataset.validation_fraction)
        if self.training.drop_last and self.training.batch_size > train:
            raise Incompatible(
                "/training/batch_size",
                f"with drop_last, {train} training images make no batch of {self.training.batch_size}",
            )
        if (
            getattr(self.model, "batch_norm", False)
            and not self.training.drop_last
            and train % self.training.batch_size == 1
        ):
            raise Incompatible(
                "/training/batch_size",
                "batch norm cannot train on the last batch of one sample; set drop_last or another size",
            )
