"""Losses of a batch. The score that is broadcast is their gradient at the output (``credit.flow.error``).

Outputs z may have members in front, (M, N, C): each has the loss of its own batch, (M,).
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def onehot(y_N: Tensor, z_NC: Tensor) -> Tensor:
    """(N, C) targets in the type of the outputs, the same for all members where there is one y for all."""
    return F.one_hot(y_N, z_NC.shape[-1]).to(z_NC.dtype).expand_as(z_NC)


def cross_entropy(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """Softmax and cross-entropy, mean over the batch; score s = softmax(z) − onehot(y)."""
    if z_NC.dim() == 2:
        return F.cross_entropy(z_NC, y_N)
    y_MN = y_N.expand(z_NC.shape[:-1])
    return F.cross_entropy(z_NC.flatten(0, -2), y_MN.flatten(), reduction="none").view_as(y_MN).mean(-1)


def mse(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """½‖z − onehot(y)‖², mean over the batch; score s = z − onehot(y)."""
    return 0.5 * (z_NC - onehot(y_N, z_NC)).square().sum(-1).mean(-1)


def bce(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """Sigmoid and binary cross-entropy, summed over the classes, mean over the batch; score s = σ(z) − onehot(y)."""
    return F.binary_cross_entropy_with_logits(z_NC, onehot(y_N, z_NC), reduction="none").sum(-1).mean(-1)


def softmax_brier(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """½‖softmax(z) − onehot(y)‖², mean over the batch: the Brier score through the link of ``cross_entropy``."""
    return mse(z_NC.softmax(-1), y_N)


def sigmoid_brier(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """½‖σ(z) − onehot(y)‖², mean over the batch: the Brier score through the link of ``bce``."""
    return mse(z_NC.sigmoid(), y_N)


LOSSES = {"cross_entropy": cross_entropy, "mse": mse, "bce": bce}
BRIER: dict[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]] = {
    cross_entropy: softmax_brier,
    bce: sigmoid_brier,
}
"""The Brier score that shares a loss's link, hence its minimiser; that of ``mse`` is ``mse`` itself."""
