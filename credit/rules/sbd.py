"""Score broadcast and decorrelation (Uzun, Erdogan, Pehlevan and Erdogan, arXiv 2605.30638), and error broadcast and
decorrelation (Erdogan, Pehlevan and Erdogan, arXiv 2504.11558), which is the same rule under the squared error.

At the minimum of the risk the score s = ∂ℓ/∂z is orthogonal to every function of the input, hence to every g(h_k). So
J_k = ½‖R_k‖² is minimised, R_k the running cross-correlation, by the part of its gradient that is local to block k:

    R_k ← λ R_k + ((1−λ)/N) sᵀ g(h_k)        R_k: C × n_k, in the layout of a feedback matrix B_k
    q_k = (s R_k) ⊙ g′(h_k)   k < L          the factor 1−λ of the gradient is left to the learning rate
    δ_L = s + w (∂s/∂z)ᵀ Σ_k g(h_k) R_kᵀ     w = 0 but for the forward broadcast, the other part of the gradient

With λ = 1 this is direct feedback alignment with B_k = R_k. Score expansion and the normalised projection are ours.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import grad

from credit.flow import NONE, Credit, Loss, Taps, broadcast, correlate, plain, project
from credit.losses import BRIER
from credit.penalties import Penalties
from credit.rule import Rule, Task, output_shapes


class SBD(Rule):
    """Every hidden block is told the score through its running correlation with the block's own activations."""

    def __init__(
        self,
        net: nn.Sequential,
        task: Task,
        *,
        forgetting: float,
        g: Literal["identity", "square"],
        r_init: dict[str, Any],
        normalize_r: bool,
        forward_projection: float,
        weight_sparsity: float,
        regularizers: dict[str, Any],
        score_expansion: dict[str, Any],
        lean: bool,
    ) -> None:
        super().__init__(net, task)
        self.lean = lean
        *hidden, (classes,) = output_shapes(net, task.sample)
        self.forgetting, self.square, self.normalize_r = forgetting, g == "square", normalize_r
        self.forward_projection, self.blocks = forward_projection, len(hidden)
        self.expansion = Expansion(self.loss, hidden, task, **score_expansion)
        for k, shape in enumerate(hidden, start=1):
            R_CD = draw_correlation(classes * self.expansion.copies, shape, task.generator, **r_init)
            self.register_buffer(f"R_{k}", R_CD)
            self.register_buffer(f"R0_{k}", R_CD.clone())
        self.penalties = Penalties(hidden, **regularizers, group=self.group)
        self.mask = Mask(net, weight_sparsity, task.generator)
        self.pending: dict[int, Tensor] = {}

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        forward: list[Tensor] = []

        def score(below_ND: Tensor, z_NC: Tensor, e_NC: Tensor) -> Tensor:
            s_NC: Tensor = self.expansion(x, below_ND, z_NC, y_N, e_NC)
            return s_NC.detach()

        def signal(k: int, h_ND: Tensor, s_NC: Tensor) -> Tensor:
            R_CD = self.correlation(k, h_ND, s_NC)
            if self.forward_projection:
                forward.append(self.g(h_ND).flatten(1).to(R_CD.dtype) @ R_CD.flatten(1).mT)
            if self.normalize_r:
                R_CD = R_CD * (math.sqrt(R_CD[0].numel()) / R_CD.norm().clamp_min(torch.finfo(R_CD.dtype).tiny))
            q_ND = project(s_NC, R_CD)
            return self.penalties.added(k, h_ND, 2 * h_ND * q_ND if self.square else q_ND)

        def output(below_ND: Tensor, z_NC: Tensor, e_NC: Tensor) -> Tensor:
            if not forward:
                return e_NC
            z_NC = z_NC.detach().to(e_NC.dtype).requires_grad_()
            with torch.enable_grad():
                s_NC = self.expansion(x, below_ND, z_NC, y_N, slope(self.loss, z_NC, y_N))
            return e_NC + self.forward_projection * grad(s_NC, z_NC, torch.stack(forward).sum(0).to(s_NC.dtype))[0]

        ends = partial(broadcast, score=score, output=output if self.forward_projection else plain)
        return ends(net, x, y_N, self.loss, signal, taps, lean=self.lean, give=self.give)

    def g(self, h_ND: Tensor) -> Tensor:
        return h_ND.square() if self.square else h_ND

    def correlation(self, k: int, h_ND: Tensor, s_NC: Tensor) -> Tensor:
        """R of hidden block k; in training mode with this batch counted in, which ``settle`` keeps."""
        R_CD = self.get_buffer(f"R_{k + 1}")
        if not self.training or self.forgetting == 1:
            return R_CD
        with torch.autocast(h_ND.device.type, enabled=False):
            now_CD = self.batch.mean(correlate(s_NC, self.g(h_ND.to(s_NC.dtype))))
            self.pending[k] = R_CD.lerp(now_CD, 1 - self.forgetting)
        return self.pending[k]

    @torch.no_grad()
    def settle(self, net: nn.Sequential, lr: float) -> None:  # noqa: ARG002  (the signature of all rules)
        for k, R_CD in self.pending.items():
            self.get_buffer(f"R_{k + 1}").copy_(R_CD)
        self.pending.clear()
        self.penalties.settle()
        self.mask.apply_to(net)

    def gauges(self) -> dict[str, dict[str, float | None]]:
        """Cosine between R_t and R_0: near 1, the method is direct feedback alignment in disguise."""
        cosines = {}
        for k in range(1, self.blocks + 1):
            R, R0 = (self.get_buffer(f"{name}_{k}").flatten().double() for name in ("R", "R0"))
            cosine = float(R @ R0 / (R.norm() * R0.norm()))
            cosines[f"hidden{k}"] = cosine if math.isfinite(cosine) else None
        return {"layer/r_cosine": cosines}


