"""A run that was interrupted ends with the very numbers of one that was not."""

import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from credit import checkpoint, spec
from credit.events import Checkpointed, Finished, Started, Troubled, from_json
from credit.train import run
from tests.credit.builders import METHODS, fitting
from tests.credit.test_train import comparable, small

SCHEDULED = spec.AdamW(lr=1e-3, weight_decay=0.01, schedule=spec.Cosine())
RUNS = {name: fitting(name, hidden=(32, 24), rich=True) for name in METHODS} | {
    "dropout, schedule": {
        "model": spec.MLP(hidden=(32, 24), dropout=0.3, batch_norm=True),
        "optimizer": SCHEDULED,
    },
    "convolutions, augmented": {
        "method": spec.BP(),
        "model": spec.LeNet(),
        "dataset": spec.FashionMNISTMini(train_samples=600, test_samples=100, augment="flip_crop"),
        "optimizer": spec.RMSprop(lr=1e-3),
    },
    "entropy": {
        "method": spec.SBD(regularizers=spec.Regularizers(entropy=spec.Entropy(weight=0.1))),
        "optimizer": spec.SGD(lr=0.01, momentum=0.9),
    },
    "probes in the midst": {"alignment": spec.Alignment(every=3, samples=32)},
}


def at(*steps):
    """Asks for a checkpoint after these steps."""
    taken = iter(range(1, 1_000_000))

    def save(folder):
        return lambda: folder / "state" if next(taken) in steps else None

    return save


def interrupted(chosen, folder, step):
    """What a run says until it is stopped by its checkpoint after ``step``."""
    told = []
    for event in run(chosen, datasets=None, cache=folder, save=at(step)(folder)):
        told.append(event)
        if isinstance(event, Checkpointed):
            return told
    raise AssertionError


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(name, tmp_path):
    chosen = small(**RUNS[name])
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    whole = list(run(chosen, datasets=None, cache=tmp_path, out=tmp_path / "whole"))
    steps = whole[0].steps
    for step in {1, 2, steps // 2 - 1, steps // 2, steps // 2 + 1, steps - 1}:
        told = interrupted(chosen, tmp_path, step)
        saved = checkpoint.read(tmp_path / "state", told[-1].sha256)
        assert saved.step == told[-1].step == step
        rest = list(run(chosen, datasets=None, cache=tmp_path, out=tmp_path / "parts", resume=saved))
        assert rest[0].step == step
        assert comparable(told + rest) == comparable(whole)
        for file in ("model.safetensors", "checkpoint"):
            one, two = load_file(tmp_path / "whole" / file), load_file(tmp_path / "parts" / file)
            assert one.keys() == two.keys()
            assert all(torch.equal(one[key], two[key]) for key in one if key != "ledger.step_seconds"), file


def test_a_run_can_be_interrupted_again_and_again(tmp_path):
    chosen = small(model=spec.MLP(hidden=(32, 24), dropout=0.2))
    whole = list(run(chosen, datasets=None, cache=tmp_path))
    told, saved = [], None
    while not told or not isinstance(told[-1], Finished):
        for event in run(chosen, datasets=None, cache=tmp_path, resume=saved, save=at(5)(tmp_path)):
            told.append(event)
            if isinstance(event, Checkpointed):
                saved = checkpoint.read(tmp_path / "state", event.sha256)
                break
    assert len([event for event in told if isinstance(event, Started)]) == 7
    assert comparable(told) == comparable(whole)


def test_checkpoints_change_nothing(tmp_path):
    without = list(run(small(), datasets=None, cache=tmp_path))
    with_all = list(run(small(), datasets=None, cache=tmp_path, save=lambda: tmp_path / "state"))
    assert comparable(without) == comparable(with_all)
    assert [event.step for event in with_all if isinstance(event, Checkpointed)] == list(range(1, 32))
    assert list(tmp_path.glob("*.part")) == []


def test_a_resumed_run_knows_what_it_knew(tmp_path):
    told = interrupted(small(), tmp_path, 20)
    saved = checkpoint.read(tmp_path / "state", told[-1].sha256)
    started = next(run(small(), datasets=None, cache=tmp_path, resume=saved))
    evaluated = next(event for event in told if event.type == "evaluated")
    assert started.known["test"] == evaluated.result()
    assert started.known["alignment"]["layers"]
    assert from_json(started.to_json()) == started


def damaged(path: Path, how: str) -> None:
    raw = bytearray(path.read_bytes())
    match how:
        case "truncated":
            path.write_bytes(raw[: len(raw) // 2])
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "a folder":
            path.unlink()
            path.mkdir()
        case "one bit":
            raw[-100] ^= 1
            path.write_bytes(raw)
        case "torn":
            path.write_bytes(raw[: len(raw) // 2] + b"\0" * (len(raw) - len(raw) // 2))


@pytest.mark.parametrize("how", ["truncated", "empty", "missing", "a folder", "one bit", "torn"])
def test_a_damaged_checkpoint_is_found(how, tmp_path):
    told = interrupted(small(), tmp_path, 3)
    damaged(tmp_path / "state", how)
    with pytest.raises(checkpoint.DamagedError):
        checkpoint.read(tmp_path / "state", told[-1].sha256)
    if (tmp_path / "state").is_file():  # nor is it read where somebody vouches for its bytes
        shutil.copy(tmp_path / "state", tmp_path / "copy")
        if how in {"truncated", "empty"}:
            with pytest.raises(checkpoint.DamagedError):
                checkpoint.read(tmp_path / "copy", checkpoint.sha256(tmp_path / "copy"))


def test_a_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    told = interrupted(small(), tmp_path, 3)
    monkeypatch.undo()
    with pytest.raises(checkpoint.DamagedError, match="format 2"):
        checkpoint.read(tmp_path / "state", told[-1].sha256)


def test_a_checkpoint_that_cannot_be_written_stops_nobody(tmp_path):
    nowhere = tmp_path / "nowhere" / "state"
    told = list(run(small(), datasets=None, cache=tmp_path, save=lambda: nowhere))
    troubles = [event for event in told if isinstance(event, Troubled)]
    assert len(troubles) == 31
    assert "step 1 could not be written" in troubles[0].message
    assert comparable(told) == comparable(list(run(small(), datasets=None, cache=tmp_path)))


def test_a_full_disk_leaves_no_draft_behind(tmp_path):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, unlimited[1]))
        return tmp_path / "state"

    for event in run(small(), datasets=None, cache=tmp_path, save=save):
        if event.type in {"troubled", "checkpointed"}:
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert event.type == "troubled"
    assert list(tmp_path.glob("state*")) == []


def test_the_metered_step_is_not_counted_as_a_slow_one(tmp_path):
    """A run whose only steps are the watched one and one other has a step time like any other run."""
    chosen = small(training=replace(small().training, epochs=1, batch_size=500))
    cost = list(run(chosen, datasets=None, cache=tmp_path))[-1].results["cost"]
    assert cost["train_seconds"] == pytest.approx(cost["step_ms_median"] / 1000 * 2)
