"""The frozen-hidden control: what a method gains over it is what its hidden layers have learned.

    δ_k = 0 for k < L        the last layer trains with its ordinary gradient

The same initial weights as the run it controls, hidden weights bit-identical to them for ever. Batch norm keeps
normalising by batch, and its running statistics move: the features are those of the run it controls at the start.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, backward, tapped
from credit.rule import Rule


class Shallow(Rule):
    """Hidden blocks are told nothing."""

    def learns(self, net: nn.Sequential) -> Iterable[nn.Parameter]:
        return net[-1].parameters()

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        *hidden, output = net
        with torch.no_grad():
            for block in hidden:
                x = block(x)
        credit = backward([output], x, y_N, self.loss, taps)
        untold = (None for block in hidden for _ in tapped(block, taps))
        return credit._replace(blocks=[*(None for _ in hidden), *credit.blocks], signals=(*untold, *credit.signals))
