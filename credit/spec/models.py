"""The models and their options; ``parts`` says which plain layers a model stands for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MaxLen, MinLen

from credit.spec.base import ByName, Incompatible, Probability, Spec, Width
from credit.spec.layers import (
    Activation,
    ActivationLayer,
    AnyLayer,
    ConvLayer,
    DenseLayer,
    DropoutLayer,
    Extent,
    FlattenLayer,
    Margin,
    Mixing,
    NormLayer,
    Part,
    Pooling,
    PoolLayer,
    Shape,
    TokenMean,
    Tokens,
)

Blamed = tuple[str, Part]
"""A part, and the pointer within the model of the field to change where the part does not fit."""
Stack = Annotated[tuple[Width, ...], MaxLen(256)]
MNIST_SHAPE = (1, 28, 28)


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """What the menu says of every model."""

    def parts(self, shape: Shape, classes: int) -> Iterator[Blamed]:
        """Its parts from the input, of (channels, height, width), to the output layer. Raises Incompatible."""
        raise NotImplementedError


def _dropout(rate: float) -> Iterator[Blamed]:
    if rate:
        yield "", DropoutLayer(rate=rate)


@dataclass(frozen=True, kw_only=True)
class MLP(ModelSpec):
    """A multilayer perceptron; each hidden layer is weight → dropout → activation → batch norm (Launay's order)."""

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[Stack, MinLen(1)] = (800, 800)
    """Widths of the hidden layers, from the input on."""
    activation: Activation = "tanh"
    batch_norm: bool = False
    dropout: Probability = 0.0
    """Dropout on the pre-activations of the hidden layers."""
    input_dropout: Probability = 0.0
    """Dropout on the input."""
    bias: bool = True

    def parts(self, shape: Shape, classes: int) -> Iterator[Blamed]:  # noqa: ARG002
        yield "", FlattenLayer()
        yield from _dropout(self.input_dropout)
        yield from _dense(self, classes)


@dataclass(frozen=True, kw_only=True)
class ConvBlock(Spec):
    """A convolution with what belongs to it."""

    channels: Width
    kernel: Extent = 3
    stride: Extent = 1
    padding: Margin = 1
    pool: Pooling | None = None
    order: Annotated[tuple[Literal["conv", "activation", "norm", "pool"], ...], MinLen(1), MaxLen(4)] = (
        "conv",
        "activation",
        "norm",
        "pool",
    )
    """What follows what; norm is there if the model has batch_norm, pool if there is one, dropout after conv."""

    def __post_init__(self) -> None:
        if "conv" not in self.order or len(set(self.order)) < len(self.order):
            raise Incompatible("/order", "names conv, and nothing twice")
        if self.pool and "pool" not in self.order:
            raise Incompatible("/order", "names no pool, but there is one")


@dataclass(frozen=True, kw_only=True)
class CNN(ModelSpec):
    """A convolutional net: blocks of convolutions, then dense layers as those of the ``mlp``."""

    name: Literal["cnn"] = "cnn"
    blocks: Annotated[tuple[ConvBlock, ...], MinLen(1), MaxLen(256)] = (
        ConvBlock(channels=32, pool=Pooling()),
        ConvBlock(channels=64, pool=Pooling()),
    )
    hidden: Stack = (128,)
    """Widths of the dense hidden layers after the blocks."""
    activation: Activation = "relu"
    batch_norm: bool = False
    dropout: Probability = 0.0
    """Dropout on the pre-activations of the dense hidden layers."""
    conv_dropout: Probability = 0.0
    """Dropout on the pre-activations of the convolutions."""
    input_dropout: Probability = 0.0
    """Dropout on the input."""
    bias: bool = True

    def parts(self, shape: Shape, classes: int) -> Iterator[Blamed]:  # noqa: ARG002
        yield from _dropout(self.input_dropout)
        for k, block in enumerate(self.blocks):
            for module in block.order:
                yield from self._module(f"/blocks/{k}", block, module)
        yield "", FlattenLayer()
        yield from _dense(self, classes)

    def _module(self, at: str, block: ConvBlock, module: str) -> Iterator[Blamed]:
        if module == "conv":
            yield (
                f"{at}/kernel",
                ConvLayer(
                    channels=block.channels,
                    kernel=block.kernel,
                    stride=block.stride,
                    padding=block.padding,
                    bias=self.bias,
                ),
            )
            yield from _dropout(self.conv_dropout)
        elif module == "activation":
            yield "", ActivationLayer(kind=self.activation)
        elif module == "norm" and self.batch_norm:
            yield "", NormLayer()
        elif module == "pool" and block.pool:
            yield f"{at}/pool/size", PoolLayer(kind=block.pool.kind, size=block.pool.size, stride=block.pool.stride)


def _dense(model: MLP | CNN, classes: int) -> Iterator[Blamed]:
    """Hidden layers of weight → dropout → activation → batch norm, and the output layer."""
    for units in model.hidden:
        yield "", DenseLayer(units=units, bias=model.bias)
        yield from _dropout(model.dropout)
        yield "", ActivationLayer(kind=model.activation)
        if model.batch_norm:
            yield "", NormLayer()
    yield "", DenseLayer(units=classes, bias=model.bias)


@dataclass(frozen=True, kw_only=True)
class MLPMixer(ModelSpec):
    """An MLP-Mixer (Tolstikhin et al., arXiv 2105.01601): patches, then MLPs over tokens and over channels in turn.

    The linear stem, each token-mixing and each channel-mixing MLP are hidden layers of their own.
    """

    name: Literal["mlp_mixer"] = "mlp_mixer"
    patch_size: Extent = 4
    """Side of the square patches; divides the sides of the image."""
    width: Width = 128
    """Channels of a token."""
    depth: Annotated[int, Ge(1), Le(128)] = 4
    """Pairs of a token-mixing and a channel-mixing MLP."""
    token_width: Width = 64
    """Hidden units of a token-mixing MLP."""
    channel_width: Width = 512
    """Hidden units of a channel-mixing MLP."""
    activation: Activation = "gelu"

    def parts(self, shape: Shape, classes: int) -> Iterator[Blamed]:
        _, height, width = shape
        side = self.patch_size
        if height % side or width % side:
            raise Incompatible("/model/patch_size", f"patches of {side}×{side} do not tile images of {height}×{width}")
        yield "", ConvLayer(channels=self.width, kernel=side, stride=side)
        yield "", Tokens()
        for _ in range(self.depth):
            yield "", Mixing(over="tokens", units=self.token_width, activation=self.activation)
            yield "", Mixing(over="channels", units=self.channel_width, activation=self.activation)
        yield "", TokenMean()
        yield "", DenseLayer(units=classes)


@dataclass(frozen=True, kw_only=True)
class Custom(ModelSpec):
    """Plain layers in a row; each dense or conv begins a hidden layer, the output layer is added."""

    name: Literal["custom"] = "custom"
    layers: Annotated[tuple[AnyLayer, ...], MinLen(1), MaxLen(1024)] = (
        ConvLayer(channels=32, padding=1),
        ActivationLayer(),
        PoolLayer(),
        FlattenLayer(),
        DenseLayer(units=128),
        ActivationLayer(),
    )
    """From the input on; a flatten, and what stands between it and the next weight, belongs to that weight's layer."""
    bias: bool = True
    """Of the output layer."""

    def __post_init__(self) -> None:
        if not any(layer.weighs for layer in self.layers):
            raise Incompatible("/layers", "no dense and no conv: there would be no hidden layer")

    def parts(self, shape: Shape, classes: int) -> Iterator[Blamed]:  # noqa: ARG002
        for k, layer in enumerate(self.layers):
            yield f"/layers/{k}", layer
        if not any(isinstance(layer, FlattenLayer) for layer in self.layers):
            yield "", FlattenLayer()
        yield "", DenseLayer(units=classes, bias=self.bias)


# ---- the papers' own nets --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Preset(ModelSpec):
    """A net of a paper, some in one form for MNIST's 28×28 grey images and another for all others."""

    def form(self, shape: Shape) -> MLP | CNN:
        raise NotImplementedError

    def parts(self, shape: Shape, classes: int) -> Iterator[Blamed]:
        for _, part in self.form(shape).parts(shape, classes):
            yield "", part


@dataclass(frozen=True, kw_only=True)
class LaunayFC(Preset):
    """The fully connected net of Launay, Poli and Krzakala (arXiv 1906.04554): three hidden layers of 800 units."""

    name: Literal["launay_fc"] = "launay_fc"
    activation: Activation = "tanh"
    batch_norm: bool = False
    dropout: Probability = 0.0
    input_dropout: Probability = 0.0

    def form(self, shape: Shape) -> MLP:  # noqa: ARG002
        return MLP(
            hidden=(800, 800, 800),
            activation=self.activation,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            input_dropout=self.input_dropout,
        )


@dataclass(frozen=True, kw_only=True)
class LaunayCNN(Preset):
    """The CNN of Launay, Poli and Krzakala (arXiv 1906.04554): 5×5 convolutions of 32, 64, 64 channels, 128 units."""

    name: Literal["launay_cnn"] = "launay_cnn"
    activation: Activation = "tanh"
    batch_norm: bool = False
    dropout: Probability = 0.0
    """Dropout on the pre-activations of the dense layer."""
    conv_dropout: Probability = 0.0
    input_dropout: Probability = 0.0

    def form(self, shape: Shape) -> CNN:  # noqa: ARG002
        pool = Pooling(kind="max", size=3, stride=2)
        return CNN(
            blocks=tuple(ConvBlock(channels=n, kernel=5, padding=2, pool=pool) for n in (32, 64, 64)),
            hidden=(128,),
            activation=self.activation,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            conv_dropout=self.conv_dropout,
            input_dropout=self.input_dropout,
        )


@dataclass(frozen=True, kw_only=True)
class EBDMLP(Preset):
    """The MLPs of Erdogan, Pehlevan and Erdogan (arXiv 2504.11558): 1024-512 on MNIST, else 1024-512-512; ReLU."""

    name: Literal["ebd_mlp"] = "ebd_mlp"

    def form(self, shape: Shape) -> MLP:
        return MLP(hidden=(1024, 512) if shape == MNIST_SHAPE else (1024, 512, 512), activation="relu")


@dataclass(frozen=True, kw_only=True)
class EBDCNN(Preset):
    """The CNNs of Erdogan, Pehlevan and Erdogan (arXiv 2504.11558), in their MNIST and CIFAR-10 forms; ReLU."""

    name: Literal["ebd_cnn"] = "ebd_cnn"
    bias: bool = False
    """The paper's CNNs have no biases."""

    def form(self, shape: Shape) -> CNN:
        halved = Pooling(kind="avg")
        if shape == MNIST_SHAPE:
            blocks = tuple(ConvBlock(channels=n, pool=halved) for n in (64, 32))
        else:
            wide = tuple(ConvBlock(channels=n, kernel=5, padding=2, pool=halved) for n in (128, 64))
            blocks = (*wide, ConvBlock(channels=64, kernel=2, stride=2, padding=0))
        return CNN(blocks=blocks, hidden=(1024,), activation="relu", bias=self.bias)


@dataclass(frozen=True, kw_only=True)
class LeNet(Preset):
    """The LeNets of BioTorch (Sanfiz and Akrout, arXiv 2108.13446), in their MNIST and CIFAR forms; ReLU.

    MNIST's images are padded to 32×32 by the first convolution.
    """

    name: Literal["lenet"] = "lenet"

    def form(self, shape: Shape) -> CNN:
        halved = Pooling(kind="max")
        blocks: tuple[ConvBlock, ...]
        if shape == MNIST_SHAPE:
            blocks = (
                ConvBlock(channels=6, kernel=5, padding=2, pool=halved),
                ConvBlock(channels=16, kernel=5, padding=0, pool=halved),
                ConvBlock(channels=120, kernel=5, padding=0),
            )
            return CNN(blocks=blocks, hidden=(84,), activation="relu")
        pools = (halved, halved, Pooling(kind="global_avg"))
        blocks = tuple(
            ConvBlock(channels=n, padding=0, pool=pool) for n, pool in zip((32, 64, 128), pools, strict=True)
        )
        return CNN(blocks=blocks, hidden=(256,), activation="relu")


Model = Annotated[MLP | CNN | MLPMixer | Custom | LaunayFC | LaunayCNN | EBDMLP | EBDCNN | LeNet, ByName()]
