"""PEPITA (Dellaferrera and Kreiman, ICML 2022): the error perturbs the input, a second forward pass does the rest.

    pass 1   h_k,  s = ∂l/∂z                    pass 2 on x + s Fᵀ   h_kᵉ, sᵉ        F: n_0 × C, fixed and random
    ΔW_k = (h_k − h_kᵉ)ᵀ h_{k−1}ᵉ / N   k < L      ΔW_L = (sᵉ)ᵀ h_{L−1}ᵉ / N  (or s, ``output_error = first``)

No derivative of any layer, no backward pass: nothing of a run requires a gradient but the loss at its own argument.
The method has no δ_k, so only the cosine of the updates is defined. Biases get the same without h (ours; the paper's
nets have none).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, error, params, tapped
from credit.rule import Rule, Task, output_shapes


class PEPITA(Rule):
    """Two forward passes through blocks of one linear layer each."""

    def __init__(
        self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any], output_error: Literal["second", "first"]
    ) -> None:
        super().__init__(net, task)
        (classes,) = output_shapes(net, task.sample)[-1]
        inputs = task.sample.numel()
        bound = math.sqrt(6 / inputs) * feedback["gain"]
        self.register_buffer("F", (torch.rand(inputs, classes, generator=task.generator) * 2 - 1) * bound)
        self.output_error = output_error

    @torch.no_grad()
    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        h = self._forward(net, x)
        untold = tuple(None for block in net for _ in tapped(block, taps))
        loss, e_NC = error(self.loss, h[-1], y_N)
        x_err = x + (len(y_N) * e_NC @ self.get_buffer("F").T).reshape(x.shape)
        h_err = self._forward(net, x_err)
        e_last = error(self.loss, h_err[-1], y_N)[1] if self.output_error == "second" else e_NC
        told = [(h_k - h_k_err) / len(y_N) for h_k, h_k_err in zip(h[:-1], h_err[:-1], strict=True)]
        below = [x_err.flatten(1), *h_err[:-1]]
        blocks = [
            self._update(block, delta, h_below)
            for block, delta, h_below in zip(net, (*told, e_last), below, strict=True)
        ]
        return Credit(loss, h[-1], blocks, signals=untold)

    @staticmethod
    def _forward(net: nn.Sequential, x: Tensor) -> list[Tensor]:
        hs = []
        for block in net:
            x = block(x)
            hs.append(x)
        return hs

    @staticmethod
    def _update(block: nn.Module, delta_ND: Tensor, below_ND: Tensor) -> tuple[Tensor, ...]:
        """Of weight and, where there is one, bias."""
        return (delta_ND.mT @ below_ND, delta_ND.sum(0))[: len(params(block))]
