"""Small data sets of a user's own, in every format that is taken, and files that are none."""

import gzip
import io
import struct
import tarfile
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

Part = tuple[str, tuple[str, bytes]]
RANDOM = np.random.default_rng(3)
CLASSES = 3


def pixels(n: int, *shape: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (n, *shape), np.uint8)


def labels(n: int) -> NDArray[np.int64]:
    return np.arange(n) % CLASSES


def arrays(*shape: int) -> dict[str, NDArray[Any]]:
    """The four arrays of a data set of 12 + 6 images."""
    return {"x_train": pixels(12, *shape), "y_train": labels(12), "x_test": pixels(6, *shape), "y_test": labels(6)}


def npz(**changed: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **(arrays(8, 8, 3) | changed))
    return file.getvalue()


def png(image: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def zipped(members: dict[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return file.getvalue()


def folder_members(*shape: int, root: str = "") -> dict[str, bytes]:
    return {
        f"{root}{split}/{kind}/{k}.png": png(pixels(1, *shape)[0])
        for split, n in (("train", 4), ("test", 2))
        for kind in ("cat", "dog", "emu")
        for k in range(n)
    }


def tarred(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, raw in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return file.getvalue()


def records(n: int, classes: int = CLASSES, columns: int = 1) -> bytes:
    batch = pixels(n, columns + 3072)
    batch[:, columns - 1] = np.arange(n) % classes
    return batch.tobytes()


def cifar() -> bytes:
    batches = {f"cifar/data_batch_{k}.bin": records(6) for k in (1, 2)}
    return tarred(batches | {"cifar/test_batch.bin": records(6), "cifar/readme.html": b"read me"})


def parquet(**changed: Any) -> bytes:
    columns = {
        "image": [{"bytes": png(pixels(1, 9, 7)[0]), "path": "a.png"} for _ in range(18)],
        "label": labels(18).tolist(),
        "split": ["train"] * 12 + ["test"] * 6,
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns | changed), file)
    return file.getvalue()


def idx(array: NDArray[np.uint8]) -> bytes:
    return gzip.compress(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def idx_parts(**changed: bytes) -> list[Part]:
    told = {
        "train-images-idx3-ubyte.gz": idx(pixels(12, 6, 5)),
        "train-labels-idx1-ubyte.gz": idx(labels(12).astype(np.uint8)),
        "t10k-images-idx3-ubyte.gz": idx(pixels(6, 6, 5)),
        "t10k-labels-idx1-ubyte.gz": idx(labels(6).astype(np.uint8)),
    }
    return [("file", (name, raw)) for name, raw in (told | changed).items()]


def one(raw: bytes, name: str = "data") -> list[Part]:
    return [("file", (name, raw))]


GOOD: dict[str, tuple[list[Part], list[int], str]] = {
    "npz": (one(npz()), [3, 8, 8], "npz"),
    "npz, grey": (one(npz(**arrays(5, 7))), [1, 5, 7], "npz"),
    "npz, channels first": (one(npz(**arrays(3, 5, 7))), [3, 5, 7], "npz"),
    "npz, labels as a column": (one(npz(y_train=labels(12)[:, None], y_test=labels(6)[:, None])), [3, 8, 8], "npz"),
    "idx": (idx_parts(), [1, 6, 5], "idx"),
    "cifar10": (one(cifar()), [3, 32, 32], "cifar10-binary"),
    "cifar100": (
        one(tarred({"train.bin": records(12, columns=2), "test.bin": records(6, columns=2)})),
        [3, 32, 32],
        "cifar100-binary",
    ),
    "folders": (one(zipped(folder_members(6, 4, 3))), [3, 6, 4], "folders"),
    "folders, grey, in a folder": (
        one(zipped(folder_members(6, 4, root="mine/") | {"__MACOSX/mine/x": b"", "mine/.DS_Store": b"?"})),
        [1, 6, 4],
        "folders",
    ),
    "parquet": (one(parquet()), [1, 9, 7], "parquet"),
    "parquet, plain bytes": (
        one(parquet(image=[png(pixels(1, 9, 7, 3)[0], "JPEG") for _ in range(18)])),
        [3, 9, 7],
        "parquet",
    ),
}
"""Parts of the form, shape and format by what they are."""


def linked_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        entry = zipfile.ZipInfo("train/cat/0.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return file.getvalue()


def linked_tar(kind: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo("data_batch_1.bin")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    return file.getvalue()


def large_header() -> bytes:
    """An array of a few bytes that says it has 2⁶⁰."""
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 2**20)})
    members = {f"{name}.npy": raw.getvalue() + b"few" for name in ("x_train", "y_train", "x_test", "y_test")}
    return zipped(members)


def with_entry(name: str) -> bytes:
    return zipped(folder_members(4, 4) | {name: b"?"})


BAD: dict[str, tuple[list[Part], str]] = {
    "nothing": (one(b""), "none of"),
    "text": (one(b"hello"), "none of"),
    "parent folder": (one(with_entry("../train/cat/0.png")), "leads out"),
    "parent folder inside": (one(with_entry("train/../../x.png")), "leads out"),
    "absolute": (one(with_entry("/etc/cron.d/x")), "leads out"),
    "drive": (one(with_entry("C:/x.png")), "leads out"),
    "backslashes": (one(with_entry("train\\..\\..\\x.png")), "leads out"),
    "encoded": (one(with_entry("train/%2e%2e/%2e%2e/x.png")), "leads out"),
    "parent folder in tar": (one(tarred({"../data_batch_1.bin": b"x"})), "leads out"),
    "absolute in tar": (one(tarred({"/data_batch_1.bin": b"x"})), "leads out"),
    "link in zip": (one(linked_zip()), "link"),
    "link in tar": (one(linked_tar(tarfile.SYMTYPE)), "link"),
    "hard link in tar": (one(linked_tar(tarfile.LNKTYPE)), "link"),
    "device in tar": (one(linked_tar(tarfile.CHRTYPE)), "link"),
    "zip bomb": (one(zipped({"x_train.npy": bytes(300 << 20)})), "times its own"),
    "tar bomb": (one(tarred({"data_batch_1.bin": bytes(300 << 20)})), "once unpacked"),
    "gzip bomb": ([*idx_parts()[1:], ("file", ("train-images.gz", gzip.compress(bytes(300 << 20))))], "once unpacked"),
    "array that says it is huge": (one(large_header()), "announces"),
    "pickled": (one(npz(x_train=np.array([{"a": 1}] * 12, object))), "unpickled"),
    "floats": (one(npz(x_train=RANDOM.random((12, 8, 8, 3)))), "x_train holds float64"),
    "labels are floats": (one(npz(y_train=np.zeros(12))), "y_train holds float64"),
    "labels are one-hot": (one(npz(y_train=np.eye(3, dtype=int)[labels(12)])), "y_train has the shape"),
    "negative label": (one(npz(y_train=labels(12) - 1)), "from -1"),
    "label beyond": (one(npz(y_train=labels(12) + 10**6)), "1000002"),
    "class without images": (one(npz(y_train=labels(12) * 2)), "no training image of class 1"),
    "test label unknown": (one(npz(y_test=labels(6) + 3)), "the test label 3"),
    "one class": (one(npz(y_train=np.zeros(12, int), y_test=np.zeros(6, int))), "from 0 to 0"),
    "too few labels": (one(npz(y_train=labels(11))), "11 labels"),
    "no images": (one(npz(x_test=pixels(0, 8, 8, 3), y_test=labels(0))), "0 test images"),
    "other shape in test": (one(npz(x_test=pixels(6, 8, 9, 3))), "test images of"),
    "two channels": (one(npz(x_train=pixels(12, 8, 8, 2))), "1 or 3 channels"),
    "too wide": (one(npz(**arrays(1, 2000))), "1024 on a side"),
    "another array": (one(npz(extra=labels(3))), "exactly"),
    "truncated npz": (one(npz()[:-40]), "no zip archive"),
    "truncated tar": (one(cifar()[: -(len(cifar()) // 2)]), "damaged"),
    "truncated cifar": (one(tarred({"data_batch_1.bin": records(3)[:-1], "test_batch.bin": records(3)})), "records"),
    "truncated parquet": (one(parquet()[:-30]), "no parquet"),
    "truncated idx": (idx_parts(**{"t10k-images-idx3-ubyte.gz": idx(pixels(6, 6, 5))[:-9]}), "damaged"),
    "damaged picture": (one(zipped(folder_members(4, 4) | {"train/cat/x.png": png(pixels(1, 4, 4)[0])[:40]})), "image"),
    "no picture": (one(zipped(folder_members(4, 4) | {"train/cat/x.png": b"GIF89a"})), "no PNG or JPEG"),
    "pictures of two sizes": (
        one(zipped(folder_members(4, 4) | {"train/cat/x.png": png(pixels(1, 4, 5)[0])})),
        "sizes",
    ),
    "huge picture": (one(zipped({"train/cat/x.png": png(np.zeros((1, 2000), np.uint8))})), "1024"),
    "16 bits": (one(zipped({"train/cat/x.png": png(np.zeros((4, 4), np.uint16))})), "mode"),
    "text among pictures": (one(zipped(folder_members(4, 4) | {"notes.txt": b"?"})), "neither"),
    "three idx files": (idx_parts()[:3], "four files"),
    "one idx file": (idx_parts()[:1], "tar"),
    "twice the training images": ([*idx_parts()[:3], idx_parts()[0]], "second file"),
    "labels beyond in parquet": (one(parquet(label=[5000] * 18)), "label"),
    "no labels in parquet": (one(parquet(label=[None] * 18)), "label"),
    "another split": (one(parquet(split=["dev"] * 18)), "split"),
    "texts for images": (one(parquet(image=["a"] * 18)), "not bytes"),
}
"""Parts of the form, and what the refusal speaks of."""
