"""Direct random target projection (Frenkel, Lefebvre and Bol, arXiv 1909.01311).

    δ_k = (y B_k) ⊙ f′_k(a_k)   k < L, y one-hot targets, not the error        the output layer: its ordinary gradient

Hidden layers need the label alone and could learn during the forward pass. The authors' code sums over the batch
(``score_reduction = sum``).
"""

from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, broadcast, project
from credit.penalties import Penalties
from credit.rule import Rule, Task, draw_broadcast, output_shapes


class DRTP(Rule):
    """Every hidden block is told a fixed random projection of the label."""

    def __init__(
        self,
        net: nn.Sequential,
        task: Task,
        *,
        feedback: dict[str, Any],
        score_reduction: Literal["mean", "sum"],
        regularizers: dict[str, Any],
        lean: bool,
    ) -> None:
        super().__init__(net, task)
        self.lean = lean
        *hidden, (self.classes,) = output_shapes(net, task.sample)
        drawn = draw_broadcast(
            hidden,
            self.classes,
            task.generator,
            kind="per_layer",
            distribution=feedback["distribution"],
            normalize=False,
            gain=1.0,
            adaptive=False,
        )
        for k, B in enumerate(drawn, start=1):
            self.register_buffer(f"B_{k}", B)
        self.score_reduction = score_reduction
        self.penalties = Penalties(hidden, **regularizers, group=self.group)

    def signal(self, targets_NC: Tensor, k: int, h_ND: Tensor, e_NC: Tensor) -> Tensor:  # noqa: ARG002
        return self.penalties.added(k, h_ND, project(targets_NC, self.get_buffer(f"B_{k + 1}")))

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        targets_NC = F.one_hot(y_N, self.classes).to(self.get_buffer("B_1").dtype)
        n = y_N.shape[-1]
        targets_NC = targets_NC / n if self.score_reduction == "mean" else targets_NC * (self.batch.samples(n) / n)
        return broadcast(net, x, y_N, self.loss, partial(self.signal, targets_NC), taps, lean=self.lean, give=self.give)

    def settle(self, net: nn.Sequential, lr: float) -> None:  # noqa: ARG002  (the signature of all rules)
        self.penalties.settle()
