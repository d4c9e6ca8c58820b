"""Batch-wise random-magnitude sign-concordant feedback (Liao, Leibo and Poggio, arXiv 1510.05067).

B = |Mᵗ| ⊙ sign(W)        Mᵗ drawn anew for every batch, like W        the recursion of ``fa``
"""

from typing import Any

from torch import Tensor, nn

from credit.mirror import SignConcordant, weighted
from credit.rule import Task, draw_like
from credit.streams import Streams


class BRSF(SignConcordant):
    """Magnitudes are redrawn at every step, from the step's own stream; a probe uses those of the last step."""

    def __init__(self, net: nn.Sequential, task: Task, **options: Any) -> None:
        super().__init__(net, task, **options)
        self.streams = Streams(task.generator.initial_seed())
        weights = weighted(net)
        for k, path in self.layers.items():
            self.register_buffer(f"M_{k}", weights[path].detach().clone())
        self.advance(0, 1)

    def advance(self, step: int, steps: int) -> None:  # noqa: ARG002  (the signature of all rules)
        generator = self.streams.generator("magnitudes", step)
        for k in self.layers:
            M = self.get_buffer(f"M_{k}")
            M.copy_(draw_like(M, generator, self.init))

    def magnitude(self, k: int, W: Tensor) -> Tensor:  # noqa: ARG002  (M does not look at W)
        return self.get_buffer(f"M_{k}").abs()
