"""The registered data sets: the bundled one always, the official ones where their files are."""

import gzip
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from credit import data, spec
from credit.data import DATASETS, load
from credit.data.parts import Parts
from credit.data.registry import FASHION_MNIST_MINI, IDX_FILES

REPOSITORY = Path(__file__).parents[2]
MINI = Path(data.__file__).parent / "fashion-mnist-mini"
SCRIPT = REPOSITORY / "scripts" / "make_fashion_mnist_mini.py"
PLACED = Path(os.environ.get("CREDITLAB_DATASETS_DIR") or REPOSITORY.parent / "shared" / "data")
FASHION_FOLDERS = (PLACED / "fashion-mnist", PLACED, Path("/usr/share/datasets/fashion-mnist"))

SHA256 = {
    spec.FashionMNISTMini: "4a5fbfa0a6afbfe7527b6f8f68b0ab32bd46d7aa3dab9e5fa505312ec4148faf",
    spec.MNIST: "f8b603728c21bea30a00ebff98a4b7b195348788c139f9ec62ce56946669587b",
    spec.FashionMNIST: "65259d3d46d7153c5e2fda9daa0625dee53f18786ab1b3d99b0d073f14f85732",
    spec.CIFAR10: "6bc765042875a0ce844e2dd8ee5bea80ff6d613349b999f8fc5ea9b0e31dddca",
}
TINY_SUBSET = PLACED / "tiny-imagenet" / "tiny-imagenet-200-subset.tar.xz"
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
COUNTS = {
    spec.FashionMNISTMini: ([800] * 10, [200] * 10),
    spec.MNIST: (MNIST_TRAIN, MNIST_TEST),
    spec.FashionMNIST: ([6000] * 10, [1000] * 10),
    spec.CIFAR10: ([5000] * 10, [1000] * 10),
}


def is_placed(name: str) -> bool:
    return (PLACED / name).is_dir()


@pytest.mark.parametrize(
    "dataset",
    [
        spec.FashionMNISTMini(),
        pytest.param(spec.MNIST(), marks=pytest.mark.skipif(not is_placed("mnist"), reason="MNIST is not placed")),
        pytest.param(
            spec.FashionMNIST(),
            marks=pytest.mark.skipif(not is_placed("fashion-mnist"), reason="Fashion-MNIST is not placed"),
        ),
        pytest.param(
            spec.CIFAR10(),
            marks=[pytest.mark.skipif(not is_placed("cifar10"), reason="CIFAR-10 is not placed"), pytest.mark.slow],
        ),
    ],
    ids=lambda dataset: dataset.name,
)
def test_a_data_set_is_the_official_one(dataset: spec.Dataset, tmp_path: Path) -> None:
    images = load(dataset, datasets=PLACED, cache=tmp_path)
    assert images.train_x.shape == (dataset.train_images, *dataset.shape)
    assert images.test_x.shape == (dataset.test_images, *dataset.shape)
    counts = [torch.bincount(y, minlength=dataset.classes).tolist() for y in (images.train_y, images.test_y)]
    assert counts == list(COUNTS[type(dataset)])
    assert images.sha256 == SHA256[type(dataset)]
    assert load(dataset, datasets=None, cache=tmp_path).sha256 == images.sha256
    channels = (images.train_x.transpose(0, 1).flatten(1).numpy() / np.float32(255)).mean(1, dtype=np.float64)
    assert channels == pytest.approx(DATASETS[type(dataset)].mean, abs=0.003)


