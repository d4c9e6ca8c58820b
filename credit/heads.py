"""Local readouts: what a layer says of the classes by itself."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from credit.spec.layers import pooling


def averages(count: int, kernel: int) -> Tensor:
    """(⌈count/kernel⌉, count) the matrix that averages each ``kernel`` rows: a product is quicker than pooling."""
    groups_P = torch.arange(count) // kernel
    in_group = (groups_P == torch.arange(int(groups_P[-1]) + 1)[:, None]).float()
    return in_group / in_group.sum(1, keepdim=True)


class Projection(nn.Module):
    """A linear map from a layer's output onto the classes; maps are average-pooled first until they fit.

    Args:
        shape: of one output: (n,), (channels, height, width) or (patches, channels).
        max_features: the most inputs of the linear map.
        init: kaiming_uniform U(±1/√n), normal N(0, 2/n), or zeros.
    """

    means: Tensor | None

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        generator: torch.Generator,
        *,
        init: Literal["kaiming_uniform", "normal", "zeros"],
        max_features: int,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.kernel = pooling(shape, max_features)
        means = averages(shape[0], self.kernel) if len(shape) == 2 and self.kernel > 1 else None
        self.register_buffer("means", means, persistent=False)
        features = self.pooled(torch.zeros(1, *shape)).numel()
        weight = {
            "kaiming_uniform": lambda: (
                (torch.rand(classes, features, generator=generator) * 2 - 1) / math.sqrt(features)
            ),
            "normal": lambda: torch.randn(classes, features, generator=generator) * math.sqrt(2 / features),
            "zeros": lambda: torch.zeros(classes, features),
        }[init]()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(classes)) if bias else None

    def pooled(self, h_ND: Tensor) -> Tensor:
        """(N, features)"""
        if self.means is not None:
            h_ND = (self.means @ h_ND).mT
        elif self.kernel > 1:
            h_ND = F.avg_pool2d(h_ND, self.kernel, ceil_mode=True)
        return h_ND.flatten(1)

    def forward(self, h_ND: Tensor) -> Tensor:
        return F.linear(self.pooled(h_ND), self.weight, self.bias)
