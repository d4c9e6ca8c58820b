"""A whole data set in memory, and its copy on disk that loads at once."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from credit.data.download import replacing

TENSORS = ("train_x", "train_y", "test_x", "test_y", "validation_x", "validation_y")


@dataclass(frozen=True, eq=False)
class Images:
    """All images of a data set, in file order; N images of C channels, H×W pixels.

    Attributes:
        train_x: uint8 (N, C, H, W).
        train_y: int64 (N,), the class of each.
        test_x: uint8 (N, C, H, W).
        test_y: int64 (N,).
        sha256: of names, types, shapes and bytes of the tensors.
        validation_x: likewise, of the official validation split; None where there is none.
        validation_y: likewise.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    sha256: str
    validation_x: Tensor | None = None
    validation_y: Tensor | None = None

    @classmethod
    def of(cls, **tensors: Tensor) -> "Images":
        """From contiguous CPU tensors, which are hashed in the order of ``TENSORS``."""
        digest = hashlib.sha256()
        for name in (name for name in TENSORS if name in tensors):
            digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
            digest.update(tensors[name].numpy().data)
        return cls(**tensors, sha256=digest.hexdigest())

    def tensors(self) -> dict[str, Tensor]:
        """Those there are, by name."""
        return {name: tensor for name in TENSORS if (tensor := getattr(self, name)) is not None}


def remember(decoded: Images, path: Path, key: str) -> None:
    """Write a decoded data set; ``key`` says what it was decoded from."""
    with suppress(OSError, SafetensorError), replacing(path) as part:  # a full disk only makes the next load slow
        save_file(decoded.tensors(), part, {"decoded_from": key, "sha256": decoded.sha256})


def recall(path: Path, key: str) -> Images | None:
    """The data set that ``remember`` wrote, or None if there is none, it came from something else or is damaged."""
    return read(path, key)


def read(path: Path, key: str | None = None) -> Images | None:
    """The data set in a file of its tensors, or None if it is damaged or, where a key is given, has another."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("decoded_from") != key:
                return None
            names = set(file.keys())
            decoded = Images.of(**{name: file.get_tensor(name) for name in TENSORS if name in names})
    except (OSError, SafetensorError):
        return None
    return decoded if decoded.sha256 == metadata.get("sha256") else None


def moments(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of uint8 images (N, C, H, W), in [0, 1], from exact counts."""
    counts_CV = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)]).double()
    values_V = torch.arange(256, dtype=torch.float64) / 255
    total_C = counts_CV.sum(1)
    mean_C = counts_CV @ values_V / total_C
    deviation_C = (counts_CV @ values_V.square() / total_C - mean_C.square()).clamp_min(0).sqrt()
    return tuple(mean_C.tolist()), tuple(torch.where(deviation_C > 0, deviation_C, 1.0).tolist())
