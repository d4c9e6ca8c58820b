"""Losses of a batch. The score that is broadcast is their gradient at the output (``credit.flow.error``)."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """Softmax and cross-entropy, mean over the batch; score s = softmax(z) − onehot(y)."""
    return F.cross_entropy(z_NC, y_N)


def mse(z_NC: Tensor, y_N: Tensor) -> Tensor:
    """½‖z − onehot(y)‖², mean over the batch; score s = z − onehot(y)."""
    return 0.5 * (z_NC - F.one_hot(y_N, z_NC.shape[1]).to(z_NC.dtype)).square().sum(1).mean()


LOSSES = {"cross_entropy": cross_entropy, "mse": mse}