@pytest.mark.slow
@pytest.mark.skipif(not TINY_SUBSET.is_file(), reason="the subset of Tiny ImageNet is not placed")
def test_the_subset_of_tiny_imagenet_is_read(tmp_path: Path) -> None:
    """60 training and 25 validation images of each class; statistics near the published ones of the whole set."""
    images = load(spec.TinyImageNet(), datasets=PLACED, cache=tmp_path)
    assert images.train_x.shape == (12_000, 3, 64, 64)
    assert images.test_x.shape == (5_000, 3, 64, 64)
    assert images.train_y.tolist() == [label for label in range(200) for _ in range(60)]
    assert torch.bincount(images.test_y).tolist() == [25] * 200
    pixels = images.train_x.transpose(0, 1).flatten(1).float() / 255
    source = DATASETS[spec.TinyImageNet]
    assert pixels.mean(1).tolist() == pytest.approx(source.mean, abs=0.005)
    assert pixels.std(1).tolist() == pytest.approx(source.std, abs=0.005)
    assert load(spec.TinyImageNet(), datasets=PLACED, cache=tmp_path).sha256 == images.sha256


def test_every_data_set_of_the_menu_that_can_be_trained_is_registered_under_its_name() -> None:
    menu = spec.menu(spec.Dataset)
    assert {source.name: dataset for dataset, source in DATASETS.items()} == {
        name: dataset for name, dataset in menu.items() if not dataset.refusal
    }
    for dataset, source in DATASETS.items():
        assert len(source.class_names) in {dataset.classes, 0}
        assert len(source.mean) == len(source.std) == dataset.shape[0]
        assert dataset.bundled == source.bundled
        for layout in source.layouts:
            assert not layout.remotes or len(layout.remotes) == len(layout.files)
            if isinstance(source, Parts):
                parts = (*source.train, *source.test, *source.validation)
                assert len(layout.members or layout.files) == len(parts)
                assert len(layout.parts) in {0, len(parts)}
                assert layout.archive or layout.parts or all(parts)
                assert bool(source.validation) == bool(dataset.validation_images)


def test_every_data_set_says_its_licence_and_what_to_cite() -> None:
    for dataset in spec.menu(spec.Dataset).values():
        assert dataset.title
        assert dataset.licence is None or dataset.licence
        assert dataset.citation.year > 1990
        assert dataset.citation.url.startswith("http")


def test_a_set_of_several_labels_per_image_is_refused_with_the_reason() -> None:
    with pytest.raises(spec.Incompatible, match="14 labels that do not exclude each other") as refusal:
        spec.ChestMNIST()
    assert refusal.value.pointer == "/name"


def test_a_set_with_a_validation_split_of_its_own_gives_up_no_training_images() -> None:
    with pytest.raises(spec.Incompatible, match="a validation split of its own"):
        spec.PathMNIST(validation_fraction=0.1)


def test_the_bundled_set_needs_no_folder_and_writes_nothing(tmp_path: Path) -> None:
    load(spec.FashionMNISTMini(), datasets=None, cache=tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_the_bundled_set_is_small_and_has_its_licence_beside_it() -> None:
    assert sum(path.stat().st_size for path in MINI.iterdir()) <= 5_000_000
    assert "Copyright (c) 2017 Zalando SE, https://tech.zalando.com" in (MINI / "LICENSE").read_text()
    assert FASHION_MNIST_MINI.bundled


@pytest.mark.parametrize("folder", FASHION_FOLDERS, ids=("placed", "placed-flat", "debian"))
def test_the_bundled_set_comes_from_the_script(folder: Path, tmp_path: Path) -> None:
    """Compared unpacked: builds of zlib differ in how they compress."""
    if not all((folder / f"{name}.gz").is_file() for name in IDX_FILES):
        pytest.skip("the official files of Fashion-MNIST are not here")
    runpy.run_path(str(SCRIPT))["make"](folder, tmp_path)
    for name in (f"{name}.gz" for name in IDX_FILES):
        assert gzip.decompress((tmp_path / name).read_bytes()) == gzip.decompress((MINI / name).read_bytes())


def test_the_script_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not the official file"):
        runpy.run_path(str(SCRIPT))["make"](MINI, tmp_path)


def test_the_script_writes_the_same_bytes_every_time() -> None:
    idx_gz = runpy.run_path(str(SCRIPT))["idx_gz"]
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert idx_gz(array) == idx_gz(array)
    assert idx_gz(array)[3:10] == b"\x00" * 5 + b"\x02\xff"
