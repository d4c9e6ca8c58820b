"""The formats that a data set may come in, told by their content: npz, idx, CIFAR's binary, class folders, parquet."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from credit.formats import Bytes, Content, readers
from credit.formats.archives import BadFile
from credit.uploads import MAX_CLASSES, MAX_IMAGES, MAX_SIDE, Refused
from credit.uploads.members import Budget, Opened, check_ratio, gunzipped, shown, untarred, unzipped

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
PICTURE = re.compile(r"(?:[^/]+/)?(train|test)/([^/]+)/[^/]+\.(?:png|jpe?g)", re.IGNORECASE)
GREY = {"1", "L", "LA"}
COLOURED = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
LABELS = NDArray[np.integer[Any]]
CIFAR_10 = re.compile(r"(?:.*/)?(?:data_batch_\d+|(test_batch))\.bin")
CIFAR_100 = re.compile(r"(?:.*/)?(?:train|(test))\.bin")
COLUMNS = ("image", "label", "split")


class Split(NamedTuple):
    x: Bytes
    """(N, C, H, W)"""
    y: NDArray[Any]
    """(N,) integers of any type."""


class Decoded(NamedTuple):
    format: str
    train: Split
    test: Split
    class_names: tuple[str, ...] | None = None


Received = tuple[str, IO[bytes], int]
"""Name, file and size."""
Encoded = dict[str, tuple[list[bytes], list[int]]]
"""Of each split, image files and their labels."""


def decode(files: Sequence[Received], most: int) -> Decoded:
    """The data set in these files.

    Args:
        files: one, or the four of an idx set.
        most: bytes that may come out of them.

    Raises:
        Refused: it is in none of the formats, or damaged.
    """
    budget = Budget(most)
    try:
        if len(files) > 1:
            return idx(files, budget)
        ((_, file, size),) = files
        magic = file.read(4)
        file.seek(0)
        if magic == b"PK\x03\x04":
            return zipped(file, size, budget)
        if magic[:2] == b"\x1f\x8b":
            return cifar(file, budget)
        if magic == b"PAR1":
            return parquet(file, size, budget)
    except BadFile as error:
        raise Refused(str(error)) from error
    raise Refused(
        "is none of: npz, four idx files, CIFAR's binary version as .tar.gz, a zip of train/<class>/ and test/<class>/ "
        "with PNG or JPEG images, parquet"
    )


# ---- idx and CIFAR ---------------------------------------------------------------------------------------------------


def idx(files: Sequence[Received], budget: Budget) -> Decoded:
    """train-images, train-labels, t10k-images, t10k-labels: told by "train" in the name and by their dimensions."""
    found: dict[tuple[bool, int], Content] = {}
    for name, file, _ in files:
        raw = gunzipped(file, budget)
        key = ("train" in name.lower(), raw[3] if len(raw) > 3 else 0)
        if key in found:
            raise Refused(f"{shown(name)} is a second file of its kind: send images and labels of train and t10k")
        found[key] = Content(shown(name), raw)
    wanted = [(True, 3), (True, 1), (False, 3), (False, 1)]
    if set(found) != set(wanted):
        raise Refused("an idx data set is four files: train-images-idx3, train-labels-idx1, t10k-images-idx3 and -idx1")
    x_train, y_train, x_test, y_test = (found[key] for key in wanted)
    train, test = readers.idx((x_train, y_train), 256), readers.idx((x_test, y_test), 256)
    return Decoded("idx", Split(*train), Split(*test))


def cifar(file: IO[bytes], budget: Budget) -> Decoded:
    """data_batch_N.bin and test_batch.bin (a label), or train.bin and test.bin (a coarse and a fine one)."""
    kinds = ((CIFAR_10, readers.cifar10, "cifar10"), (CIFAR_100, readers.cifar100, "cifar100"))
    parts: dict[str, dict[str, list[Content]]] = {kind: {"train": [], "test": []} for _, _, kind in kinds}
    for name, opened in untarred(file, budget):
        for pattern, _, kind in kinds:
            if match := pattern.fullmatch(name):
                parts[kind]["test" if match[1] else "train"].append(Content(shown(name), opened()))
    for _, reader, kind in kinds:
        train, test = parts[kind]["train"], parts[kind]["test"]
        if train and test:
            train.sort(key=lambda part: part.origin)
            return Decoded(f"{kind}-binary", Split(*reader(train, 256)), Split(*reader(test, 256)))
    raise Refused(
        "holds no data_batch_N.bin and test_batch.bin, nor train.bin and test.bin (a single idx file? send four)"
    )


# ---- npz and class folders -------------------------------------------------------------------------------------------


def zipped(file: IO[bytes], size: int, budget: Budget) -> Decoded:
    members = dict(unzipped(file, size, budget))
    if members and all(name.endswith(".npy") for name in members):
        return npz(members)
    return folders(members, budget)


def npz(members: dict[str, Opened]) -> Decoded:
    """Numpy's archive of x_train, y_train, x_test, y_test; images (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    if set(members) != {f"{name}.npy" for name in ARRAYS}:
        there = ", ".join(shown(name) for name in sorted(members)[:8])
        raise Refused(f"holds the arrays {there}, not exactly {', '.join(ARRAYS)}")
    x_train, y_train, x_test, y_test = (array(name, members[f"{name}.npy"]()) for name in ARRAYS)
    return Decoded(
        "npz", Split(images("x_train", x_train), labels("y_train", y_train)),
        Split(images("x_test", x_test), labels("y_test", y_test)),
    )  # fmt: skip


