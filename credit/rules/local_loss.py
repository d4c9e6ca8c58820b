"""Training with local error signals (Nøkland and Eidnes, arXiv 1901.06656).

    pred      CE(D_k(h_k), y)                       D_k: linear, starts at zero; maps are average-pooled first
    sim       MSE(S(N_k(h_k)), S(onehot y))         N_k: linear n_k × n_k, for maps a 3 × 3 convolution
    predsim   (1 − β) pred + β sim                  β = 0.99

S(v) is the N × N matrix of cosine similarities of the rows of v, each centred; of a map, the standard deviation over
space of each channel stands for it. The output layer learns from its ordinary cross-entropy; no gradient crosses a
block. The loss is taken at the block's output, after batch norm where the net has one.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, local
from credit.heads import Projection
from credit.rule import Prediction, Rule, Task, output_shapes


def similarity(v_ND: Tensor) -> Tensor:
    """S(v): (N, N) cosine similarities of the rows, each centred, clamped to [−1, 1]."""
    v = v_ND.flatten(1)
    v = v - v.mean(1, keepdim=True)
    v = v / (v.norm(dim=1, keepdim=True) + 1e-8)
    return (v @ v.mT).clamp(-1, 1)


class LocalLoss(Rule):
    """Prediction and similarity matching at every hidden block."""

    def __init__(
        self,
        net: nn.Sequential,
        task: Task,
        *,
        loss: Literal["pred", "sim", "predsim"],
        beta: float,
        dim_in_decoder: int,
        similarity_std: bool,
        decoder_init: Literal["zeros", "kaiming_uniform"],
        decoder_bias: bool,
    ) -> None:
        super().__init__(net, task)
        *hidden, (self.classes,) = output_shapes(net, task.sample)
        self.beta = {"pred": 0.0, "sim": 1.0, "predsim": beta}[loss]
        self.similarity_std = similarity_std
        self.heads = nn.ModuleList()
        for shape in hidden:
            head = nn.Module()
            if self.beta < 1:
                head.decoder = Projection(
                    shape,
                    self.classes,
                    task.generator,
                    init=decoder_init,
                    max_features=dim_in_decoder,
                    bias=decoder_bias,
                )
            if self.beta > 0:
                head.match = _match(shape, task.generator)
            self.heads.append(head)
        self.heads.append(nn.Identity())

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        onehot_NC = F.one_hot(y_N, self.classes).to(next(net.parameters()).dtype)
        wanted_NN = similarity(onehot_NC)

        def objective(k: int, h_ND: Tensor) -> Tensor:
            head = self.heads[k]
            if isinstance(head, nn.Identity):
                return self.loss(h_ND, y_N)
            pred = self.loss(head.decoder(h_ND), y_N) if self.beta < 1 else 0.0
            sim = F.mse_loss(self._similarity(head.match(h_ND)), wanted_NN) if self.beta > 0 else 0.0
            return (1 - self.beta) * pred + self.beta * sim

        return local(net, self.heads, x, objective, taps)

    def _similarity(self, v_ND: Tensor) -> Tensor:
        if self.similarity_std and v_ND.dim() == 4:
            v_ND = v_ND.flatten(2).std(2)
        return similarity(v_ND)

    def predict(self, net: nn.Sequential, x: Tensor) -> Prediction:
        layers = {}
        for k, (block, head) in enumerate(zip(net, self.heads, strict=True), start=1):
            x = block(x)
            if self.beta < 1 and not isinstance(head, nn.Identity):
                layers[f"hidden{k}"] = head.decoder(x)
        return Prediction(x, layers)


def _match(shape: torch.Size, generator: torch.Generator) -> nn.Module:
    """N_k, with torch's own distribution of weights, no bias."""
    if len(shape) == 3:
        layer: nn.Module = nn.Conv2d(shape[0], shape[0], 3, padding=1, bias=False, device="meta")
    else:
        layer = nn.Linear(shape[-1], shape[-1], bias=False, device="meta")
    layer = layer.to_empty(device="cpu")
    bound = 1 / layer.weight[0].numel() ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    return layer
