"""Official file formats → uint8 arrays: idx, CIFAR's binary version, CIFAR's pickles; strict, no per-sample Python."""

import gzip
import io
import lzma
import math
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy._core.multiarray import _reconstruct

from credit.data.source import Bytes, Content

MAX_BYTES = 2**28
"""No part of any data set is larger once unpacked; guards against a file that unpacks without end."""

CIFAR_SHAPE = (3, 32, 32)
CIFAR_PIXELS = math.prod(CIFAR_SHAPE)
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, tarfile.TarError)


class BadFile(ValueError):  # noqa: N818  (it names the file that is bad)
    """A file that is not what it should be; the message names it."""

    def __init__(self, origin: str, problem: str) -> None:
        super().__init__(f"{origin} {problem}")


# ---- unpacking -------------------------------------------------------------------------------------------------------


def unpack(path: Path) -> Content:
    """The content of a file, gzipped (``.gz``), xz-compressed (``.xz``) or as it is.

    Raises:
        BadFile: it does not unpack, or not within ``MAX_BYTES``.
        OSError: it cannot be read.
    """
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            return Content(str(path), _bounded(str(path), file))
    except BROKEN as error:
        raise BadFile(str(path), f"is damaged: {error}") from error


def extract(path: Path, names: Sequence[str]) -> list[Content]:
    """The named members of a tar archive, read in memory in one pass; nothing is ever unpacked to disk.

    Raises:
        BadFile: the archive is damaged, or a member is missing or too large.
        OSError: it cannot be read.
    """
    found: dict[str, Content] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() and member.name in names else None
                if file:
                    origin = f"{member.name} in {path}"
                    found[member.name] = Content(origin, _bounded(origin, file))
    except BROKEN as error:
        raise BadFile(str(path), f"is damaged: {error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise BadFile(str(path), f"lacks {', '.join(missing)}")
    return [found[name] for name in names]


def _bounded(origin: str, file: Any) -> bytes:
    raw: bytes = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise BadFile(origin, f"is larger than {MAX_BYTES} bytes once unpacked")
    return raw


# ---- idx -------------------------------------------------------------------------------------------------------------


def idx(parts: Sequence[Content], classes: int) -> tuple[Bytes, Bytes]:
    """Images (N, 1, H, W) and labels (N,) from an idx3 file of images and an idx1 file of labels, both unsigned bytes.

    Raises:
        BadFile: a wrong header or size, other numbers of images and labels, a label out of range.
    """
    images, labels = parts
    x, y = _idx_array(images, 3), _idx_array(labels, 1)
    if len(x) != len(y):
        raise BadFile(labels.origin, f"has {len(y)} labels for the {len(x)} images of {images.origin}")
    _check_labels(labels.origin, y, classes)
    return x[:, None].copy(), y


def _idx_array(part: Content, dimensions: int) -> Bytes:
    header = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if part.raw[:4] != magic:
        found, wanted = part.raw[:4].hex(" "), magic.hex(" ")
        raise BadFile(part.origin, f"starts with [{found}]; an idx file of this kind with [{wanted}]")
    if len(part.raw) < header:
        raise BadFile(part.origin, "ends within its header")
    shape = struct.unpack(f">{dimensions}I", part.raw[4:header])
    expected = header + math.prod(shape)
    if len(part.raw) != expected:
        fault = "ends early" if len(part.raw) < expected else "is too long"
        raise BadFile(part.origin, f"{fault}: {len(part.raw)} bytes, not the {expected} that its header announces")
    return np.frombuffer(part.raw, np.uint8, offset=header).reshape(shape)


def _check_labels(origin: str, labels: Bytes, classes: int) -> None:
    if labels.size and labels.max() >= classes:
        raise BadFile(origin, f"has the label {labels.max()}; there are {classes} classes, from 0 on")


# ---- CIFAR-10 --------------------------------------------------------------------------------------------------------


def cifar(parts: Sequence[Content], classes: int) -> tuple[Bytes, Bytes]:
    """Images (N, 3, 32, 32) and labels (N,) from batches of the binary version: records of a label and 3,072 pixels.

    Raises:
        BadFile: a size that is no number of records, a label out of range.
    """
    record = 1 + CIFAR_PIXELS
    batches = []
    for part in parts:
        if not part.raw or len(part.raw) % record:
            raise BadFile(part.origin, f"has {len(part.raw)} bytes, which is no number of records of {record} bytes")
        batch = np.frombuffer(part.raw, np.uint8).reshape(-1, record)
        _check_labels(part.origin, batch[:, 0], classes)
        batches.append(batch)
    x = np.concatenate([batch[:, 1:] for batch in batches]).reshape(-1, *CIFAR_SHAPE)
    return x, np.concatenate([batch[:, 0] for batch in batches])


def cifar_records(part: Content) -> Content:
    """A pickled batch of the Python version as a batch of the binary version: the same images in the same order.

    Raises:
        BadFile: the pickle asks for anything but a plain array, or holds no images and labels.
    """
    try:
        batch = CifarUnpickler(io.BytesIO(part.raw), encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except Exception as error:  # what is no batch fails in every possible way
        raise BadFile(part.origin, f"is refused: {type(error).__name__}: {error}") from error
    if data.dtype != np.uint8 or data.shape[1:] != (CIFAR_PIXELS,):
        raise BadFile(part.origin, f"has {data.dtype} data of shape {data.shape}, not uint8 of (N, {CIFAR_PIXELS})")
    column = labels.astype(np.uint8) if labels.dtype.kind == "i" else None
    if column is None or labels.shape != data.shape[:1] or (labels != column).any():
        raise BadFile(part.origin, f"has no list of {len(data)} labels")
    return Content(part.origin, np.concatenate([column[:, None], data], axis=1).tobytes())


def _encode(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 written by Python 3 spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


class CifarUnpickler(pickle.Unpickler):
    """Knows the four names that the official batches need, and refuses every other one."""

    PERMITTED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.PERMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
