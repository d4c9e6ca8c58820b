"""The papers' own nets as presets."""

from typing import Any

from credit.nets.blocks import Layer
from credit.nets.mlp import mlp


def launay_fc(*where: Any, **options: Any) -> list[Layer]:
    """3072-800-800-800-10 on CIFAR-10 (Launay, Poli and Krzakala, arXiv 1906.04554, the authors' code)."""
    return mlp(*where, hidden=(800, 800, 800), **options)
