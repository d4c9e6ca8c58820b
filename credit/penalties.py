"""Regularisers of hidden activations as gradients at a block's output: further summands of any broadcast signal.

Power and entropy are those of error broadcast and decorrelation (Erdogan, Pehlevan and Erdogan, arXiv 2504.11558);
h: N × n, the outputs of a block; every gradient is on the scale of the batch's mean loss.

    power    J_P = Σ_l d_l²,   d_l = mean_n h_nl² − P                       ∂J_P/∂h = (4/N) d ⊙ h
    entropy  J_E = ½ logdet A, maximised                                    ∂J_E/∂h = ((1−λ)/N) h A⁻¹
             A ← λ A + (1−λ) (hᵀh/N + Ε),   A_0 = ε I
    l1       J_1 = mean_n ‖h_n‖₁                                            ∂J_1/∂h = sign(h)/N

A⁻¹ is kept and renewed by Woodbury's identity, O(n²N + N³). The ridge that keeps A invertible would not allow it: λ A
forgets ε I, and all of (1−λ) ε I has full rank. So Ε renews it for one unit after the other, r = ⌈n(1−λ)⌉ units in a
step with n/r times their share: in the mean over a round of n/r steps it is ε I.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from credit.parallel import ALONE, Group


class Penalties(nn.Module):
    """The regularisers of all hidden blocks. Without weights they are no operation and keep nothing.

    Args:
        shapes: of one output of each hidden block. The entropy is that of blocks whose output is a vector.
        power: ``{"weight", "target"}``.
        entropy: ``{"weight", "forgetting", "eps"}``.
        l1: weight.
        group: the processes over which every batch is spread.
    """

    def __init__(
        self,
        shapes: Sequence[torch.Size],
        *,
        power: dict[str, Any],
        entropy: dict[str, Any],
        l1: float,
        group: Group = ALONE,
    ) -> None:
        super().__init__()
        self.shapes, self.group = shapes, group
        self.power, self.entropy, self.l1 = power, entropy, l1
        self.pending: dict[str, Tensor] = {}
        if entropy["weight"]:
            self.register_buffer("turn", torch.zeros((), dtype=torch.int64))
            for k, shape in enumerate(shapes, start=1):
                if len(shape) == 1:
                    self.register_buffer(f"inverse_{k}", torch.eye(*shape) / entropy["eps"])

    def added(self, k: int, h_ND: Tensor, q_ND: Tensor) -> Tensor:
        """What hidden block k is told at its output: the signal q, and the gradients of what is weighted."""
        with torch.autocast(h_ND.device.type, enabled=False):
            h_ND = h_ND.to(torch.promote_types(h_ND.dtype, torch.float32))
            batch = h_ND.dim() - len(self.shapes[k]) - 1
            if self.power["weight"]:
                group = self.group if self.training else ALONE
                q_ND = q_ND + self.power["weight"] * power_gradient(h_ND, self.power["target"], batch, group)
            if self.l1:
                q_ND = q_ND + self.l1 * l1_gradient(h_ND)
            if self.entropy["weight"] and h_ND.dim() == 2:
                q_ND = q_ND - self.entropy["weight"] * self._entropy_gradient(k, h_ND)
        return q_ND

    def _entropy_gradient(self, k: int, h_ND: Tensor) -> Tensor:
        """∂J_E/∂h, with the batch counted in A in training mode."""
        name, forgetting = f"inverse_{k + 1}", self.entropy["forgetting"]
        inverse_DD = self.get_buffer(name)
        share = 1 - forgetting
        if self.training:
            batch_ND = self.group.whole(h_ND)
            rows_MD = math.sqrt(share) * torch.cat((batch_ND / math.sqrt(len(batch_ND)), self._ridge(h_ND)))
            self.pending[name] = inverse_DD = renewed(inverse_DD, rows_MD, forgetting)
        gradient_ND: Tensor = (share / len(h_ND)) * (h_ND @ inverse_DD)
        return gradient_ND

    def _ridge(self, h_ND: Tensor) -> Tensor:
        """(r, n) rows whose Gram matrix is this turn's Ε."""
        n = h_ND.shape[1]
        r = max(1, math.ceil(n * (1 - self.entropy["forgetting"])))
        turn = self.get_buffer("turn")
        units = (turn * r + torch.arange(r, device=turn.device)) % n
        rows_RD: Tensor = F.one_hot(units, n).to(h_ND.dtype) * math.sqrt(self.entropy["eps"] * n / r)
        return rows_RD

    def settle(self) -> None:
        """The step is done: what its batch has changed is kept."""
        if self.pending:
            self.get_buffer("turn").add_(1)
        for name, tensor in self.pending.items():
            self.get_buffer(name).copy_(tensor)
        self.pending.clear()


def power_gradient(h_ND: Tensor, target: float, batch: int = 0, group: Group = ALONE) -> Tensor:
    """Of Σ_l (mean_n h_nl² − target)², the mean over all of a group's samples.

    ``batch``: the dimension of the samples, behind the members if there are any.
    """
    mean = group.mean(h_ND.square().mean(batch, keepdim=True))
    return (4 / h_ND.shape[batch]) * (mean - target) * h_ND


def l1_gradient(h_ND: Tensor) -> Tensor:
    """Of mean_n ‖h_n‖₁."""
    return h_ND.sign() / len(h_ND)


def renewed(inverse_DD: Tensor, rows_MD: Tensor, forgetting: float) -> Tensor:
    """(λ A + UᵀU)⁻¹ from A⁻¹ and the rows of U, by Woodbury's identity; symmetric to the last bit."""
    along_MD = rows_MD @ inverse_DD
    inner_MM = along_MD @ rows_MD.mT
    inner_MM.diagonal().add_(forgetting)
    root_MM = torch.linalg.cholesky_ex(inner_MM).L
    half_MD = torch.linalg.solve_triangular(root_MM, along_MD, upper=False)
    after_DD: Tensor = (inverse_DD - half_MD.mT @ half_MD) / forgetting
    return (after_DD + after_DD.mT) / 2
