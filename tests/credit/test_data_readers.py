"""The official formats, written small and read back; whatever is not right is refused by name."""

import gzip
import lzma
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from credit.data import archives
from credit.data.archives import BadFile, extract, unpack
from credit.data.readers import cifar10, cifar10_records, idx
from credit.data.source import Content
from tests.credit.data_files import (
    RANDOM,
    Bytes,
    Pack,
    idx_bytes,
    pickled_by_python_2,
    pickled_by_python_3,
    pictures,
    records,
    tar_gz,
)

# ---- idx ----


def test_idx_images_and_labels_come_back() -> None:
    x, y = pictures(6), np.array([0, 1, 2, 2, 1, 0], np.uint8)
    images, labels = idx([Content("images", idx_bytes(x)), Content("labels", idx_bytes(y))], 3)
    assert images.shape == (6, 1, 4, 5)
    assert images.dtype == labels.dtype == np.uint8
    assert (images[:, 0] == x).all()
    assert (labels == y).all()


@pytest.mark.parametrize(
    ("images", "labels", "named", "problem"),
    [
        (b"", idx_bytes(np.zeros(2, np.uint8)), "images", "starts with []"),
        (b"\x00\x00\x08\x01" + b"\x00" * 50, idx_bytes(np.zeros(2, np.uint8)), "images", "with [00 00 08 03]"),
        (b"\x00\x00\x0d\x03" + b"\x00" * 50, idx_bytes(np.zeros(2, np.uint8)), "images", "starts with [00 00 0d 03]"),
        (b"\x00\x00\x08\x03\x00\x00", idx_bytes(np.zeros(2, np.uint8)), "images", "within its header"),
        (idx_bytes(pictures(2))[:-1], idx_bytes(np.zeros(2, np.uint8)), "images", "ends early: 55 bytes, not the 56"),
        (idx_bytes(pictures(2)) + b"\x00", idx_bytes(np.zeros(2, np.uint8)), "images", "is too long"),
        (idx_bytes(pictures(2)), idx_bytes(np.zeros(3, np.uint8)), "labels", "3 labels for the 2 images of images"),
        (idx_bytes(pictures(2)), idx_bytes(np.array([0, 3], np.uint8)), "labels", "the label 3; there are 3 classes"),
    ],
)
def test_a_wrong_idx_file_is_named(images: bytes, labels: bytes, named: str, problem: str) -> None:
    with pytest.raises(BadFile) as refusal:
        idx([Content("images", images), Content("labels", labels)], 3)
    assert str(refusal.value).startswith(named)
    assert problem in str(refusal.value)


# ---- CIFAR ----


def test_cifar_batches_are_joined_in_order() -> None:
    first, second = records(4), records(3)
    x, y = cifar10([Content("1", first.tobytes()), Content("2", second.tobytes())], 10)
    both = np.concatenate([first, second])
    assert x.shape == (7, 3, 32, 32)
    assert (x.reshape(7, 3072) == both[:, 1:]).all()
    assert (y == both[:, 0]).all()


def test_cifar_pixels_are_red_then_green_then_blue_row_by_row() -> None:
    batch = records(1)
    x, _ = cifar10([Content("1", batch.tobytes())], 10)
    assert x[0, 2, 5, 7] == batch[0, 1 + 2 * 1024 + 5 * 32 + 7]


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_a_cifar_batch_of_no_whole_records_is_named(size: int) -> None:
    with pytest.raises(BadFile, match=f"batch_1 has {size} bytes"):
        cifar10([Content("batch_1", bytes(size))], 10)


def test_a_cifar_label_out_of_range_is_named() -> None:
    batch = records(2)
    batch[1, 0] = 10
    with pytest.raises(BadFile, match="batch_1 has the label 10"):
        cifar10([Content("batch_1", batch.tobytes())], 10)


@pytest.mark.parametrize("write", [pickled_by_python_2, pickled_by_python_3])
def test_a_pickled_batch_becomes_the_binary_one(write: Callable[[Bytes], bytes]) -> None:
    batch = records(5)
    assert cifar10_records(Content("data_batch_1", write(batch))).raw == batch.tobytes()


class Malicious:
    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


