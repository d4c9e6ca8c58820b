"""Random changes to a batch of training images, made on its device for the whole batch at once."""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from credit.parallel import ALONE, Group

BORDER = 4


def flip_crop(x: Tensor, generator: Generator, group: Group = ALONE) -> Tensor:
    """Each image mirrored left to right half of the time, then cropped at random from itself with a border of zeros.

    The border is 4 pixels wide, so every one of the 9 × 9 places is as likely. Meant for photographs: a mirrored digit
    or letter is another one, or none.

    Args:
        x: (N, C, H, W), normalised.
        generator: on the CPU, whatever the device of ``x``, so that all devices see the same images.
        group: the processes that share the batch; an image is changed alike whoever has it.

    Returns:
        (N, C, H, W), a new tensor.
    """
    n, channels, height, width = x.shape
    batch = group.samples(n)
    flipped_N = group.own(torch.randint(2, (batch,), generator=generator))
    top_N, left_N = map(group.own, torch.randint(2 * BORDER + 1, (2, batch), generator=generator))
    rows_NH = top_N[:, None] + torch.arange(height)
    columns_NW = left_N[:, None] + torch.arange(width)
    across = width + 2 * BORDER
    columns_NW = torch.where(flipped_N[:, None] == 1, across - 1 - columns_NW, columns_NW)
    source_NHW = (rows_NH[:, :, None] * across + columns_NW[:, None, :]).to(x.device)
    padded = functional.pad(x, (BORDER,) * 4).flatten(2)
    return padded.gather(2, source_NHW.view(n, 1, -1).expand(-1, channels, -1)).view_as(x)
