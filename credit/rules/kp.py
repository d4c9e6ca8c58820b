"""Kolen-Pollack learning (Kolen and Pollack 1994; Akrout et al., arXiv 1904.05391).

W ← λ (W − η ΔW)        B ← λ (B − η ΔW)        hence B − W shrinks by λ with every step
δ_k = (δ_{k+1} B_{k+1}) ⊙ f′_k(a_k)
"""

from typing import Any

import torch
from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, params
from credit.mirror import Mirrored, weighted
from credit.rule import Task, draw_like


class KP(Mirrored):
    """B is a parameter of the rule; given W's gradient, any optimizer without weight decay moves both alike."""

    def __init__(self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any], decay: float) -> None:
        super().__init__(net, task)
        self.decay = decay
        weights = weighted(net)
        for k, path in self.layers.items():
            self.register_parameter(f"B_{k}", nn.Parameter(draw_like(weights[path], task.generator, feedback["init"])))

    def feedback(self, k: int, weight: nn.Parameter) -> Tensor:  # noqa: ARG002  (B does not look at W)
        return self.get_parameter(f"B_{k}").detach()

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        credit = super().assign(net, x, y_N, taps)
        told: dict[Tensor, Tensor] = {
            parameter: gradient
            for block, gradients in zip(net, credit.blocks, strict=True)
            for parameter, gradient in zip(params(block), gradients or (), strict=True)
        }
        weights = weighted(net)
        return credit._replace(own=tuple(told[weights[path]] for path in self.layers.values()))

    @torch.no_grad()
    def settle(self, net: nn.Sequential, lr: float) -> None:  # noqa: ARG002  (the signature of all rules)
        weights = weighted(net)
        for k, path in self.layers.items():
            weights[path].mul_(self.decay)
            self.get_parameter(f"B_{k}").mul_(self.decay)
