"""One seed, one independent generator per purpose.

Streams are addressed by name (and epoch), never shared, so that a twin with another rule draws the same initial
weights and the same order of samples, and a resumed run needs no stored generator state.
"""

import hashlib

import torch
from torch import Tensor


class Streams:
    """Independent random streams of one run.

    Args:
        seed: the run's seed, 0 … 2⁶³−1.
    """

    def __init__(self, seed: int) -> None:
        self.root = seed

    def seed(self, purpose: str, index: int = 0) -> int:
        """The 63-bit seed of one stream, a hash of the run's seed, the purpose and the index."""
        digest = hashlib.sha256(f"creditlab/{self.root}/{purpose}/{index}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def generator(self, purpose: str, index: int = 0) -> torch.Generator:
        """A fresh CPU generator at the start of the stream."""
        return torch.Generator().manual_seed(self.seed(purpose, index))

    def order(self, epoch: int, samples: int) -> Tensor:
        """(samples,) the order in which an epoch visits the training samples."""
        return torch.randperm(samples, generator=self.generator("order", epoch))
