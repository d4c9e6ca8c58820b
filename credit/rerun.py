"""A block's forward pass, once more, as it was the first time: the same masks, and no statistics counted twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


class Rerun:
    """Made right before a block's first pass; called with the same input and weights, it gives the same output.

    Args:
        block: any module whose only chance is dropout and whose only memory is batch norm's.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        active = [module for module in block.modules() if module.training]
        self.norms = [module for module in active if isinstance(module, _BatchNorm) and module.track_running_stats]
        self.devices = {parameter.device for parameter in block.parameters() if parameter.is_cuda}
        self.state = random_state(self.devices) if any(isinstance(one, _DropoutNd) for one in active) else None

    def __call__(self, x: Tensor) -> Tensor:
        with self._as_before():
            h: Tensor = self.block(x)
        return h

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        now = random_state(self.devices) if self.state else None
        if self.state:
            set_random_state(self.state)
        for norm in self.norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in self.norms:
                norm.track_running_stats = True
            if now:
                set_random_state(now)


RandomState = dict[torch.device | None, Tensor]
"""Of the CPU's generator (None) and of CUDA devices'."""


def random_state(devices: set[torch.device]) -> RandomState:
    return {None: torch.get_rng_state(), **{device: torch.cuda.get_rng_state(device) for device in devices}}


def set_random_state(state: RandomState) -> None:
    for device, values in state.items():
        if device is None:
            torch.set_rng_state(values)
        else:
            torch.cuda.set_rng_state(values, device)
