"""Blocks: the unit of credit, of memory and of compilation; and the net that is a sequence of them.

A layer is declared as its modules in order (weight, dropout, activation, norm, …). Where the net is cut into blocks is
the method's choice (``inject``): at the input of the next weight layer, or right after the nonlinearity, in which case
what follows it joins the next block. The cut changes neither the parameters nor their order.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Inject = Literal["layer_input", "post_activation"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


@dataclass(frozen=True)
class Layer:
    """A layer before the net is cut: its public name and its modules in order."""

    name: str
    modules: Sequence[nn.Module]
    weight: nn.Module | None
    """The module whose output is the pre-activation a; None for a layer of several weights."""
    activation: nn.Module | None
    """After which the layer may be cut (``post_activation``); None: at its end."""


class Point(NamedTuple):
    """Where a layer is measured, as module paths that hold for a net and for its mirror."""

    layer: str
    preactivation: str | None
    output: str
    modules: tuple[str, ...]


class Block(nn.Module):
    """Modules in a row, cut off from its neighbours by the rules that broadcast or stay local."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


class Net(nn.Sequential):
    """A sequence of blocks that knows its layers by name."""

    points: tuple[Point, ...]
    names: dict[str, str]
    """Module path -> public name, for every module that holds tensors."""

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter and buffer by a public name that does not depend on where the net is cut."""
        found = {}
        for path, name in self.names.items():
            module = self.get_submodule(path)
            for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                found[f"{name}.{key}"] = tensor.detach()
        return found


def fingerprint(net: Net) -> str:
    """SHA-256 of every tensor of the net: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in net.tensors().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def assemble(layers: Sequence[Layer], inject: Inject = "layer_input", *, joined_readout: bool = False) -> Net:
    """Cut layers into blocks and remember where each layer went.

    Args:
        layers: the last one is the output layer.
        inject: where the net is cut.
        joined_readout: the output layer stays in the block of the last hidden layer.
    """
    groups: list[list[nn.Module]] = [[]]
    for k, layer in enumerate(layers):
        last = k >= len(layers) - 1 - joined_readout
        cut = layer.activation if inject == "post_activation" and layer.activation else layer.modules[-1]
        for module in layer.modules:
            groups[-1].append(module)
            if module is cut and not last:
                groups.append([])
    net = Net(*(Block(group) for group in groups))
    paths = {module: path for path, module in net.named_modules()}
    net.points = tuple(
        Point(
            layer.name,
            paths[layer.weight] if layer.weight else None,
            paths[layer.modules[-1]],
            tuple(paths[module] for module in layer.modules),
        )
        for layer in layers
    )
    net.names = {paths[module]: name for layer in layers for module, name in _named(layer)}
    return net


def _named(layer: Layer) -> Iterator[tuple[nn.Module, str]]:
    """The modules of a layer that hold tensors of their own, with their public names."""
    for module in layer.modules:
        for path, part in module.named_modules():
            if any(True for _ in (*part.parameters(recurse=False), *part.buffers(recurse=False))):
                name = layer.name if module is layer.weight or layer.weight is None else f"{layer.name}.norm"
                yield part, f"{name}.{path}" if path else name


def linear(
    n_in: int, n_out: int, *, bias: bool, init: Literal["default", "zeros"], generator: torch.Generator
) -> nn.Linear:
    """A linear layer with torch's own distribution, U(±1/√n_in), drawn from the generator given; or all zeros."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
    bound = 1 / math.sqrt(n_in) if init == "default" else 0.0
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
