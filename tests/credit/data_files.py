"""Small files in the official formats of the image data sets."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pack = Callable[[bytes], bytes]
Bytes = NDArray[np.uint8]

RANDOM = np.random.default_rng(0)


def idx_bytes(array: Bytes) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def pictures(n: int) -> Bytes:
    return RANDOM.integers(0, 256, (n, 4, 5), np.uint8)


def records(n: int) -> Bytes:
    """CIFAR records: a label below 10 and 3,072 pixels."""
    batch = RANDOM.integers(0, 256, (n, 3073), np.uint8)
    batch[:, 0] %= 10
    return batch


def pickled_by_python_2(batch: Bytes) -> bytes:
    """The official batches' own form: protocol 2, byte strings, the old numpy's names."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    pixels = batch[:, 1:].tobytes()
    state = integer(1) + integer(len(batch)) + integer(3072) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + integer(0) + integer(1) + b"\x87R"
    dtype += b"(" + integer(3) + string(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85" + string(b"b") + b"\x87R"
    array += b"(" + state + dtype + b"\x89" + b"T" + struct.pack("<i", len(pixels)) + pixels + b"tb"
    labels = b"](" + b"".join(integer(int(label)) for label in batch[:, 0]) + b"e"
    pairs = string(b"batch_label") + string(b"training batch 1 of 5") + string(b"labels") + labels
    return b"\x80\x02}(" + pairs + string(b"data") + array + b"u."


def pickled_by_python_3(batch: Bytes) -> bytes:
    raw = pickle.dumps({b"labels": batch[:, 0].tolist(), b"data": batch[:, 1:]}, protocol=2)
    return raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def tar_gz(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return path


def fine_records(n: int) -> Bytes:
    """CIFAR-100 records: a coarse label below 20, a fine one below 100 and 3,072 pixels."""
    batch = RANDOM.integers(0, 256, (n, 3074), np.uint8)
    batch[:, 0] %= 20
    batch[:, 1] %= 100
    return batch


def fine_pickle(batch: Bytes) -> bytes:
    labels = {b"coarse_labels": batch[:, 0].tolist(), b"fine_labels": batch[:, 1].tolist()}
    raw = pickle.dumps({b"filenames": [b"a.png"] * len(batch), **labels, b"data": batch[:, 2:]}, protocol=2)
    return raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def npy_bytes(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def jpeg(picture: Bytes) -> bytes:
    """(H, W) grey or (H, W, 3) RGB."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95)
    return file.getvalue()


WNIDS = ("n02000000", "n01000000", "n03000000")
"""Not in alphabetical order, as in the official list."""


def tiny_imagenet(train: int = 3, val: int = 2) -> dict[str, bytes]:
    """The official layout with three classes; the first training image of each is grey, and one brightness each."""
    members = {"tiny-imagenet-200/wnids.txt": "\n".join(WNIDS).encode() + b"\n"}
    lines = []
    for label, wnid in enumerate(WNIDS):
        for n in range(train):
            picture = np.full((64, 64) if n == 0 else (64, 64, 3), 50 * label + 10 * n, np.uint8)
            members[f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{n}.JPEG"] = jpeg(picture)
        members[f"tiny-imagenet-200/train/{wnid}/{wnid}_boxes.txt"] = b"boxes"
    for n in range(val * len(WNIDS)):
        members[f"tiny-imagenet-200/val/images/val_{n}.JPEG"] = jpeg(np.full((64, 64, 3), 200 + n, np.uint8))
        lines.append(f"val_{n}.JPEG\t{WNIDS[-n % 3]}\t0\t0\t62\t62\n")
    members["tiny-imagenet-200/val/val_annotations.txt"] = "".join(lines).encode()
    members["tiny-imagenet-200/test/images/test_0.JPEG"] = b"never looked at"
    return members
