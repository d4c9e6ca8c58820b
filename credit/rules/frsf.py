"""Fixed random-magnitude sign-concordant feedback (Liao, Leibo and Poggio, arXiv 1510.05067).

B = |M⁰| ⊙ sign(W)        M⁰ drawn once, like W        the recursion of ``fa``
"""

from typing import Any, Literal

from torch import Tensor, nn

from credit.mirror import Mirrored, weighted
from credit.rule import Task, draw_like


class FRSF(Mirrored):
    """Magnitudes are random and fixed, signs are those of W in every forward pass."""

    def __init__(
        self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any], last_layer: Literal["feedback", "bp"]
    ) -> None:
        super().__init__(net, task)
        weights = weighted(net)
        for k, path in self.layers.items():
            self.register_buffer(f"M_{k}", draw_like(weights[path], task.generator, feedback["init"]))
        self.exact = max(self.layers, default=0) if last_layer == "bp" else None

    def feedback(self, k: int, weight: nn.Parameter) -> Tensor:
        W = weight.detach()
        return W if k == self.exact else self.get_buffer(f"M_{k}").abs() * W.sign()
