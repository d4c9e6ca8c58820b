"""Official file formats → uint8 arrays: idx, CIFAR's binary version and pickles, npy; strict, no per-sample Python."""

import io
import math
import pickle
import struct
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy._core.multiarray import _reconstruct
from numpy.typing import NDArray

from credit.formats import Bytes, Content, Samples
from credit.formats.archives import BadFile

CIFAR_SHAPE = (3, 32, 32)
CIFAR_PIXELS = math.prod(CIFAR_SHAPE)


# ---- idx -------------------------------------------------------------------------------------------------------------


def idx(parts: Sequence[Content], classes: int) -> Samples:
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


# ---- CIFAR -----------------------------------------------------------------------------------------------------------


def cifar10(parts: Sequence[Content], classes: int) -> Samples:
    """Images (N, 3, 32, 32) and labels (N,) from batches of the binary version: records of a label and 3,072 pixels.

    Raises:
        BadFile: a size that is no number of records, a label out of range.
    """
    return _cifar(parts, classes, 1)


def cifar100(parts: Sequence[Content], classes: int) -> Samples:
    """Likewise from records of a coarse label, a fine label and 3,072 pixels; the fine labels are the classes."""
    return _cifar(parts, classes, 2)


def _cifar(parts: Sequence[Content], classes: int, labels: int) -> Samples:
    """The last of the labels of a record is the class."""
    record = labels + CIFAR_PIXELS
    batches = []
    for part in parts:
        if not part.raw or len(part.raw) % record:
            raise BadFile(part.origin, f"has {len(part.raw)} bytes, which is no number of records of {record} bytes")
        batch = np.frombuffer(part.raw, np.uint8).reshape(-1, record)
        _check_labels(part.origin, batch[:, labels - 1], classes)
        batches.append(batch)
    x = np.concatenate([batch[:, labels:] for batch in batches]).reshape(-1, *CIFAR_SHAPE)
    return x, np.concatenate([batch[:, labels - 1] for batch in batches])


def cifar10_records(part: Content) -> Content:
    """A pickled batch of the Python version as a batch of the binary version: the same images in the same order.

    Raises:
        BadFile: the pickle asks for anything but a plain array, or holds no images and labels.
    """
    return _records(part, b"labels")


def cifar100_records(part: Content) -> Content:
    """Likewise for a pickle with coarse and fine labels."""
    return _records(part, b"coarse_labels", b"fine_labels")


def _records(part: Content, *keys: bytes) -> Content:
    try:
        batch = CifarUnpickler(io.BytesIO(part.raw), encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), [np.asarray(batch[key]) for key in keys]
    except Exception as error:  # what is no batch fails in every possible way
        raise BadFile(part.origin, f"is refused: {type(error).__name__}: {error}") from error
    if data.dtype != np.uint8 or data.shape[1:] != (CIFAR_PIXELS,):
        raise BadFile(part.origin, f"has {data.dtype} data of shape {data.shape}, not uint8 of (N, {CIFAR_PIXELS})")
    columns = [_column(part.origin, values, len(data)) for values in labels]
    return Content(part.origin, np.concatenate([*columns, data], axis=1).tobytes())


def _column(origin: str, labels: NDArray[Any], n: int) -> Bytes:
    """(N, 1) the labels of a pickle."""
    column = labels.astype(np.uint8) if labels.dtype.kind == "i" else None
    if column is None or labels.shape != (n,) or (labels != column).any():
        raise BadFile(origin, f"has no list of {n} labels")
    return column[:, None]


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


# ---- npy -------------------------------------------------------------------------------------------------------------


def npy(parts: Sequence[Content], classes: int) -> Samples:
    """Images (N, C, H, W) and labels (N,) from an array of images, (N, H, W) or (N, H, W, C), and one of labels (N, 1).

    The arrays are uint8, in numpy's npy format: the members of MedMNIST's npz files.

    Raises:
        BadFile: no such array, objects among them, other numbers of images and labels, a label out of range.
    """
    images, labels = parts
    x, y = _npy_array(images), _npy_array(labels)
    if x.ndim not in {3, 4}:
        raise BadFile(images.origin, f"has the shape {x.shape}, not (N, H, W) or (N, H, W, C)")
    if y.shape != (len(x), 1):
        raise BadFile(labels.origin, f"has the shape {y.shape}, not ({len(x)}, 1) for the images of {images.origin}")
    _check_labels(labels.origin, y, classes)
    x = np.moveaxis(x, -1, 1) if x.ndim == 4 else x[:, None]
    return np.ascontiguousarray(x), y[:, 0].copy()


def _npy_array(part: Content) -> Bytes:
    try:
        array = np.lib.format.read_array(io.BytesIO(part.raw), allow_pickle=False)
    except Exception as error:  # numpy reads the header as Python's syntax, which fails in many ways
        raise BadFile(part.origin, f"is no array: {error}") from error
    if array.dtype != np.uint8:
        raise BadFile(part.origin, f"holds {array.dtype}, not uint8")
    return np.asarray(array, np.uint8)
