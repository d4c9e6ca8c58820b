"""Blocks: the unit of credit, of memory and of compilation; and the net that is a sequence of them.

What the layers are, and where the net is cut, is said by ``credit.spec.plan``. The cut changes neither the parameters
nor their order.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from credit.spec.layers import Mixing
from credit.spec.plan import LayerPlan, Placed


class Point(NamedTuple):
    """Where a layer is measured, as module paths that hold for a net and for its mirror."""

    layer: str
    preactivation: str | None
    """Of the module whose output is the pre-activation a; None for a layer of several weights."""
    output: str
    """Of the last module before the cut, where a signal for the layer lands."""
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


def assemble(
    layers: Sequence[LayerPlan], blocks: Sequence[Sequence[Placed]], modules: Mapping[Placed, nn.Module]
) -> Net:
    """Put modules into their blocks and remember where each layer went."""
    net = Net(*(Block([modules[placed] for placed in block]) for block in blocks))
    paths = {module: path for path, module in net.named_modules()}
    net.points = tuple(
        Point(
            layer.name,
            None if isinstance(layer.weight.part, Mixing) else paths[modules[layer.weight]],
            paths[modules[_told(layer, blocks)]],
            tuple(paths[modules[placed]] for placed in layer.parts),
        )
        for layer in layers
    )
    net.names = {paths[module]: name for layer in layers for module, name in _named(layer, modules)}
    return net


def _told(layer: LayerPlan, blocks: Sequence[Sequence[Placed]]) -> Placed:
    """The layer's last part in the block of its weight: where a signal for the layer lands."""
    block = next(block for block in blocks if layer.weight in block)
    return [placed for placed in layer.parts if placed in block][-1]


def _named(layer: LayerPlan, modules: Mapping[Placed, nn.Module]) -> Iterator[tuple[nn.Module, str]]:
    """The modules of a layer that hold tensors of their own, with their public names: hidden1, hidden1.norm, …"""
    norms = 0
    for placed in layer.parts:
        name = layer.name
        if placed.part.learned(placed.shape) and not placed.part.weighs:
            norms += 1
            name = f"{layer.name}.norm{norms if norms > 1 else ''}"
        for path, part in modules[placed].named_modules():
            if any(True for _ in (*part.parameters(recurse=False), *part.buffers(recurse=False))):
                yield part, f"{name}.{path}" if path else name
