"""Where a data set is looked for, in which layouts, and what a user is told when it cannot be had."""

import gzip
import hashlib
import lzma
import os
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Literal

import numpy as np
import pytest
import torch

from credit import spec
from credit.data import DATASETS, Images, load
from credit.data.parts import Parts, Reader
from credit.data.source import Layout, Remote
from credit.events import RunError
from credit.formats.readers import cifar10, cifar10_records, cifar100, cifar100_records, idx
from tests.credit.data_files import (
    Pack,
    fine_pickle,
    fine_records,
    idx_bytes,
    pickled_by_python_2,
    pictures,
    records,
    tar_gz,
)

NOWHERE = "http://127.0.0.1:9"
IDX = dict(
    zip(
        ("train-images", "train-labels", "test-images", "test-labels"),
        map(idx_bytes, (pictures(6), np.array([0, 1, 2] * 2, np.uint8), pictures(4), np.array([2, 2, 1, 0], np.uint8))),
        strict=True,
    )
)
BATCHES = {"batch_1": records(4), "batch_2": records(3), "test_batch": records(2)}


@dataclass(frozen=True, kw_only=True)
class Digits(spec.Images):
    train_images, test_images, shape, classes = 6, 4, (1, 4, 5), 3
    name: Literal["digits"] = "digits"


@dataclass(frozen=True, kw_only=True)
class Photos(spec.Images):
    train_images, test_images, shape, classes = 7, 2, (3, 32, 32), 10
    name: Literal["photos"] = "photos"


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def source(name: str, parts: list[bytes], train: int, layouts: tuple[Layout, ...], reader: Reader) -> Parts:
    checksums = tuple(map(sha256, parts))
    return Parts(
        name=name,
        layouts=layouts,
        train=checksums[:train],
        test=checksums[train:],
        reader=reader,
        mean=(0.5,),
        std=(0.5,),
        class_names=(),
    )


