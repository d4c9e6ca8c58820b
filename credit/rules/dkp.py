"""Direct Kolen-Pollack (Webster, Choi and Ahn 2020): direct feedback alignment whose feedback is learned.

    δ_k = (s B_k) ⊙ f′_k(a_k)        B_k ← (1 − λ) B_k − η sᵀ h_k / N        B_k: C × n_k

Under plain SGD with η and weight decay λ/η on W_L this is Kolen-Pollack learning for the last hidden layer. No code of
the authors is known and the rule is quoted from memory in secondary sources: treat numbers as unverified.
"""

from typing import Any

import torch
from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, broadcast, correlate, project
from credit.penalties import Penalties
from credit.rule import Rule, Task, draw_broadcast, output_shapes


class DKP(Rule):
    """The feedback estimates the direct path from a hidden layer to the output."""

    def __init__(
        self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any], regularizers: dict[str, Any], lean: bool
    ) -> None:
        super().__init__(net, task)
        self.lean = lean
        self.lr, self.decay = feedback["lr"], feedback["decay"]
        *hidden, (classes,) = output_shapes(net, task.sample)
        drawn = draw_broadcast(
            hidden,
            classes,
            task.generator,
            kind="per_layer",
            distribution="gaussian",
            normalize=False,
            gain=feedback["init_gain"],
            adaptive=False,
        )
        for k, B in enumerate(drawn, start=1):
            self.register_buffer(f"B_{k}", B)
        self.penalties = Penalties(hidden, **regularizers, group=self.group)
        self.products: dict[int, Tensor] = {}

    def signal(self, k: int, h_ND: Tensor, e_NC: Tensor) -> Tensor:
        if self.training:
            self.products[k] = correlate(e_NC, h_ND.to(e_NC.dtype))
        return self.penalties.added(k, h_ND, project(e_NC, self.get_buffer(f"B_{k + 1}")))

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        return broadcast(net, x, y_N, self.loss, self.signal, taps, lean=self.lean, give=self.give)

    @torch.no_grad()
    def settle(self, net: nn.Sequential, lr: float) -> None:  # noqa: ARG002  (the signature of all rules)
        rate = lr if self.lr is None else self.lr
        products = self.batch.means([*self.products.values()]) if self.products else ()
        for k, product_CD in zip(self.products, products, strict=True):
            self.get_buffer(f"B_{k + 1}").mul_(1 - self.decay).sub_(product_CD, alpha=rate)
        self.products.clear()
        self.penalties.settle()