def array(name: str, raw: bytes) -> NDArray[Any]:
    """An array in numpy's npy format, whose header is held against its size before anything is allocated."""
    file = io.BytesIO(raw)
    try:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(file)
    except ValueError as error:  # the header is a literal of Python's, read as such and not evaluated
        raise Refused(f"{name} is no npy array: {error}") from error
    if dtype.hasobject:
        raise Refused(f"{name} holds Python objects, which would have to be unpickled")
    count, rest = 1, len(raw) - file.tell()
    for side in shape:
        count *= side
    if count * dtype.itemsize != rest:
        raise Refused(f"{name} has {rest} bytes, and its header announces {shape} of {dtype}")
    flat = np.frombuffer(raw, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def images(name: str, x: NDArray[Any]) -> Bytes:
    """(N, C, H, W)"""
    if x.dtype != np.uint8:
        raise Refused(f"{name} holds {x.dtype}; images are uint8, from 0 to 255")
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in {1, 3}:
        return np.moveaxis(x, 3, 1)
    if x.ndim == 4 and x.shape[1] in {1, 3}:
        return x
    raise Refused(f"{name} has the shape {x.shape}, not (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels")


def labels(name: str, y: NDArray[Any]) -> NDArray[Any]:
    if y.dtype.kind not in "iu":
        raise Refused(f"{name} holds {y.dtype}; labels are integers from 0 on")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise Refused(f"{name} has the shape {y.shape}, not (N,) or (N, 1)")
    return y


def folders(members: dict[str, Opened], budget: Budget) -> Decoded:
    """train/<class>/<image> and test/<class>/<image>, perhaps in one more folder; classes in the order of names."""
    matches = {name: PICTURE.fullmatch(name) for name in members}
    for name, match in matches.items():
        if not match:
            raise Refused(f"holds {shown(name)}, which is neither train/<class>/<image> nor test/<class>/<image>")
    placed = {name: (match[1].lower(), match[2]) for name, match in matches.items() if match}
    names = tuple(sorted({kind for _, kind in placed.values()}))
    if len(names) > MAX_CLASSES:
        raise Refused(f"has {len(names)} classes, more than {MAX_CLASSES}")
    encoded: Encoded = {"train": ([], []), "test": ([], [])}
    for name in sorted(placed, key=lambda name: PurePosixPath(name).parts):
        split, kind = placed[name]
        encoded[split][0].append(members[name]())
        encoded[split][1].append(names.index(kind))
    return Decoded("folders", *pictures(encoded, budget), names)


# ---- parquet ---------------------------------------------------------------------------------------------------------


def parquet(file: IO[bytes], size: int, budget: Budget) -> Decoded:
    """Columns image (a PNG or JPEG file, or a struct with one as bytes), label (an integer), split (train or test)."""
    import pyarrow as pa  # noqa: PLC0415  (heavy, and the other formats do without)
    import pyarrow.parquet as pq  # noqa: PLC0415

    encoded: Encoded = {"train": ([], []), "test": ([], [])}
    try:
        source = pq.ParquetFile(file)
        missing = [name for name in COLUMNS if name not in source.schema_arrow.names]
        if missing:
            raise Refused(f"lacks the column {missing[0]!r}; a data set has {', '.join(COLUMNS)}")
        groups = range(source.metadata.num_row_groups)
        check_ratio(sum(source.metadata.row_group(k).total_byte_size for k in groups), size)
        for batch in source.iter_batches(batch_size=256, columns=list(COLUMNS), use_threads=False):
            budget.spend(batch.nbytes)
            for image, label, split in rows(batch):
                encoded[split][0].append(image)
                encoded[split][1].append(label)
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"is no parquet file that can be read: {error}") from error
    return Decoded("parquet", *pictures(encoded, budget))


