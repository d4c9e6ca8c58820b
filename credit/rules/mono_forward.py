"""Mono-Forward (Gong, Li and Abdulla, arXiv 2501.09238 v2): every layer has a projection onto the classes and a
cross-entropy of its own.

    G_k = h_k M_kᵀ        L_k = CE(softmax(G_k), y)        W_k, b_k and M_k learn from L_k alone
    e_k = softmax(G_k) − y        ΔM_k = e_kᵀ h_k / N        δ_k = (e_k M_k) ⊙ f′_k(a_k)

The last M is the model's own output layer, inside the last block. Projections of maps (conv, mixer) average-pool
them first until ``max_features`` suffice: the paper's form of these heads is not public, this one is ours.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, local, params, tapped
from credit.heads import Projection
from credit.rule import Prediction, Rule, Task, output_shapes


class MonoForward(Rule):
    """Blocks learn one at a time within a step (simultaneous), or one after the other over the run (greedy)."""

    def __init__(
        self,
        net: nn.Sequential,
        task: Task,
        *,
        schedule: Literal["simultaneous", "greedy"],
        predict: Literal["sum", "last"],
        head: dict[str, Any],
    ) -> None:
        super().__init__(net, task)
        *hidden, (classes,) = output_shapes(net, task.sample)
        projections = (Projection(shape, classes, task.generator, **head) for shape in hidden)
        self.heads = nn.ModuleList([*projections, nn.Identity()])
        self.greedy, self.summed, self.phase = schedule == "greedy", predict == "sum", 0

    def advance(self, step: int, steps: int) -> None:
        """Greedy: every block gets an equal share of the steps."""
        self.phase = step * len(self.heads) // steps if self.greedy else 0

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        blocks, heads = list(net), list(self.heads)
        goodness: list[Tensor] = []

        def objective(k: int, h_ND: Tensor) -> Tensor:
            G_NC = heads[k + self.phase](h_ND)
            goodness.append(G_NC.detach())
            return self.loss(G_NC, y_N)

        if not self.greedy:
            credit = local(blocks, heads, x, objective, taps, give=self.give)
            return credit._replace(outputs=self._answer(goodness))
        below, active, above = blocks[: self.phase], blocks[self.phase], blocks[self.phase + 1 :]
        with torch.no_grad():
            for block in below:
                x = block(x)
        credit = local([active], [heads[self.phase]], x, objective, taps, give=self.give)
        own = iter(credit.own)
        before, after = ([None for block in blocks for _ in tapped(block, taps)] for blocks in (below, above))
        return credit._replace(
            outputs=goodness[-1],
            blocks=[*(None for _ in below), *credit.blocks, *(None for _ in above)],
            own=tuple(next(own) if k == self.phase else None for k, part in enumerate(heads) for _ in params(part)),
            signals=(*before, *credit.signals, *after),
        )

    def predict(self, net: nn.Sequential, x: Tensor) -> Prediction:
        goodness = []
        for block, projection in zip(net, self.heads, strict=True):
            x = block(x)
            goodness.append(projection(x))
        names = [*(f"hidden{k}" for k in range(1, len(goodness))), "output"]
        trained = goodness[: self.phase + 1] if self.greedy else goodness
        return Prediction(self._answer(trained), dict(zip(names, goodness, strict=True)))

    def _answer(self, goodness: list[Tensor]) -> Tensor:
        return torch.stack(goodness).sum(0) if self.summed else goodness[-1]
