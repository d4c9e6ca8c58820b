"""Plain layers, the parts that every model is made of, and their arithmetic: shapes, parameters, products.

A ``custom`` model lists them in its spec; every other model says which ones it stands for. Shapes are those of one
sample: (channels, height, width) of maps, (tokens, width) of patches, (n,) of a vector.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from annotated_types import Ge, Le

from credit.spec.base import ByName, Probability, Spec, Width

Activation = Literal["tanh", "relu", "leaky_relu", "sigmoid", "gelu", "silu", "elu"]
Extent = Annotated[int, Ge(1), Le(1024)]
Margin = Annotated[int, Ge(0), Le(1024)]
Shape = tuple[int, ...]


class Misfit(ValueError):  # noqa: N818  (what the part is)
    """A part that cannot take the shape that comes to it."""


class Learned(NamedTuple):
    """A module with parameters: how many, and the multiply-adds of its product on one sample (0: it has none)."""

    numbers: int
    products: int


@dataclass(frozen=True, kw_only=True)
class Part(Spec):
    """One module of a net."""

    weighs: ClassVar[bool] = False
    """A layer of the net is named after it."""
    leads: ClassVar[bool] = False
    """It belongs to the layer of the weight that follows, with all that stands between them."""

    def after(self, shape: Shape) -> Shape:
        """The shape of its output. Raises Misfit."""
        return shape

    def learned(self, shape: Shape) -> tuple[Learned, ...]:  # noqa: ARG002  (most parts learn nothing)
        """Its modules with parameters in the order of the forward pass, for an input of this shape."""
        return ()


@dataclass(frozen=True, kw_only=True)
class DenseLayer(Part):
    """A fully connected weight; takes a vector."""

    weighs = True
    name: Literal["dense"] = "dense"
    units: Width
    bias: bool = True

    def after(self, shape: Shape) -> Shape:
        if len(shape) > 1:
            raise Misfit(f"a dense layer takes a vector, but here are {written(shape)}: put a flatten before it")
        return (self.units,)

    def learned(self, shape: Shape) -> tuple[Learned, ...]:
        products = shape[0] * self.units
        return (Learned(products + self.bias * self.units, products),)


@dataclass(frozen=True, kw_only=True)
class ConvLayer(Part):
    """A 2D convolution with a square kernel; takes maps."""

    weighs = True
    name: Literal["conv"] = "conv"
    channels: Width
    kernel: Extent = 3
    stride: Extent = 1
    padding: Margin = 0
    """Zeros on each side of the map."""
    bias: bool = True

    def after(self, shape: Shape) -> Shape:
        height, width = maps(shape, "a convolution")
        if self.kernel > min(height, width) + 2 * self.padding:
            raise Misfit(
                f"a kernel of {self.kernel}×{self.kernel} does not fit into maps of {height}×{width} "
                f"with a padding of {self.padding}"
            )
        around = 2 * self.padding - self.kernel
        return (self.channels, *((side + around) // self.stride + 1 for side in (height, width)))

    def learned(self, shape: Shape) -> tuple[Learned, ...]:
        weights = self.channels * shape[0] * self.kernel**2
        return (Learned(weights + self.bias * self.channels, weights * math.prod(self.after(shape)[1:])),)


@dataclass(frozen=True, kw_only=True)
class Pooling(Spec):
    """How maps are made smaller."""

    kind: Literal["max", "avg", "global_avg"] = "max"
    """global_avg: the mean of each map, whatever its size."""
    size: Extent = 2
    """Of the square window of max and avg."""
    stride: Extent | None = None
    """null: the size of the window."""


@dataclass(frozen=True, kw_only=True)
class PoolLayer(Pooling, Part):
    """Pooling; takes maps."""

    name: Literal["pool"] = "pool"

    def after(self, shape: Shape) -> Shape:
        height, width = maps(shape, "pooling")
        if self.kind == "global_avg":
            return (shape[0], 1, 1)
        if self.size > min(height, width):
            raise Misfit(f"a window of {self.size}×{self.size} does not fit into maps of {height}×{width}")
        return (shape[0], *((side - self.size) // (self.stride or self.size) + 1 for side in (height, width)))


@dataclass(frozen=True, kw_only=True)
class FlattenLayer(Part):
    """Maps become a vector."""

    leads = True
    name: Literal["flatten"] = "flatten"

    def after(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@dataclass(frozen=True, kw_only=True)
class NormLayer(Part):
    """Normalisation with a learned scale and shift."""

    name: Literal["norm"] = "norm"
    kind: Literal["batch", "layer"] = "batch"
    """batch: each unit or channel over the batch (and the map); layer: each sample over all its features."""

    def learned(self, shape: Shape) -> tuple[Learned, ...]:
        return (Learned(2 * (shape[0] if self.kind == "batch" else math.prod(shape)), 0),)


@dataclass(frozen=True, kw_only=True)
class ActivationLayer(Part):
    """A nonlinearity."""

    name: Literal["activation"] = "activation"
    kind: Activation = "relu"


@dataclass(frozen=True, kw_only=True)
class DropoutLayer(Part):
    """Sets entries to zero at random while training."""

    name: Literal["dropout"] = "dropout"
    rate: Probability = 0.5


AnyLayer = Annotated[
    DenseLayer | ConvLayer | PoolLayer | FlattenLayer | NormLayer | ActivationLayer | DropoutLayer, ByName()
]


# ---- parts of the Mixer alone ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tokens(Part):
    """Maps (width, h, w) become one token per position, (h·w, width)."""

    def after(self, shape: Shape) -> Shape:
        return (math.prod(shape[1:]), shape[0])


@dataclass(frozen=True, kw_only=True)
class Mixing(Part):
    """h + MLP(LayerNorm(h)) over the tokens or over the channels, with one hidden layer."""

    weighs = True
    over: Literal["tokens", "channels"]
    units: int
    activation: Activation

    def learned(self, shape: Shape) -> tuple[Learned, ...]:
        tokens, width = shape
        side, times = (tokens, width) if self.over == "tokens" else (width, tokens)
        matrix = side * self.units
        return (
            Learned(2 * width, 0),
            Learned(matrix + self.units, matrix * times),
            Learned(matrix + side, matrix * times),
        )


@dataclass(frozen=True, kw_only=True)
class TokenMean(Part):
    """LayerNorm, then the mean over the tokens."""

    leads = True

    def after(self, shape: Shape) -> Shape:
        return shape[1:]

    def learned(self, shape: Shape) -> tuple[Learned, ...]:
        return (Learned(2 * shape[1], 0),)


# ---- shapes ----------------------------------------------------------------------------------------------------------


def maps(shape: Shape, what: str) -> tuple[int, int]:
    """Height and width. Raises Misfit where there are no maps any more."""
    if len(shape) != 3:
        raise Misfit(f"{what} takes maps of channels × height × width, but here is a vector of {written(shape)}")
    return shape[1], shape[2]


def written(shape: Shape) -> str:
    return "×".join(str(side) for side in shape)


def pooling(shape: Sequence[int], max_features: int) -> int:
    """The smallest pooling window after which a map has at most ``max_features`` numbers; 1 for a plain layer."""
    window = 1
    while len(shape) > 1 and window < max(places(shape)) and math.prod(pooled(shape, window)) > max_features:
        window += 1
    return window


def pooled(shape: Sequence[int], window: int) -> Shape:
    """Maps (channels, h, w) or tokens (patches, channels) after pooling by a window that may hang over the border."""
    channels = shape[-1] if len(shape) == 2 else shape[0]
    return (channels, *(-(-size // window) for size in places(shape)))


def places(shape: Sequence[int]) -> Sequence[int]:
    return {1: (), 2: shape[:1], 3: shape[1:]}[len(shape)]
