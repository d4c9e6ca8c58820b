"""Files on their way to the store: one after the other, and the latest checkpoint instead of those that wait."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from credit.durable import sha256
from lab.attempts import Attempt
from lab.checkpoints import Stored
from lab.errors import StoreUnavailable
from lab.files import Folder
from lab.settings import Settings
from lab.specs import to_dict
from tests.factories import checkpointed, tiny
from worker.transfer import Transfer

ATTEMPT = Attempt("job_1", 1, 7, to_dict(tiny()), 10.0)


@pytest.fixture
def transfer(tmp_path: Path):
    folder = tmp_path / "attempt"
    folder.mkdir()
    made = Transfer(Folder(tmp_path / "store"), ATTEMPT, folder)
    yield made
    made.close()


def made(transfer: Transfer, step: int):
    event = replace(checkpointed(step), file=f"checkpoint-{step}")
    (transfer.folder / event.file).write_bytes(b"%d" % step)
    return event


def test_the_latest_checkpoint_overtakes_those_that_wait(transfer):
    gate = threading.Event()
    transfer.do(gate.wait)
    for step in (10, 20, 30):
        transfer.keep(made(transfer, step))
    assert transfer.busy(0)
    assert transfer.kept() == []
    assert [path.name for path in transfer.folder.iterdir()] == ["checkpoint-30"]
    gate.set()
    assert not transfer.busy(20)
    (event,) = transfer.kept()
    assert (event.step, event.file) == (30, "job_1/attempt-7/checkpoint-30")
    assert event.file in transfer.unnamed
    assert transfer.store.read(event.file, 0, 2) == b"30"
    assert list(transfer.folder.iterdir()) == []
    assert transfer.kept() == []


def test_what_the_store_refuses_is_told(transfer):
    transfer.store.path("job_1").parent.mkdir()
    transfer.store.path("job_1").touch()
    transfer.keep(made(transfer, 10))
    assert not transfer.busy(20)
    (event,) = transfer.kept()
    assert "the checkpoint of step 10 could not be stored" in event.message
    (transfer.folder / "out").mkdir()
    (transfer.folder / "out" / "spec.json").write_bytes(b"{}")
    with pytest.raises(StoreUnavailable):
        transfer.artifacts()


def test_no_more_is_fetched_than_is_needed(transfer, tmp_path):
    known = []
    for step in (30, 20, 10):
        file = tmp_path / "file"
        file.write_bytes(b"%d" % step)
        known.append(Stored(step, f"job_1/attempt-1/checkpoint-{step}", 2, sha256(file)))
        transfer.store.put(file, known[-1].location)
    transfer.store.remove(known[0].location)
    transfer.attempt = replace(ATTEMPT, checkpoints=tuple(known))
    fetched = transfer.fetch(Settings(data_dir=tmp_path / "data"))
    assert [one["step"] for one in fetched] == [30, 20]
    assert [Path(one["path"]).exists() for one in fetched] == [False, True]