class Expansion(nn.Module):
    """What is broadcast in the place of the score s: s̃ = A(x) s keeps a conditional mean of zero. Experimental.

    none s; stack [s, score of the Brier loss through the same link]; random_feat vec([1, ψ(x)] sᵀ), ψ a fixed random
    projection of the penultimate activation; input_scale p(x) s, p the input's root mean square.
    """

    def __init__(
        self,
        loss: Loss,
        hidden: Sequence[torch.Size],
        task: Task,
        *,
        kind: str,
        companions: Sequence[str],
        features: int,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.companions: list[Loss] = [BRIER[loss] for _ in companions] if kind == "stack" else []
        self.copies = 1 + len(self.companions)
        """Vectors of C entries in s̃."""
        if kind == "random_feat":
            n = hidden[-1].numel()
            self.register_buffer("psi", torch.randn(n, features, generator=task.generator) / math.sqrt(n))
            self.copies += features

    def forward(self, x: Tensor, below_ND: Tensor, z_NC: Tensor, y_N: Tensor, s_NC: Tensor) -> Tensor:
        """(N, C·copies) from a score s: (N, C), of inputs x and outputs z; differentiable in z where s is."""
        if self.kind == "stack":
            return torch.cat([s_NC, *(slope(brier, z_NC, y_N) for brier in self.companions)], 1)
        if self.kind == "random_feat":
            with torch.autocast(s_NC.device.type, enabled=False):
                psi_NF = below_ND.flatten(1).to(s_NC.dtype) @ self.get_buffer("psi")
            return torch.cat([s_NC, (psi_NF[:, :, None] * s_NC[:, None, :]).flatten(1)], 1)
        if self.kind == "input_scale":
            return x.flatten(1).to(s_NC.dtype).square().mean(1, keepdim=True).sqrt() * s_NC
        return s_NC


def slope(loss: Loss, z_NC: Tensor, y_N: Tensor) -> Tensor:
    """∂L/∂z, itself differentiable in z, at single precision or better."""
    with torch.enable_grad():
        if not z_NC.requires_grad:
            z_NC = z_NC.to(torch.promote_types(z_NC.dtype, torch.float32)).detach().requires_grad_()
        score_NC: Tensor = grad(loss(z_NC, y_N), z_NC, create_graph=True)[0]
    return score_NC


class Mask(nn.Module):
    """A fixed share of the hidden layers' weights that is zero for ever."""

    def __init__(self, net: nn.Sequential, sparsity: float, generator: torch.Generator) -> None:
        super().__init__()
        for k, weight in enumerate(hidden_weights(net) if sparsity else (), start=1):
            order = torch.randperm(weight.numel(), generator=generator)
            kept = order >= round(sparsity * weight.numel())
            self.register_buffer(f"kept_{k}", kept.reshape(weight.shape))
        self.apply_to(net)

    @torch.no_grad()
    def apply_to(self, net: nn.Sequential) -> None:
        masks = list(self.buffers())
        for weight, kept in zip(hidden_weights(net) if masks else (), masks, strict=True):
            weight.mul_(kept)


def hidden_weights(net: nn.Sequential) -> list[Tensor]:
    *hidden, _ = net
    return [module.weight for block in hidden for module in block.modules() if isinstance(module, nn.Linear)]


def draw_correlation(
    width: int,
    shape: torch.Size,
    generator: torch.Generator,
    *,
    distribution: Literal["xavier_uniform", "gaussian"],
    gain: float,
) -> Tensor:
    """R_0 of (width, *shape): gain times U(±√(6/(n_k + width))) or N(0, 1)."""
    n = shape.numel()
    if distribution == "gaussian":
        return torch.randn(width, *shape, generator=generator) * gain
    return (torch.rand(width, *shape, generator=generator) * 2 - 1) * (gain * math.sqrt(6 / (n + width)))
