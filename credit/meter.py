"""What one training step costs: floating-point operations, peak live bytes, bytes saved for a backward pass.

Counted on a real step of the run, by watching its tensor operations; the numbers of the step are unchanged.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


class Peak:
    """A running sum of bytes and the highest value it had."""

    def __init__(self) -> None:
        self.live, self.peak = 0, 0

    def add(self, count: int) -> None:
        self.live += count
        self.peak = max(self.peak, self.live)


class _LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations made and that are still alive."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = Peak()
        self.seen = {tensor.untyped_storage()._cdata for tensor in known}  # noqa: SLF001  (a storage's identity)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()  # noqa: SLF001
        if key in self.seen:
            return
        self.seen.add(key)
        self.bytes.add(size)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.bytes.add(-size)


class _Flops(TorchDispatchMode):
    """Floating-point operations by torch's own formulas.

    Not torch's counter, which hooks every module call and fails where a rule calls a module on a leaf within ``grad``.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class _Saved:
    """A tensor that autograd holds on to; counted once per storage for as long as it is held."""

    def __init__(self, tensor: Tensor, meter: "_SavedBytes") -> None:
        self.tensor, self.meter = tensor, meter
        self.key = tensor.untyped_storage()._cdata  # noqa: SLF001
        meter.hold(self.key, tensor.untyped_storage().nbytes())

    def __del__(self) -> None:
        self.meter.release(self.key, self.tensor.untyped_storage().nbytes())


class _SavedBytes:
    """Bytes of the storages that autograd saves for a backward pass, parameters left out."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        self.bytes = Peak()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}  # noqa: SLF001
        self.holders: dict[int, int] = {}

    def hold(self, key: int, size: int) -> None:
        self.holders[key] = self.holders.get(key, 0) + 1
        if self.holders[key] == 1 and key not in self.known:
            self.bytes.add(size)

    def release(self, key: int, size: int) -> None:
        self.holders[key] -= 1
        if self.holders[key] == 0 and key not in self.known:
            self.bytes.add(-size)


@dataclass
class Cost:
    """The counts of one metered step."""

    flops: int = 0
    """Floating-point operations of matrix products and convolutions, a multiply-add as two."""
    peak_bytes: int = 0
    """Highest sum of the tensors that the step made and still held, gradients included."""
    saved_bytes: int = 0
    """Highest sum of the activations held for a backward pass."""


@contextmanager
def metered(known: Iterable[Tensor]) -> Iterator[Cost]:
    """Count what the body does; ``known`` are tensors that live longer than a step (parameters, state, the batch)."""
    known = list(known)
    cost, live, saved, flops = Cost(), _LiveBytes(known), _SavedBytes(known), _Flops()
    with ExitStack() as stack:
        stack.enter_context(saved_tensors_hooks(lambda tensor: _Saved(tensor, saved), lambda held: held.tensor))
        stack.enter_context(flops)
        stack.enter_context(live)
        yield cost
    cost.flops = flops.total
    cost.peak_bytes, cost.saved_bytes = live.bytes.peak, saved.bytes.peak
