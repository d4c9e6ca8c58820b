"""Feedback alignment (Lillicrap, Cownden, Tweed and Akerman, arXiv 1411.0247).

δ_L = s        δ_k = (δ_{k+1} B_{k+1}) ⊙ f′_k(a_k)        B_{k+1}: n_{k+1} × n_k, fixed and random
"""

from typing import Any

from torch import Tensor, nn

from credit.mirror import Mirrored, weighted
from credit.rule import Task, draw_like


class FA(Mirrored):
    """B never changes."""

    def __init__(self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any]) -> None:
        super().__init__(net, task)
        weights = weighted(net)
        for k, path in self.layers.items():
            self.register_buffer(f"B_{k}", draw_like(weights[path], task.generator, feedback["init"]))

    def feedback(self, k: int, weight: nn.Parameter) -> Tensor:  # noqa: ARG002  (B does not look at W)
        return self.get_buffer(f"B_{k}")
