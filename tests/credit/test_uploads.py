"""Received files: decoded to what was in them, or refused with the reason, and bounded in what they take."""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch

from credit.data.images import Images, moments, read
from credit.uploads import Refused
from credit.uploads.__main__ import ingest
from tests.credit.upload_files import BAD, CLASSES, GOOD, arrays, folder_members, npz, one, zipped

MOST = 64 << 20


def order(parts, folder, **changed):
    """What the service orders of the process, the files in nameless temporary ones."""
    files = []
    for _, (name, raw) in parts:
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(raw)
            files.append((name, os.dup(file.fileno())))
    out = str(folder / "out.safetensors")
    return {"files": files, "out": out, "decoded_bytes": MOST, "memory_bytes": 1 << 31, "seconds": 60} | changed


def received(parts, folder, **changed):
    return ingest(order(parts, folder, **changed))


@pytest.mark.parametrize("case", GOOD)
def test_every_format(case, tmp_path):
    parts, shape, kind = GOOD[case]
    told = received(parts, tmp_path)
    assert (told["format"], told["shape"], told["classes"]) == (kind, shape, CLASSES)
    images = read(tmp_path / "out.safetensors")
    assert (images.sha256, len(images.train_x), len(images.test_x)) == (told["sha256"], 12, 6)
    assert list(images.train_x.shape[1:]) == shape
    assert images.train_y.bincount().tolist() == [4, 4, 4]


def test_pixels_and_labels_are_those_that_were_sent(tmp_path):
    sent = arrays(8, 7, 3)
    received(one(npz(**sent)), tmp_path)
    images = read(tmp_path / "out.safetensors")
    assert (images.train_x.numpy() == np.moveaxis(sent["x_train"], 3, 1)).all()
    assert (images.test_y.numpy() == sent["y_test"]).all()
    again = Images.of(**images.tensors())
    assert again.sha256 == images.sha256


def test_folders_name_the_classes(tmp_path):
    assert received(one(zipped(folder_members(4, 4))), tmp_path)["class_names"] == ("cat", "dog", "emu")


@pytest.mark.parametrize("case", BAD)
def test_refusals(case, tmp_path):
    parts, said = BAD[case]
    with pytest.raises(Refused, match=said):
        received(parts, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_decodes_to_more_than_allowed_is_refused(tmp_path):
    with pytest.raises(Refused, match="once"):
        received(one(npz()), tmp_path, decoded_bytes=1000)


def process(parts, folder, **changed):
    ordered = order(parts, folder, **changed)
    command = [sys.executable, "-m", "credit.uploads", json.dumps(ordered)]
    descriptors = [descriptor for _, descriptor in ordered["files"]]
    done = subprocess.run(command, pass_fds=descriptors, capture_output=True, text=True, check=False)
    for descriptor in descriptors:
        os.close(descriptor)
    return done


def test_the_process_has_no_torch_and_little_memory(tmp_path):
    done = process(one(npz()), tmp_path)
    assert json.loads(done.stdout)["classes"] == CLASSES, done.stderr
    large = one(npz(x_train=np.zeros((12, 1000, 1000, 3), np.uint8), x_test=np.zeros((6, 1000, 1000, 3), np.uint8)))
    starved = process(large, tmp_path, decoded_bytes=1 << 30, memory_bytes=100 << 20)
    assert starved.returncode or "refused" in json.loads(starved.stdout)


def test_moments_are_those_of_the_pixels():
    x = torch.from_numpy(arrays(9, 7, 3)["x_train"]).permute(0, 3, 1, 2)
    mean, deviation = moments(x)
    pixels = x.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert deviation == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    assert moments(torch.full((2, 1, 3, 3), 7, dtype=torch.uint8))[1] == (1.0,)
