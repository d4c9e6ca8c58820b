"""Backpropagation (Rumelhart, Hinton and Williams 1986): the reference.

δ_L = s        δ_k = (δ_{k+1} W_{k+1}) ⊙ f′_k(a_k)        ΔW_k = δ_kᵀ h_{k−1} / N
"""

from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, backward
from credit.rule import Rule


class BP(Rule):
    """The error comes back through the transposed forward weights."""

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        return backward(net, x, y_N, self.loss, taps)
