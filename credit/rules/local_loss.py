"""Training with local error signals (Nøkland and Eidnes, arXiv 1901.06656).

    pred      CE(D_k(h_k), y)                       D_k: linear, starts at zero; maps are average-pooled first
    sim       MSE(S(N_k(h_k)), S(onehot y))         N_k: linear n_k × n_k, for maps a 3 × 3 convolution
    predsim   (1 − β) pred + β sim                  β = 0.99

S(v) is the N × N matrix of cosine similarities of the rows of v, each centred; of a map, the standard deviation over
space of each channel stands for it. The output layer learns from its ordinary cross-entropy; no gradient crosses a
block. The loss is taken at the block's output, after batch norm where the net has one.
"""

from functools import partial
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
    S_NN: Tensor = (v @ v.mT).clamp(-1, 1)
    return S_NN


class Head(nn.Module):
    """The decoder D_k and the matching N_k of a hidden block, as far as the loss needs them."""

    def __init__(self, decoder: Projection | None, matching: nn.Module | None) -> None:
        super().__init__()
        self.decoder, self.matching = decoder, matching


class LocalLoss(Rule):
    """Prediction and similarity matching at every hidden block."""

    def __init__(
        self,
        net: nn.Sequential,
        task: Task,
        *,
        loss: Literal["pred", "sim", "predsim"],
        beta: float,
        similarity_std: bool,
        dim_in_decoder: int,
        decoder_init: Literal["zeros", "kaiming_uniform"],
        decoder_bias: bool,
    ) -> None:
        super().__init__(net, task)
        *hidden, (self.classes,) = output_shapes(net, task.sample)
        self.beta = {"pred": 0.0, "sim": 1.0, "predsim": beta}[loss]
        self.similarity_std = similarity_std
        decoder = partial(
            Projection,
            classes=self.classes,
            generator=task.generator,
            init=decoder_init,
            max_features=dim_in_decoder,
            bias=decoder_bias,
        )
        heads = (
            Head(
                decoder(shape) if self.beta < 1 else None,
                matching(shape, task.generator) if self.beta > 0 else None,
            )
            for shape in hidden
        )
        self.heads = nn.ModuleList([*heads, nn.Identity()])

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        onehot_NC = F.one_hot(self.batch.whole(y_N), self.classes).to(next(net.parameters()).dtype)
        wanted_NN = similarity(onehot_NC)

        def objective(k: int, h_ND: Tensor) -> Tensor:
            head = self.heads[k]
            value = torch.zeros((), dtype=h_ND.dtype, device=h_ND.device)
            if not isinstance(head, Head):
                return self.loss(h_ND, y_N)
            if head.decoder:
                value = value + (1 - self.beta) * self.loss(head.decoder(h_ND), y_N)
            if head.matching:
                value = value + self.beta * F.mse_loss(self.similarity(head.matching(h_ND)), wanted_NN)
            return value

        return local(net, self.heads, x, objective, taps, give=self.give)

    def similarity(self, v_ND: Tensor) -> Tensor:
        """(N, N) of the matched outputs; of a map (N, channels, height, width) by the deviation over space."""
        v_ND = v_ND.flatten(2).std(2) if self.similarity_std and v_ND.dim() == 4 else v_ND
        return similarity(self.batch.whole(v_ND))

    def predict(self, net: nn.Sequential, x: Tensor) -> Prediction:
        layers = {}
        for k, (block, head) in enumerate(zip(net, self.heads, strict=True), start=1):
            x = block(x)
            if isinstance(head, Head) and head.decoder:
                layers[f"hidden{k}"] = head.decoder(x)
        return Prediction(x, layers)


def matching(shape: torch.Size, generator: torch.Generator) -> nn.Module:
    """N_k with torch's own distribution of weights: a 3 × 3 convolution of maps, else linear; no bias."""
    layer: nn.Conv2d | nn.Linear
    if len(shape) == 3:
        layer = nn.utils.skip_init(nn.Conv2d, shape[0], shape[0], 3, padding=1, bias=False)
    else:
        layer = nn.utils.skip_init(nn.Linear, shape[-1], shape[-1], bias=False)
    bound = 1 / layer.weight[0].numel() ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    return layer
