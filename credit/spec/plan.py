"""A model on its data set: parts with their shapes, grouped into layers, cut into blocks. Arithmetic, no torch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from credit.spec.base import Incompatible
from credit.spec.layers import (
    ActivationLayer,
    ConvLayer,
    DropoutLayer,
    Misfit,
    Mixing,
    NormLayer,
    Part,
    PoolLayer,
    Shape,
)
from credit.spec.methods import MethodSpec
from credit.spec.models import ModelSpec

NONLINEAR = (ActivationLayer, Mixing)


@dataclass(frozen=True, eq=False)
class Placed:
    """A part at its place in a net."""

    part: Part
    shape: Shape
    """Of one sample at its input."""


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """A layer of the results: ``hidden1`` … or ``output``."""

    name: str
    parts: tuple[Placed, ...]

    @property
    def weight(self) -> Placed:
        return next(placed for placed in self.parts if placed.part.weighs)

    def cut(self, inject: str) -> Placed:
        """The part after which the net is cut: the layer's last, or the first nonlinearity after its weight."""
        following = self.parts[self.parts.index(self.weight) :]
        activation = next((placed for placed in following if isinstance(placed.part, ActivationLayer)), None)
        return activation if inject == "post_activation" and activation else self.parts[-1]


def plan(model: ModelSpec, shape: Shape, classes: int) -> list[LayerPlan]:
    """The layers of a model for inputs of ``shape`` (channels, height, width); the last is the output layer.

    Raises:
        Incompatible: with a pointer to the field of the model that does not fit.
    """
    groups = _grouped(list(_placed(model, shape, classes)))
    names = [*(f"hidden{k}" for k in range(1, len(groups))), "output"]
    return [LayerPlan(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def _placed(model: ModelSpec, shape: Shape, classes: int) -> Iterator[Placed]:
    for pointer, part in model.parts(shape, classes):
        yield Placed(part, shape)
        try:
            shape = part.after(shape)
        except Misfit as misfit:
            raise Incompatible(f"/model{pointer}", str(misfit)) from None


def _grouped(parts: Sequence[Placed]) -> list[list[Placed]]:
    """One group per weight: what stands before the first weight is its, what follows a weight too; leaders lead on."""
    starts, leader = [], None
    for k, placed in enumerate(parts):
        if placed.part.leads and leader is None:
            leader = k
        if placed.part.weighs:
            starts.append(k if leader is None else leader)
            leader = None
    starts[0] = 0
    return [list(parts[start:end]) for start, end in zip(starts, [*starts[1:], len(parts)], strict=True)]


def blocks(layers: Sequence[LayerPlan], method: MethodSpec) -> list[list[Placed]]:
    """The layers cut where a method wants it.

    ``inject`` says where a hidden layer ends for the method (what follows joins the next block); ``joined_readout``
    leaves the output layer in the block of the last hidden layer.
    """
    inject = getattr(method, "inject", "layer_input")
    found: list[list[Placed]] = [[]]
    for k, layer in enumerate(layers):
        last = k >= len(layers) - 1 - method.joined_readout
        for placed in layer.parts:
            found[-1].append(placed)
            if placed is layer.cut(inject) and not last:
                found.append([])
    return found


def unsuited(model: ModelSpec, layers: Sequence[LayerPlan], method: MethodSpec) -> str | None:
    """Why a method cannot train a model of these layers; None: it can."""
    parts, kind = parts_of(layers), family(layers)
    name = getattr(method, "name", "")
    if kind not in method.families:
        return f"{name} trains {' and '.join(method.families)} models only, and this is a {kind} one"
    used = {part.activation if isinstance(part, Mixing) else part.kind for part in parts if isinstance(part, NONLINEAR)}
    if method.activations and not used <= set(method.activations):
        unknown = ", ".join(sorted(used - set(method.activations)))
        other = f'{{"name": "{getattr(model, "name", "")}", "activation": "{method.activations[0]}"}}'
        remedy = f"; another activation is set in the model, as in {other}" if hasattr(model, "activation") else ""
        return f"{name} works with {' or '.join(method.activations)}, not with {unknown}{remedy}"
    extra = next((part for part in parts if isinstance(part, NormLayer | DropoutLayer)), None)
    if method.plain and extra:
        return f"{name} trains layers of a weight and a nonlinearity only, without {extra.name}"
    return None


def parts_of(layers: Sequence[LayerPlan]) -> list[Part]:
    return [placed.part for layer in layers for placed in layer.parts]


def family(layers: Sequence[LayerPlan]) -> str:
    """dense, conv or mixer: the most special of its parts names a model."""
    parts = parts_of(layers)
    if any(isinstance(part, Mixing) for part in parts):
        return "mixer"
    return "conv" if any(isinstance(part, ConvLayer | PoolLayer) for part in parts) else "dense"


def has_batch_norm(layers: Sequence[LayerPlan]) -> bool:
    return any(isinstance(part, NormLayer) and part.kind == "batch" for part in parts_of(layers))


def needs_two_samples(layers: Sequence[LayerPlan]) -> bool:
    """Batch norm of single numbers per unit has no deviation to divide by in a batch of one."""
    return any(
        isinstance(placed.part, NormLayer) and placed.part.kind == "batch" and math.prod(placed.shape[1:]) == 1
        for layer in layers
        for placed in layer.parts
    )
