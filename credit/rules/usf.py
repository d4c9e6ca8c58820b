"""Uniform sign-concordant feedback (Liao, Leibo and Poggio, arXiv 1510.05067; Xiao et al., ICLR 2019).

B = c · sign(W)        c: the standard deviation of the layer's initial weights        the recursion of ``fa``
"""

from typing import Any, Literal

from torch import Tensor, nn

from credit.mirror import Mirrored
from credit.rule import Task, deviation


class USF(Mirrored):
    """B is recomputed from the signs of W in every forward pass."""

    def __init__(
        self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any], last_layer: Literal["feedback", "bp"]
    ) -> None:
        super().__init__(net, task)
        self.init, self.exact = feedback["init"], max(self.layers, default=0) if last_layer == "bp" else None

    def feedback(self, k: int, weight: nn.Parameter) -> Tensor:
        W = weight.detach()
        return W if k == self.exact else W.sign() * deviation(W, self.init)
