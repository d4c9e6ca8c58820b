"""Direct feedback alignment (Nøkland, arXiv 1609.01596), with the practices of Launay, Poli and Krzakala
(arXiv 1906.04554): one unified, normalised Gaussian feedback matrix for all layers.

    q_k = s B_k        δ_k = q_k ⊙ f′_k(a_k)   k < L        δ_L = s        B_k: C × n_k, fixed and random

The signal lands at the block's output; activation, norm and dropout send it on to a_k by their own adjoints.
"""

from typing import Any, Literal

from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, broadcast, project
from credit.penalties import Penalties
from credit.rule import Rule, Task, draw_broadcast, output_shapes


class DFA(Rule):
    """Every hidden block is told a fixed random projection of the output's score."""

    def __init__(
        self,
        net: nn.Sequential,
        task: Task,
        *,
        feedback: dict[str, Any],
        score_reduction: Literal["mean", "sum"] = "mean",
        score_transform: Literal["none", "sign"] = "none",
        regularizers: dict[str, Any],
        lean: bool = False,
    ) -> None:
        super().__init__(net, task)
        self.lean = lean
        *hidden, (classes,) = output_shapes(net, task.sample)
        drawn = draw_broadcast(hidden, classes, task.generator, **feedback, adaptive=task.adaptive)
        for k, B in enumerate(drawn, start=1):
            self.register_buffer(f"B_{k}", B)
        self.score_reduction, self.score_transform = score_reduction, score_transform
        self.penalties = Penalties(hidden, **regularizers, group=self.group)

    def score(self, e_NC: Tensor) -> Tensor:
        """The score that is broadcast: e = s/N, or N times that under ``sum``; its sign alone under ``sign``."""
        n = e_NC.shape[-2]
        if self.score_transform == "sign":
            e_NC = e_NC.sign() / n
        return e_NC * self.batch.samples(n) if self.score_reduction == "sum" else e_NC

    def signal(self, k: int, h_ND: Tensor, e_NC: Tensor) -> Tensor:
        B_CD: Tensor = getattr(self, f"B_{k + 1}")
        return self.penalties.added(k, h_ND, project(self.score(e_NC), B_CD))

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        return broadcast(net, x, y_N, self.loss, self.signal, taps, lean=self.lean, give=self.give)

    def settle(self, net: nn.Sequential, lr: float) -> None:  # noqa: ARG002  (the signature of all rules)
        self.penalties.settle()
