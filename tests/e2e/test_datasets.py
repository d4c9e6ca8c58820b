"""A user's own data set through the whole service: sent by the command, trained on, and run without the service."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from creditlab.client import Client
from tests.credit.upload_files import arrays, npz
from tests.stack import QUICK_SPEC, Up, alive, creditlab, poll, up

MEBI = 1 << 20
SENT = 200 * MEBI


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("datasets") / "data") as running:
        yield running


MODELS = {
    "mlp": {"name": "mlp", "hidden": [16]},
    "cnn": {"name": "cnn", "blocks": [{"channels": 4}], "hidden": [8]},
    "mlp_mixer": {"name": "mlp_mixer", "patch_size": 6, "width": 8, "depth": 1},
}


def test_send_train_and_delete(service: Up, tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    file.write_bytes(npz(**arrays(12, 18, 3)))
    sent = service.cli("datasets", "upload", str(file), "--name", "mine")
    assert sent.returncode == 0, sent.stderr
    dataset = sent.stdout.strip()
    assert dataset in service.cli("datasets").stdout
    assert json.loads(service.cli("datasets", "mine", "--json").stdout)["shape"] == [3, 12, 18]
    with Client(service.url) as client:
        assert client.upload_dataset(file, name="again")["id"] == dataset
        body = QUICK_SPEC | {"dataset": {"name": "mine"}, "training": {"epochs": 1, "batch_size": 6, "threads": 1}}
        ids = {kind: client.submit(body | {"model": model})["id"] for kind, model in MODELS.items()}
        for kind, job_id in ids.items():
            job = client.wait(job_id, timeout=120)
            assert job["status"] == "succeeded", (kind, job["error"])
            told = client.results(job_id)
            assert told["environment"]["dataset_sha256"] == job["spec"]["dataset"]["sha256"]
            again = creditlab("run", "-", "--json", env=service.env | data_of(service), stdin=json.dumps(job["spec"]))
            assert again.returncode == 0, again.stderr
            assert json.loads(again.stdout)["test"] == told["test"]
    assert service.cli("datasets", "delete", "mine").returncode == 0
    gone = service.cli("datasets", "delete", "mine")
    assert (gone.returncode, "no data set" in gone.stderr) == (1, True)


def data_of(service: Up) -> dict[str, str]:
    return {"CREDITLAB_DATA_DIR": str(service.folder)}


def form(parts: Iterator[bytes]) -> Iterator[bytes]:
    yield b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nlarge\r\n'
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="large.npz"\r\n\r\n'
    yield from parts
    yield b"\r\n--x--\r\n"


def peak_of(process: psutil.Process) -> int:
    """The most memory that a process ever had, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the kernel's own account of memory")
def test_the_api_does_not_grow_with_what_is_sent(service: Up, tmp_path: Path) -> None:
    """200 MiB of zeros, refused; then as much in a data set that is kept."""
    api = service.child("api")
    assert api is not None
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    before = api.memory_info().rss
    zeros = (bytes(MEBI) for _ in range(SENT // MEBI))
    refused = httpx.post(f"{service.url}/v1/datasets", content=form(zeros), headers=headers, timeout=120)
    assert refused.json()["code"] == "invalid_dataset"
    path = tmp_path / "large.npz"
    n = SENT // (128 * 128)
    test = {"x_test": np.zeros((4, 128, 128), np.uint8), "y_test": np.arange(4) % 2}
    np.savez(path, x_train=np.zeros((n, 128, 128), np.uint8), y_train=np.arange(n) % 2, **test)
    with Client(service.url) as client:
        kept = client.upload_dataset(path, name="large")
        client.delete_dataset("large")
    assert kept["train_images"] == n
    assert peak_of(api) - before < SENT / 4
    left = [one for one in api.children(recursive=True) if alive(one)]
    assert poll(lambda: not left)
    assert not list((service.folder / "datasets" / "uploads").iterdir())
