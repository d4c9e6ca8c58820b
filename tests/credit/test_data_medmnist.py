"""MedMNIST from npz files in the official form: three splits, verified as one file."""

import hashlib
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from credit import spec
from credit.data import DATASETS, load
from credit.data.parts import Parts
from credit.data.source import Remote
from credit.data.split import split
from credit.events import RunError, Started
from credit.train import run
from tests.credit.data_files import RANDOM

Arrays = dict[str, np.ndarray]
SETS = [spec.BreastMNIST, spec.RetinaMNIST]
"""A grey one and one in colour, the smallest."""


def arrays(dataset: type[spec.Images]) -> Arrays:
    channels, height, width = dataset.shape
    shape = (height, width) if channels == 1 else (height, width, channels)
    numbers = {"train": dataset.train_images, "val": dataset.validation_images, "test": dataset.test_images}
    made = {f"{split}_images": RANDOM.integers(0, 256, (n, *shape), np.uint8) for split, n in numbers.items()}
    labels = {f"{split}_labels": RANDOM.integers(0, dataset.classes, (n, 1), np.uint8) for split, n in numbers.items()}
    return made | labels


def place(monkeypatch: pytest.MonkeyPatch, dataset: type[spec.Images], folder: Path, made: Arrays) -> Path:
    """An npz file that is the official one as far as its MD5 goes."""
    source = DATASETS[dataset]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.name}.npz"
    np.savez_compressed(path, **made)
    layout = replace(source.layouts[0], archive=hashlib.md5(path.read_bytes()).hexdigest(), remotes=())
    monkeypatch.setitem(DATASETS, dataset, replace(source, layouts=(layout,)))
    return path


def message(dataset: type[spec.Images], folder: Path, cache: Path) -> str:
    with pytest.raises(RunError) as failure:
        load(dataset(), datasets=folder, cache=cache)
    assert failure.value.code == "dataset_unavailable"
    return str(failure.value)


@pytest.mark.parametrize("dataset", SETS)
def test_three_splits_are_read_and_the_middle_one_validates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: type[spec.Images]
) -> None:
    made = arrays(dataset)
    place(monkeypatch, dataset, tmp_path / "sets", made)
    images = load(dataset(), datasets=tmp_path / "sets", cache=tmp_path / "cache")
    loaded = {"train": images.train_x, "val": images.validation_x, "test": images.test_x}
    for name, x in loaded.items():
        assert x is not None
        official = made[f"{name}_images"]
        official = official[:, None] if official.ndim == 3 else official.transpose(0, 3, 1, 2)
        assert (x.numpy() == official).all()
    assert images.train_y.tolist() == made["train_labels"][:, 0].tolist()
    splits = split(images, dataset(train_samples=20), torch.device("cpu"))
    assert splits.validation is not None
    assert splits.validation.y.tolist() == made["val_labels"][:, 0].tolist()
    assert (len(splits.train), len(splits.test)) == (20, dataset.test_images)
    x, _ = splits.test.batch(torch.arange(3))
    assert torch.allclose(x, images.test_x[:3] / 127.5 - 1, atol=1e-6)
    again = load(dataset(), datasets=None, cache=tmp_path / "cache")
    assert again.sha256 == images.sha256
    assert again.validation_y is not None
    assert torch.equal(again.validation_y, splits.validation.y)


def test_a_file_of_another_md5_is_named(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "breastmnist.npz", **arrays(spec.BreastMNIST))
    said = message(spec.BreastMNIST, tmp_path, tmp_path / "cache")
    assert f"{tmp_path / 'breastmnist.npz'} has the MD5" in said
    assert "750601b1f35ba3300ea97c75c52ff8f6" in said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"val_labels": None}, r"lacks val_labels.npy"),
        ({"train_images": np.zeros((545, 28, 28), np.uint8)}, r"the shape (546, 1), not (545, 1)"),
        ({"test_images": np.zeros((156, 64, 64), np.uint8)}, "test images (156, 1, 64, 64), not 156 × 1 × 28 × 28"),
        ({"train_labels": np.full((546, 1), 2, np.uint8)}, "the label 2; there are 2 classes"),
        ({"train_labels": np.array([[None]] * 546)}, "Object arrays cannot be loaded"),
    ],
)
def test_what_does_not_fit_the_menu_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Arrays, problem: str
) -> None:
    made = {name: array for name, array in (arrays(spec.BreastMNIST) | change).items() if array is not None}
    path = place(monkeypatch, spec.BreastMNIST, tmp_path, made)
    said = message(spec.BreastMNIST, tmp_path, tmp_path / "cache")
    assert str(path) in said
    assert problem in said


def test_what_is_looked_for_and_where_it_comes_from_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DATASETS[spec.OrganAMNIST]
    assert isinstance(source, Parts)
    assert source.layouts[0].remotes[0].name == "organamnist.npz"
    remote = replace(source.layouts[0].remotes[0], url="http://127.0.0.1:9/organamnist.npz?download=1")
    moved = replace(source, layouts=(replace(source.layouts[0], remotes=(remote,)),))
    monkeypatch.setitem(DATASETS, spec.OrganAMNIST, moved)
    said = message(spec.OrganAMNIST, tmp_path, tmp_path / "cache")
    assert "looked for organamnist.npz in" in said
    assert "http://127.0.0.1:9/organamnist.npz?download=1" in said


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_run_tells_how_far_its_download_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(monkeypatch, spec.BreastMNIST, tmp_path / "site", arrays(spec.BreastMNIST))
    chosen = spec.Run(
        method=spec.BP(),
        model=spec.MLP(hidden=(4,)),
        dataset=spec.BreastMNIST(),
        training=spec.Training(epochs=1, seed=0, threads=1, device="cpu"),
        alignment=spec.Alignment(every="never"),
    )
    told: list[tuple[int, int]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site"))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        source = DATASETS[spec.BreastMNIST]
        layout = source.layouts[0]
        assert layout.archive
        remote = Remote(
            url=f"http://127.0.0.1:{server.server_port}/breastmnist.npz?download=1", checksum=layout.archive
        )
        served = replace(source, layouts=(replace(layout, remotes=(remote,)),))
        monkeypatch.setitem(DATASETS, spec.BreastMNIST, served)
        events = run(chosen, datasets=None, cache=tmp_path, progress=lambda done, total: told.append((done, total)))
        assert isinstance(next(events), Started)
        server.shutdown()
        thread.join()
    events.close()
    size = path.stat().st_size
    assert told[-1] == (size, size)
    assert (tmp_path / "breastmnist" / "breastmnist.npz").read_bytes() == path.read_bytes()
