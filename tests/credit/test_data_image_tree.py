"""Tiny ImageNet from archives and folders in the official layout, whole or in part; whatever is not right is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from credit import spec
from credit.data import load
from credit.data.split import split
from credit.events import RunError
from tests.credit.data_files import WNIDS, jpeg, tar_gz, tiny_imagenet, zipped

NAME = "tiny-imagenet-200"


def folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, raw in members.items():
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_bytes(raw)
    return path


PLACES = [
    (zipped, f"{NAME}.zip"),
    (tar_gz, f"{NAME}.tar.gz"),
    (tar_gz, f"{NAME}-subset.tar.gz"),
    (folder, NAME),
]


def place(root: Path, members: dict[str, bytes]) -> Path:
    (root / "tiny-imagenet").mkdir(parents=True, exist_ok=True)
    return zipped(root / "tiny-imagenet" / f"{NAME}.zip", members)


def message(root: Path, cache: Path, **options: int) -> str:
    with pytest.raises(RunError) as failure:
        load(spec.TinyImageNet(**options), datasets=root, cache=cache)
    assert failure.value.code == "dataset_unavailable"
    return str(failure.value)


@pytest.mark.parametrize(("write", "name"), PLACES)
@pytest.mark.parametrize("below", ["tiny-imagenet", "."])
def test_it_is_found_as_an_archive_or_a_folder(
    tmp_path: Path, write: Callable[[Path, dict[str, bytes]], Path], name: str, below: str
) -> None:
    (tmp_path / "sets" / below).mkdir(parents=True, exist_ok=True)
    write(tmp_path / "sets" / below / name, tiny_imagenet())
    images = load(spec.TinyImageNet(), datasets=tmp_path / "sets", cache=tmp_path / "cache")
    assert images.train_x.shape == (9, 3, 64, 64)
    assert images.test_x.shape == (6, 3, 64, 64)
    assert images.train_x.dtype == torch.uint8
    assert images.train_y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert images.test_y.tolist() == [0, 2, 1, 0, 2, 1]
    brightness = images.train_x.float().mean((1, 2, 3))
    assert brightness.tolist() == pytest.approx([0, 10, 20, 50, 60, 70, 100, 110, 120], abs=1)
    assert images.test_x.float().mean((1, 2, 3)).tolist() == pytest.approx(list(range(200, 206)), abs=1)
    assert images.validation_x is None


def test_training_images_are_in_the_order_of_their_numbers_and_channels_are_red_green_blue(tmp_path: Path) -> None:
    members = {name: raw for name, raw in tiny_imagenet(train=0).items() if "train/" not in name}
    for n in (10, 9, 499):
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[..., 0], picture[..., 2] = 250, n % 256 // 2
        members[f"{NAME}/train/{WNIDS[1]}/images/{WNIDS[1]}_{n}.JPEG"] = jpeg(picture)
    place(tmp_path, members)
    images = load(spec.TinyImageNet(), datasets=tmp_path, cache=tmp_path / "cache")
    colours = images.train_x.float().mean((2, 3))
    assert images.train_y.tolist() == [1, 1, 1]
    assert colours[:, 0].tolist() == pytest.approx([250] * 3, abs=3)
    assert colours[:, 1].tolist() == pytest.approx([0] * 3, abs=3)
    assert colours[:, 2].tolist() == pytest.approx([4, 5, 121], abs=3)


def test_a_subset_is_taken_as_what_it_is_and_asking_for_more_is_refused(tmp_path: Path) -> None:
    place(tmp_path, tiny_imagenet())
    images = load(spec.TinyImageNet(train_samples=9), datasets=tmp_path, cache=tmp_path / "cache")
    assert len(split(images, spec.TinyImageNet(train_samples=7), torch.device("cpu")).train) == 7
    said = message(tmp_path, tmp_path / "cache", train_samples=10)
    assert "train_samples is 10, but the tiny-imagenet on this machine is a subset with 9 such images" in said
    assert "test_samples is 7" in message(tmp_path, tmp_path / "cache", test_samples=7)


@pytest.mark.parametrize(("write", "name"), [PLACES[0], PLACES[3]])
def test_the_decoded_copy_is_of_the_files_that_are_there(
    tmp_path: Path, write: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    write(tmp_path / name, tiny_imagenet())
    first = load(spec.TinyImageNet(), datasets=tmp_path, cache=tmp_path / "cache")
    copy = tmp_path / "cache" / "tiny-imagenet" / "decoded.safetensors"
    written = copy.stat().st_mtime_ns
    again = load(spec.TinyImageNet(), datasets=tmp_path, cache=tmp_path / "cache")
    assert again.sha256 == first.sha256
    assert copy.stat().st_mtime_ns == written
    write(tmp_path / name, tiny_imagenet(train=4))
    assert len(load(spec.TinyImageNet(), datasets=tmp_path, cache=tmp_path / "cache").train_y) == 12


BAD = [
    ({f"{NAME}/wnids.txt": None}, f"lacks {NAME}/wnids.txt"),
    ({f"{NAME}/val/val_annotations.txt": None}, f"lacks {NAME}/val/val_annotations.txt"),
    ({f"{NAME}/wnids.txt": b""}, "lists 0 classes"),
    ({f"{NAME}/wnids.txt": f"{WNIDS[0]}\n{WNIDS[0]}".encode()}, "lists 1 classes in 2 lines"),
    ({f"{NAME}/wnids.txt": "\n".join(f"n{n:08}" for n in range(201)).encode()}, "lists 201 classes"),
    ({f"{NAME}/wnids.txt": f"{WNIDS[0]}\n{WNIDS[2]}".encode()}, "is of a class that"),
    ({f"{NAME}/val/val_annotations.txt": b""}, "has 0 val images"),
    ({f"{NAME}/val/val_annotations.txt": b"val_0.JPEG\tn09999999\n"}, "has the line 'val_0.JPEG"),
    ({f"{NAME}/val/images/val_0.JPEG": b"no picture"}, "val_0.JPEG in"),
    ({f"{NAME}/val/images/val_0.JPEG": jpeg(np.zeros((64, 65), np.uint8))}, "is 65 × 64 pixels, not 64 × 64"),
    ({f"{NAME}/val/images/val_0.JPEG": jpeg(np.zeros((64, 64), np.uint8))[:-20]}, "is no JPEG file that can be read"),
    ({f"{NAME}/val/images/val_0.JPEG": b"\x89PNG\r\n\x1a\n" + bytes(50)}, "is no JPEG file that can be read"),
]


@pytest.mark.parametrize(("change", "problem"), BAD)
def test_what_is_not_the_official_layout_is_named(
    tmp_path: Path, change: dict[str, bytes | None], problem: str
) -> None:
    members = {name: raw for name, raw in (tiny_imagenet() | change).items() if raw is not None}
    path = place(tmp_path, members)
    said = message(tmp_path, tmp_path / "cache")
    assert problem in said
    assert str(path) in said


def test_no_more_images_than_the_official_set_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path, tiny_imagenet())
    monkeypatch.setattr(spec.TinyImageNet, "train_images", 8)
    assert "has 9 train images, not 1 to 8" in message(tmp_path, tmp_path / "cache")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = place(tmp_path, tiny_imagenet())
    path.write_bytes(path.read_bytes()[:3000])
    assert f"{path} is damaged" in message(tmp_path, tmp_path / "cache")
