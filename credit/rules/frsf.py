"""Fixed random-magnitude sign-concordant feedback (Liao, Leibo and Poggio, arXiv 1510.05067).

B = |M⁰| ⊙ sign(W)        M⁰ drawn once, like W        the recursion of ``fa``
"""

from typing import Any

from torch import Tensor, nn

from credit.mirror import SignConcordant, weighted
from credit.rule import Task, draw_like


class FRSF(SignConcordant):
    """Magnitudes are random and fixed, signs are those of W at every step."""

    def __init__(self, net: nn.Sequential, task: Task, **options: Any) -> None:
        super().__init__(net, task, **options)
        weights = weighted(net)
        for k, path in self.layers.items():
            self.register_buffer(f"M_{k}", draw_like(weights[path], task.generator, self.init))

    def magnitude(self, k: int, W: Tensor) -> Tensor:  # noqa: ARG002  (M does not look at W)
        return self.get_buffer(f"M_{k}").abs()
