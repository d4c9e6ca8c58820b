"""The hash of a data set's content, read from its file piece by piece: nobody has to hold the images for it."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, BinaryIO

TENSORS = ("train_x", "train_y", "test_x", "test_y")
DTYPES = {"U8": ("torch.uint8", 1), "I64": ("torch.int64", 8)}
MOST_HEADER = 2**16
PIECE = 2**20


def content_sha256(path: Path) -> str | None:
    """The hash that ``credit.data.images.Images`` has of the tensors in a safetensors file; None where it is damaged.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            return _hash(file)
        except (KeyError, TypeError, ValueError):
            return None


def _hash(file: BinaryIO) -> str:
    """Raises KeyError, TypeError, ValueError for what is no such file."""
    length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(length)
    header: dict[str, Any] = json.loads(file.read(length))
    digest = hashlib.sha256()
    for name in TENSORS:
        dtype, width = DTYPES[header[name]["dtype"]]
        shape = tuple(header[name]["shape"])
        start, end = header[name]["data_offsets"]
        if end - start != width * math.prod(shape):
            raise ValueError(name)
        digest.update(f"{name} {dtype} {shape}\n".encode())
        file.seek(8 + length + start)
        for at in range(start, end, PIECE):
            digest.update(file.read(min(PIECE, end - at)))
    return digest.hexdigest()
