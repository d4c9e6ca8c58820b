"""The official formats, written small and read back; whatever is not right is refused by name."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from credit.formats import Content
from credit.formats.archives import BadFile
from credit.formats.readers import cifar10, cifar10_records, cifar100, cifar100_records, idx, npy
from tests.credit.data_files import (
    RANDOM,
    Bytes,
    fine_pickle,
    fine_records,
    idx_bytes,
    npy_bytes,
    pickled_by_python_2,
    pickled_by_python_3,
    pictures,
    records,
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


# ---- CIFAR-100 ----


def test_the_fine_label_is_the_class() -> None:
    first, second = fine_records(4), fine_records(3)
    x, y = cifar100([Content("1", first.tobytes()), Content("2", second.tobytes())], 100)
    both = np.concatenate([first, second])
    assert (x.reshape(7, 3072) == both[:, 2:]).all()
    assert (y == both[:, 1]).all()


def test_a_fine_label_out_of_range_and_a_wrong_size_are_named() -> None:
    batch = fine_records(2)
    with pytest.raises(BadFile, match="train has 6147 bytes"):
        cifar100([Content("train", batch.tobytes()[:-1])], 100)
    batch[1, :2] = 0, 100
    with pytest.raises(BadFile, match="train has the label 100"):
        cifar100([Content("train", batch.tobytes())], 100)
    batch[1, :2] = 255, 99  # the coarse label is nobody's class
    cifar100([Content("train", batch.tobytes())], 100)


def test_a_pickle_with_two_labels_becomes_the_binary_records() -> None:
    batch = fine_records(5)
    assert cifar100_records(Content("train", fine_pickle(batch))).raw == batch.tobytes()
    with pytest.raises(BadFile, match="train is refused: KeyError"):
        cifar100_records(Content("train", pickled_by_python_3(records(5))))


# ---- npy ----


def test_npy_images_come_channels_first() -> None:
    grey, colour = RANDOM.integers(0, 256, (6, 5, 4), np.uint8), RANDOM.integers(0, 256, (6, 5, 4, 3), np.uint8)
    labels = np.array([[0], [1], [2], [2], [1], [0]], np.uint8)
    x, y = npy([Content("x", npy_bytes(grey)), Content("y", npy_bytes(labels))], 3)
    assert (x == grey[:, None]).all()
    assert y.tolist() == [0, 1, 2, 2, 1, 0]
    x, _ = npy([Content("x", npy_bytes(colour)), Content("y", npy_bytes(labels))], 3)
    assert x.flags.c_contiguous
    assert x.shape == (6, 3, 5, 4)
    assert (x[2, 1] == colour[2, :, :, 1]).all()


ARRAY, LABELS = npy_bytes(np.zeros((2, 5, 4), np.uint8)), npy_bytes(np.zeros((2, 1), np.uint8))


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (b"", LABELS, "images is no array"),
        (ARRAY[:-1], LABELS, "images is no array"),
        (ARRAY.replace(b"{'descr'", b"{__import__"), LABELS, "images is no array"),
        (npy_bytes(np.array([None, None])), LABELS, "images is no array: Object arrays"),
        (npy_bytes(np.zeros((2, 5, 4))), LABELS, "images holds float64, not uint8"),
        (npy_bytes(np.zeros(2, np.uint8)), LABELS, r"images has the shape \(2,\), not"),
        (ARRAY, npy_bytes(np.zeros((2, 14), np.uint8)), r"labels has the shape \(2, 14\), not \(2, 1\)"),
        (ARRAY, npy_bytes(np.zeros((3, 1), np.uint8)), r"labels has the shape \(3, 1\), not \(2, 1\)"),
        (ARRAY, npy_bytes(np.full((2, 1), 3, np.uint8)), "labels has the label 3"),
    ],
)
def test_what_is_no_array_of_images_and_labels_is_named(images: bytes, labels: bytes, problem: str) -> None:
    with pytest.raises(BadFile, match=problem):
        npy([Content("images", images), Content("labels", labels)], 3)