@pytest.fixture(autouse=True)
def sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small data sets, registered as any other is."""
    remotes = tuple(Remote(url=f"{NOWHERE}/{name}.gz", size=1, checksum="0" * 64) for name in IDX)
    digits = source("digits", list(IDX.values()), 2, (Layout(files=tuple(IDX), remotes=remotes),), idx)
    binary, pickled = tuple(f"bin/{name}.bin" for name in BATCHES), tuple(f"py/{name}" for name in BATCHES)
    layouts = (
        Layout(files=binary),
        Layout(files=("photos-binary.tar",), members=binary),
        Layout(files=("photos-python.tar",), members=pickled, convert=cifar10_records),
    )
    photos = source("photos", [batch.tobytes() for batch in BATCHES.values()], 2, layouts, cifar10)
    monkeypatch.setitem(DATASETS, Digits, digits)
    monkeypatch.setitem(DATASETS, Photos, photos)


def serve_at(monkeypatch: pytest.MonkeyPatch, address: str, official: dict[str, bytes]) -> None:
    """Give the digits an address that answers, and the sizes and checksums of what it serves."""
    remotes = tuple(
        Remote(url=f"{address}/{name}.gz", size=len(raw), checksum=sha256(raw)) for name, raw in official.items()
    )
    layouts = (Layout(files=tuple(IDX), remotes=remotes),)
    monkeypatch.setitem(DATASETS, Digits, source("digits", list(IDX.values()), 2, layouts, idx))


def place(folder: Path, suffix: str = "", pack: Pack = bytes, parts: dict[str, bytes] = IDX) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in parts.items():
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pack(raw))


def assert_digits(images: Images) -> None:
    assert images.train_x.dtype == images.test_x.dtype == torch.uint8
    assert images.train_y.dtype == images.test_y.dtype == torch.int64
    assert images.train_x.shape == (6, 1, 4, 5)
    assert images.test_x.shape == (4, 1, 4, 5)
    assert images.train_x.numpy().tobytes() == IDX["train-images"][16:]
    assert images.test_x.numpy().tobytes() == IDX["test-images"][16:]
    assert images.train_y.tolist() == [0, 1, 2, 0, 1, 2]
    assert images.test_y.tolist() == [2, 2, 1, 0]


def assert_photos(images: Images) -> None:
    train = np.concatenate([BATCHES["batch_1"], BATCHES["batch_2"]])
    assert images.train_x.shape == (7, 3, 32, 32)
    assert (images.train_x.flatten(1).numpy() == train[:, 1:]).all()
    assert (images.train_y.numpy() == train[:, 0]).all()
    assert (images.test_y.numpy() == BATCHES["test_batch"][:, 0]).all()


# ---- finding ----


@pytest.mark.parametrize("folder", ["digits", "."])
@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_placed_files_are_found_in_their_folder_or_right_below(
    tmp_path: Path, folder: str, suffix: str, pack: Pack
) -> None:
    place(tmp_path / "sets" / folder, suffix, pack)
    assert_digits(load(Digits(), datasets=tmp_path / "sets", cache=tmp_path / "cache"))


def test_the_cache_is_looked_in_where_nothing_is_placed(tmp_path: Path) -> None:
    place(tmp_path / "cache" / "digits", ".gz", gzip.compress)
    assert_digits(load(Digits(), datasets=None, cache=tmp_path / "cache"))
    assert_digits(load(Digits(), datasets=tmp_path / "not there", cache=tmp_path / "cache"))


def test_photos_come_from_binary_files_a_tar_of_them_or_a_tar_of_pickles(tmp_path: Path) -> None:
    binary = {f"bin/{name}.bin": batch.tobytes() for name, batch in BATCHES.items()}
    pickled = {f"py/{name}": pickled_by_python_2(batch) for name, batch in BATCHES.items()}
    for folder in ("files", "tar/photos", "pickles/photos"):
        (tmp_path / folder).mkdir(parents=True)
    place(tmp_path / "files", ".xz", lzma.compress, binary)
    tar_gz(tmp_path / "tar/photos/photos-binary.tar.gz", binary)
    tar_gz(tmp_path / "pickles/photos/photos-python.tar.gz", pickled)
    loaded = [load(Photos(), datasets=tmp_path / k, cache=tmp_path / "cache" / k) for k in ("files", "tar", "pickles")]
    for images in loaded:
        assert_photos(images)
    assert len({images.sha256 for images in loaded}) == 1


def test_pickles_that_are_known_by_their_own_checksums_are_verified_as_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layouts of CIFAR-100, whose records are two labels and the pixels."""
    batches = {"train": fine_records(7), "test": fine_records(2)}
    binary = {f"bin/{name}.bin": batch.tobytes() for name, batch in batches.items()}
    pickled = {f"py/{name}": fine_pickle(batch) for name, batch in batches.items()}
    checksums = tuple(map(sha256, pickled.values()))
    layouts = (
        Layout(files=tuple(binary)),
        Layout(files=("fine-python.tar",), members=tuple(pickled), parts=checksums, convert=cifar100_records),
    )
    monkeypatch.setattr(Photos, "classes", 100)
    monkeypatch.setitem(DATASETS, Photos, source("photos", list(binary.values()), 1, layouts, cifar100))
    place(tmp_path / "files", "", bytes, binary)
    (tmp_path / "tar").mkdir()
    path = tar_gz(tmp_path / "tar" / "fine-python.tar.gz", pickled)
    loaded = [load(Photos(), datasets=tmp_path / k, cache=tmp_path / "cache" / k) for k in ("files", "tar")]
    assert loaded[0].train_y.tolist() == batches["train"][:, 1].tolist()
    assert len({images.sha256 for images in loaded}) == 1
    tar_gz(path, {**pickled, "py/test": fine_pickle(fine_records(2))})
    assert f"py/test in {path} has the SHA-256" in message(Photos(), tmp_path / "tar", tmp_path / "cache" / "other")


def test_the_sha256_is_of_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    place(tmp_path / "digits")
    images = load(Digits(), datasets=tmp_path, cache=tmp_path / "cache")
    digest = hashlib.sha256()
    for name in ("train_x", "train_y", "test_x", "test_y"):
        tensor = getattr(images, name)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    assert images.sha256 == digest.hexdigest()


# ---- the decoded copy ----


def test_the_second_load_needs_the_decoded_copy_alone(tmp_path: Path) -> None:
    place(tmp_path / "sets")
    first = load(Digits(), datasets=tmp_path / "sets", cache=tmp_path / "cache")
    again = load(Digits(), datasets=None, cache=tmp_path / "cache")
    assert_digits(again)
    assert again.sha256 == first.sha256


@pytest.mark.parametrize("fault", ["flipped", "truncated", "empty"])
def test_a_damaged_decoded_copy_is_made_anew(tmp_path: Path, fault: str) -> None:
    place(tmp_path / "sets")
    load(Digits(), datasets=tmp_path / "sets", cache=tmp_path / "cache")
    copy = tmp_path / "cache" / "digits" / "decoded.safetensors"
    whole = copy.read_bytes()
    copy.write_bytes({"flipped": whole[:-1] + bytes([whole[-1] ^ 1]), "truncated": whole[:-1], "empty": b""}[fault])
    assert_digits(load(Digits(), datasets=tmp_path / "sets", cache=tmp_path / "cache"))
    assert_digits(load(Digits(), datasets=None, cache=tmp_path / "cache"))