def test_a_malicious_pickle_is_refused_by_name_and_does_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    raw = pickle.dumps({b"data": Malicious(Path.touch, witness), b"labels": []}, protocol=2)
    with pytest.raises(BadFile, match=r"data_batch_1 is refused: UnpicklingError: it asks for "):
        cifar10_records(Content("data_batch_1", raw))
    assert not witness.exists()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"cos\nsystem\n(U\x04trueo.", "os.system"),
        (b"cbuiltins\neval\n(U\x011tR.", "builtins.eval"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", r"numpy.ndarray.__class__"),
    ],
)
def test_no_other_name_is_ever_looked_up(code: bytes, name: str) -> None:
    with pytest.raises(BadFile, match=f"it asks for {name}"):
        cifar10_records(Content("data_batch_1", code))


def test_an_unexpected_encoding_is_refused() -> None:
    code = b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR."
    with pytest.raises(BadFile, match="the encoding 'rot13'"):
        cifar10_records(Content("data_batch_1", code))


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"no pickle",
        pickle.dumps([]),
        pickle.dumps({}),
        pickle.dumps({b"data": [1, 2], b"labels": [1, 2]}),
        pickled_by_python_3(records(3)).replace(b"labels", b"lebals"),
        pickled_by_python_3(records(3))[:-5000],
        pickle.dumps({b"data": [[0] * 3072], b"labels": [0]}, protocol=2),
    ],
)
def test_what_is_no_batch_is_named(batch: bytes) -> None:
    with pytest.raises(BadFile, match="data_batch_1"):
        cifar10_records(Content("data_batch_1", batch))


@pytest.mark.parametrize(
    "labels", [[1, 2], [1, 2, 3, 4], [1, 2, 256], [1, 2, -1], [1, 2, 0.5], ["1", "2", "3"], [[1]] * 3]
)
def test_labels_that_fit_no_record_are_named(labels: list[Any]) -> None:
    raw = pickle.dumps({b"labels": labels, b"data": records(3)[:, 1:]}, protocol=2)
    with pytest.raises(BadFile, match="data_batch_1 has no list of 3 labels"):
        cifar10_records(Content("data_batch_1", raw.replace(b"numpy._core", b"numpy.core")))


# ---- unpacking ----


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_files_are_read_raw_gzipped_and_xz_compressed(tmp_path: Path, suffix: str, pack: Pack) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(pack(b"content"))
    assert unpack(path) == (str(path), b"content")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("fault", ["truncated", "flipped", "not compressed"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, pack: Pack, fault: str) -> None:
    packed = bytearray(pack(RANDOM.bytes(1000)))
    if fault == "truncated":
        del packed[500:]
    if fault == "flipped":
        packed[500] ^= 1
    if fault == "not compressed":
        packed[:] = b"content"
    path = tmp_path / f"data{suffix}"
    path.write_bytes(packed)
    with pytest.raises(BadFile) as refusal:
        unpack(path)
    assert str(refusal.value).startswith(f"{path} is damaged: ")


def test_a_file_that_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(BadFile, match="larger than 1000 bytes"):
        unpack(path)


def test_members_of_a_tar_come_in_the_order_asked_for_and_others_are_left_alone(tmp_path: Path) -> None:
    path = tar_gz(tmp_path / "a.tar.gz", {"../../evil": b"no", "d/two": b"2", "d/one": b"1"})
    before = sorted(tmp_path.parent.rglob("*"))
    assert [content.raw for content in extract(path, ["d/one", "d/two"])] == [b"1", b"2"]
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_tar_that_lacks_a_member_or_has_a_link_in_its_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("d/one")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(BadFile, match=r"a\.tar\.gz lacks d/one, d/two"):
        extract(path, ["d/one", "d/two"])


@pytest.mark.parametrize("fault", ["truncated", "no tar"])
def test_a_damaged_tar_is_named(tmp_path: Path, fault: str) -> None:
    path = tar_gz(tmp_path / "a.tar.gz", {"d/one": RANDOM.bytes(5000)})
    path.write_bytes(path.read_bytes()[:2000] if fault == "truncated" else b"not a tar")
    with pytest.raises(BadFile, match=r"a\.tar\.gz is damaged"):
        extract(path, ["d/one"])
