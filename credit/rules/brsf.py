"""Batch-wise random-magnitude sign-concordant feedback (Liao, Leibo and Poggio, arXiv 1510.05067).

B = |Mᵗ| ⊙ sign(W)        Mᵗ drawn anew for every batch, like W        the recursion of ``fa``
"""

from typing import Any, Literal

from torch import Tensor, nn

from credit.mirror import Mirrored, weighted
from credit.rule import Task, draw_like
from credit.streams import Streams


class BRSF(Mirrored):
    """Magnitudes are redrawn at every step, from the step's own stream; a probe uses those of the last step."""

    def __init__(
        self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any], last_layer: Literal["feedback", "bp"]
    ) -> None:
        super().__init__(net, task)
        self.streams, self.init = Streams(task.generator.initial_seed()), feedback["init"]
        weights = weighted(net)
        for k, path in self.layers.items():
            self.register_buffer(f"M_{k}", weights[path].detach().clone())
        self.exact = max(self.layers, default=0) if last_layer == "bp" else None
        self.advance(0, 1)

    def advance(self, step: int, steps: int) -> None:  # noqa: ARG002  (the signature of all rules)
        generator = self.streams.generator("magnitudes", step)
        for k in self.layers:
            M = self.get_buffer(f"M_{k}")
            M.copy_(draw_like(M, generator, self.init))

    def feedback(self, k: int, weight: nn.Parameter) -> Tensor:
        W = weight.detach()
        return W if k == self.exact else self.get_buffer(f"M_{k}").abs() * W.sign()
