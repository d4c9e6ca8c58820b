"""The modules of an MLP-Mixer (Tolstikhin et al., arXiv 2105.01601): tokens h of shape (N, tokens S, width D).

    token mixing      h + (W₂ f(W₁ LN(h)ᵀ))ᵀ        channel mixing      h + W₂ f(W₁ LN(h))

Each with its norm and its residual in one module, so that it can be a block of its own: credit, and memory, by halves
of a Mixer layer.
"""

from torch import Tensor, nn


class Tokens(nn.Module):
    """Maps (N, D, h, w) -> tokens (N, h·w, D)."""

    def forward(self, maps_NDhw: Tensor) -> Tensor:
        return maps_NDhw.flatten(2).mT


class Mixing(nn.Module):
    """An MLP with norm and residual over the last dimension, or over the tokens where ``transposed``."""

    def __init__(self, norm: nn.Module, up: nn.Module, act: nn.Module, down: nn.Module, *, transposed: bool) -> None:
        super().__init__()
        self.norm, self.up, self.act, self.down, self.transposed = norm, up, act, down, transposed

    def forward(self, h_NSD: Tensor) -> Tensor:
        x = self.norm(h_NSD)
        x = self.down(self.act(self.up(x.mT if self.transposed else x)))
        out: Tensor = h_NSD + (x.mT if self.transposed else x)
        return out


class TokenMean(nn.LayerNorm):
    """LayerNorm, then the mean over the tokens: (N, S, D) -> (N, D)."""

    def forward(self, h_NSD: Tensor) -> Tensor:
        return super().forward(h_NSD).mean(1)