def rows(batch: Any) -> Iterator[tuple[bytes, int, str]]:
    for row in batch.to_pylist():
        image, label, split = (row[name] for name in COLUMNS)
        image = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(image, bytes):
            raise Refused("has rows whose image is not bytes, nor a struct with bytes")
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < MAX_CLASSES:
            raise Refused(f"has the label {shown(str(label))}; labels are integers from 0 to {MAX_CLASSES - 1}")
        if split not in {"train", "test"}:
            raise Refused(f"has the split {shown(str(split))}; there are train and test")
        yield image, label, split


# ---- image files -----------------------------------------------------------------------------------------------------


def pictures(encoded: Encoded, budget: Budget) -> tuple[Split, Split]:
    """Image files of one size as arrays: grey if all of them are, else RGB."""
    everything = [raw for files, _ in encoded.values() for raw in files]
    if not everything or len(everything) > MAX_IMAGES:
        raise Refused(f"has {len(everything)} images, not 1 to {MAX_IMAGES}")
    seen = {header(raw) for raw in everything}
    sizes = sorted({size for size, _ in seen})
    if len(sizes) > 1:
        raise Refused(f"has images of several sizes, such as {sizes[0]} and {sizes[-1]} pixels; all must have one")
    mode = "L" if {mode for _, mode in seen} <= GREY else "RGB"
    budget.spend(len(everything) * sizes[0][0] * sizes[0][1] * (1 if mode == "L" else 3))
    train, test = (stacked(*encoded[split], sizes[0], mode) for split in ("train", "test"))
    return train, test


def header(raw: bytes) -> tuple[tuple[int, int], str]:
    """Size and mode of an image file; no pixel of it is decoded."""
    with opened(raw) as picture:
        if max(picture.size) > MAX_SIDE:
            raise Refused(f"has an image of {picture.size} pixels, more than {MAX_SIDE} on a side")
        if picture.mode not in GREY | COLOURED:
            raise Refused(f"has an image of mode {picture.mode}; 8 bits per channel are read")
        return picture.size, picture.mode


def opened(raw: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            return Image.open(io.BytesIO(raw), formats=("PNG", "JPEG"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(f"has an image that is no PNG or JPEG file: {error}") from error


def stacked(files: list[bytes], numbers: list[int], size: tuple[int, int], mode: str) -> Split:
    width, height = size
    x = np.empty((len(files), 1 if mode == "L" else 3, height, width), np.uint8)
    for k, raw in enumerate(files):
        try:
            with opened(raw) as picture:
                pixels = np.asarray(picture.convert(mode), np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise Refused(f"has a damaged image: {error}") from error
        x[k] = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    return Split(x, np.array(numbers, np.int64))