def test_a_decoded_copy_of_other_files_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path / "sets")
    load(Digits(), datasets=tmp_path / "sets", cache=tmp_path / "cache")
    monkeypatch.setitem(IDX, "test-labels", idx_bytes(np.array([1, 1, 1, 1], np.uint8)))
    serve_at(monkeypatch, NOWHERE, dict.fromkeys(IDX, b""))
    place(tmp_path / "sets")
    assert load(Digits(), datasets=tmp_path / "sets", cache=tmp_path / "cache").test_y.tolist() == [1, 1, 1, 1]


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    place(tmp_path / "sets")
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert_digits(load(Digits(), datasets=tmp_path / "sets", cache=tmp_path / "cache"))


# ---- failing ----


def message(dataset: spec.Images, datasets: Path | None, cache: Path) -> str:
    with pytest.raises(RunError) as failure:
        load(dataset, datasets=datasets, cache=cache)
    assert failure.value.code == "dataset_unavailable"
    return str(failure.value)


def test_what_was_looked_for_where_and_what_to_do_is_said(tmp_path: Path) -> None:
    said = message(Digits(), tmp_path / "sets", tmp_path / "cache")
    for part in (
        "digits",
        "train-images",
        str(tmp_path / "sets" / "digits"),
        str(tmp_path / "cache" / "digits"),
        f"{NOWHERE}/train-images.gz",
        "refused",
        "CREDITLAB_DATASETS_DIR",
    ):
        assert part in said


def test_a_set_without_an_address_says_so(tmp_path: Path) -> None:
    said = message(Photos(), None, tmp_path)
    assert "no address" in said
    assert "photos-binary.tar.gz, or photos-python.tar.gz" in said


@pytest.mark.parametrize("name", list(IDX))
def test_a_file_with_a_changed_byte_is_named(tmp_path: Path, name: str) -> None:
    raw = IDX[name]
    changed = raw[:-1] + bytes([raw[-1] ^ 1])
    place(tmp_path / "digits", parts={**IDX, name: changed})
    said = message(Digits(), tmp_path, tmp_path / "cache")
    assert f"{tmp_path / 'digits' / name} has" in said
    assert sha256(raw) in said or "label" in said


@pytest.mark.parametrize("cut", [0, 3, 10, -1])
def test_a_truncated_file_is_named(tmp_path: Path, cut: int) -> None:
    place(tmp_path / "digits", parts={**IDX, "test-images": IDX["test-images"][:cut]})
    assert str(tmp_path / "digits" / "test-images") in message(Digits(), tmp_path, tmp_path / "cache")


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    place(tmp_path, ".gz", lambda raw: gzip.compress(raw)[:-9])
    assert f"{tmp_path / 'train-images.gz'} is damaged" in message(Digits(), tmp_path, tmp_path / "cache")


def test_a_bad_member_of_a_tar_is_named_with_its_tar(tmp_path: Path) -> None:
    members = {f"bin/{name}.bin": batch.tobytes() for name, batch in BATCHES.items()}
    path = tar_gz(tmp_path / "photos-binary.tar.gz", {**members, "bin/batch_2.bin": bytes(3073)})
    assert f"bin/batch_2.bin in {path} has the SHA-256" in message(Photos(), tmp_path, tmp_path / "cache")


def test_a_pickle_that_asks_for_more_is_named_with_what_it_asks_for(tmp_path: Path) -> None:
    members = {f"py/{name}": b"cos\nsystem\n(X\x04\x00\x00\x00truetR." for name in BATCHES}
    path = tar_gz(tmp_path / "photos-python.tar.gz", members)
    said = message(Photos(), tmp_path, tmp_path / "cache")
    assert f"py/batch_1 in {path} is refused" in said
    assert "os.system" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    place(tmp_path / "digits")
    (tmp_path / "digits" / "train-images").chmod(0)
    assert str(tmp_path / "digits" / "train-images") in message(Digits(), tmp_path, tmp_path / "cache")


# ---- downloading ----


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_what_is_missing_is_downloaded_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = {name: gzip.compress(raw) for name, raw in IDX.items()}
    place(tmp_path / "site", ".gz", gzip.compress)
    place(tmp_path / "sets", parts={"test-labels": IDX["test-labels"]})
    told: list[tuple[int, int]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site"))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        serve_at(monkeypatch, f"http://127.0.0.1:{server.server_port}", official)
        images = load(
            Digits(),
            datasets=tmp_path / "sets",
            cache=tmp_path / "cache",
            progress=lambda done, total: told.append((done, total)),
        )
        server.shutdown()
        thread.join()
    assert_digits(images)
    total = sum(len(raw) for name, raw in official.items() if name != "test-labels")
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    fetched = {path.name for path in (tmp_path / "cache" / "digits").iterdir()}
    assert fetched == {"train-images.gz", "train-labels.gz", "test-images.gz", "decoded.safetensors"}
    (tmp_path / "cache" / "digits" / "decoded.safetensors").unlink()
    assert_digits(load(Digits(), datasets=tmp_path / "sets", cache=tmp_path / "cache"))
