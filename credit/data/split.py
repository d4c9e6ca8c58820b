"""A split as one tensor on the device: subsets, and batches by index."""

from dataclasses import dataclass

import torch
from torch import Tensor

from credit import spec
from credit.data import DATASETS, Images
from credit.data.images import moments

SUBSET_SEED = 20_190_612
"""Subsets depend on the data set alone, never on a run's seed."""


class Split:
    """N images on a device, turned into normalised batches there.

    Args:
        x: uint8 (N, C, H, W).
        y: int64 (N,).
        mean: C numbers; of pixels in [0, 1], what becomes 0.
        std: C numbers; what becomes 1.
    """

    def __init__(self, x: Tensor, y: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.x, self.y, self.mean, self.std = x, y, mean, std
        mean_C, std_C = torch.tensor((mean, std), dtype=torch.float64).unbind()
        self.scale = _image(1 / (255 * std_C), x)
        self.shift = _image(-mean_C / std_C, x)

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images x, float32 (B, C, H, W), and classes y, int64 (B,), at ``index``, int64 (B,)."""
        x = self.x.index_select(0, index).float()
        return torch.addcmul(self.shift, x, self.scale, out=x), self.y.index_select(0, index)


@dataclass(frozen=True, eq=False)
class Splits:
    """What a run trains on, what it may be tuned on, and what it is judged by."""

    train: Split
    validation: Split | None
    test: Split


def split(images: Images, dataset: spec.Images, device: torch.device) -> Splits:
    """The splits of a data set that its spec asks for, on a device.

    A subset of n is the first n of one fixed permutation, so subsets are nested; the validation split is the official
    one, else the end of the chosen training images. Every split keeps the order of the file.
    """
    mean, std = _constants(images, dataset)
    chosen = _permutation(len(images.train_y))[: dataset.train_samples]
    held_out = round(len(chosen) * dataset.validation_fraction)
    train, validation = chosen[: len(chosen) - held_out], chosen[len(chosen) - held_out :]
    test = _permutation(len(images.test_y))[: dataset.test_samples]

    def part(x: Tensor, y: Tensor, subset: Tensor) -> Split:
        if len(subset) < len(y):
            subset = subset.sort().values
            x, y = x.index_select(0, subset), y.index_select(0, subset)
        return Split(x.to(device), y.to(device), mean, std)

    held = part(images.train_x, images.train_y, validation) if held_out else None
    if images.validation_x is not None and images.validation_y is not None:
        held = part(images.validation_x, images.validation_y, torch.arange(len(images.validation_y)))
    return Splits(
        train=part(images.train_x, images.train_y, train),
        validation=held,
        test=part(images.test_x, images.test_y, test),
    )


def _constants(images: Images, dataset: spec.Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What becomes 0 and 1 in each channel: the data set's published mean and deviation, or those of a user's own."""
    channels = images.train_x.shape[1]
    if dataset.normalize == "unit":
        return (0.0,) * channels, (1.0,) * channels
    if isinstance(dataset, spec.Uploaded):
        return moments(images.train_x)
    source = DATASETS[type(dataset)]
    return source.mean, source.std


def _image(value_C: Tensor, x: Tensor) -> Tensor:
    """A value per channel as an image (C, H, W): one that broadcasts over pixels too takes half as long again."""
    return value_C.to(x.device, torch.float32).view(-1, 1, 1).expand(x.shape[1:]).contiguous()


def _permutation(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(SUBSET_SEED))
