"""The comparison with published tables: valid presets, right arithmetic, and nothing finished is run again."""

import json
import math
import subprocess
import sys
from functools import partial

import pytest
import torch

from benchmarks import memory, reproduce
from benchmarks.steps.contenders import BASELINE, CHECKPOINTS, FUSED, NETS, Group
from benchmarks.steps.measure import Estimate, interleave, ratios
from credit.flow import backward
from credit.losses import LOSSES
from credit.nets import build_net
from lab import specs


@pytest.fixture
def preset():
    """Two cells, and their runs with seeds 0 and 1."""
    run = specs.parse({"method": "dfa", "model": "mlp", "dataset": "fashion-mnist-mini"})
    cells = [
        reproduce.Cell(name="a", run=run, published="98.1 (paper)", goal=97.0),
        reproduce.Cell(
            name="b", run=specs.parse({"method": "bp", "model": "mlp", "dataset": "mnist"}), published="–", goal=None
        ),
    ]
    return reproduce.Preset("name", "Title", "budget", "test", [0, 1], cells)


def record(cell, seed, accuracy):
    return {
        "cell": cell.name,
        "seed": seed,
        "spec_sha256": specs.sha256(cell.seeded(seed)),
        "accuracy": {"test": [10.0, accuracy]},
    }


def test_every_preset_is_a_table_of_valid_specs_without_seeds():
    assert "mnist_mlp" in reproduce.available()
    for name in reproduce.available():
        for quick in (None, reproduce.QUICK):
            preset = reproduce.load(name, quick)
            names = [cell.name for cell in preset.cells]
            assert len(set(names)) == len(names)
            runs = {specs.sha256(cell.seeded(seed)) for cell in preset.cells for seed in preset.seeds}
            assert quick or len(runs) == len(preset.cells) * len(preset.seeds), f"{name}: two cells are one run"
            assert all(cell.run.training.seed is None for cell in preset.cells)


def test_a_search_shares_no_seed_with_the_table_it_serves():
    for name in reproduce.available():
        if name.endswith("_search"):
            table = reproduce.load(name.removesuffix("_search"))
            assert not set(reproduce.load(name).seeds) & set(table.seeds)


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ([97.0, 98.0], 12.706 * math.sqrt(0.5) / math.sqrt(2)),
        ([97.0, 98.0, 99.0], 4.303 / math.sqrt(3)),
        ([98.0, 98.0, 98.0], 0),
    ],
)
def test_an_interval_is_students(values, half):
    estimate = reproduce.Estimate.of(values)
    assert estimate.mean == pytest.approx(sum(values) / len(values))
    assert estimate.half == pytest.approx(half)


def test_one_run_has_no_interval():
    assert math.isnan(reproduce.Estimate.of([98.0]).half)
    assert str(reproduce.Estimate.of([98.0])) == "98.00"


def rows(preset, records):
    done = {record["spec_sha256"]: record for record in records}
    return [
        line for line in reproduce.table(preset, preset.seeds, done).splitlines() if line.startswith(("| a", "| b"))
    ]


def test_a_goal_is_reached_by_the_mean_of_the_last_epoch(preset):
    a, _ = preset.cells
    met, _ = rows(preset, [record(a, 0, 97.5), record(a, 1, 96.5)])
    assert met.startswith("| a | 98.1 (paper) | 97.00 ± ")
    assert met.endswith("| 2 | 5 | ≥ 97.0 | yes |")
    missed, _ = rows(preset, [record(a, 0, 97.5), record(a, 1, 96.4)])
    assert missed.endswith("| no |")


def test_a_goal_is_provisional_until_all_seeds_have_run(preset):
    partial, _ = rows(preset, [record(preset.cells[0], 0, 97.5)])
    assert partial.endswith("| 97.50 | 1 | 5 | ≥ 97.0 | yes so far |")


def test_a_cell_that_was_not_run_says_so(preset):
    a, b = rows(preset, [])
    assert a.endswith("| – | 0 | 5 | ≥ 97.0 | not run |")
    assert b.endswith("| – | 0 | 5 | – | – |")


def test_a_run_that_diverged_counts_against_its_goal(preset):
    a, _ = preset.cells
    gone = record(a, 1, 0.0) | {"diverged": "the training loss was nan"}
    line, _ = rows(preset, [record(a, 0, 99.0), gone])
    assert "99.00, 1 diverged | 2 |" in line
    assert line.endswith("| no |")


def test_settings_merge_by_field_unless_the_kind_changes():
    base = {"optimizer": {"name": "adam", "lr": 0.001}, "training": {"epochs": 4}}
    assert reproduce.merged(base, {"optimizer": {"lr": 0.1}})["optimizer"] == {"name": "adam", "lr": 0.1}
    assert reproduce.merged(base, {"optimizer": {"name": "sgd"}})["optimizer"] == {"name": "sgd"}
    assert reproduce.merged(base, {"training": {"batch_size": 64}})["training"] == {"epochs": 4, "batch_size": 64}


def test_finished_runs_are_kept_and_not_run_again(preset, tmp_path):
    run = {
        "dataset": {"name": "fashion-mnist-mini", "train_samples": 256, "test_samples": 128},
        "training": {"epochs": 1},
    }
    cell = reproduce.Cell("shallow", specs.parse({"method": "shallow", "model": "mlp", **run}), "–", None)
    small = reproduce.Preset("small", "Title", "budget", "test", [0], [cell])
    place = reproduce.Place(None, tmp_path, tmp_path)
    reproduce.reproduce(small, [0], place, 1)
    before = (tmp_path / "small.jsonl").read_text()
    reproduce.reproduce(small, [0], place, 1)
    assert (tmp_path / "small.jsonl").read_text() == before
    (only,) = reproduce.recorded(tmp_path / "small.jsonl").values()
    assert only["accuracy"]["test"][-1] > 10
    assert "| 1 | 1 | – | – |" in reproduce.table(small, [0], {only["spec_sha256"]: only})


def test_checkpoints_halve_the_memory_of_backpropagation_and_leave_its_gradients():
    model = {"name": "mlp_mixer", "patch_size": 4, "depth": 4, "width": 32, "token_width": 16, "channel_width": 128}
    run = specs.parse({"method": "bp", "model": model, "dataset": "pathmnist", "training": {"batch_size": 16}})
    assert memory.measure(run, checkpoints=True).step < memory.measure(run).step / 2

    generator = torch.Generator().manual_seed(0)
    net = build_net(run.model, run.method, memory.SHAPE, memory.CLASSES, generator)
    x, y_N = torch.randn(16, *memory.SHAPE), torch.arange(16) % memory.CLASSES
    plain, again = (
        backward(blocks, x, y_N, LOSSES["cross_entropy"]) for blocks in (net, [*map(memory.Recomputed, net)])
    )
    for one, other in zip(plain.blocks, again.blocks, strict=True):
        assert all(map(torch.equal, one, other))


# ---- the training step against others' ----------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
def test_the_plain_net_is_ours(net):
    """As many parameters (asserted where it is made), as many operations; checkpoints run layers again."""
    group = Group(net, 4, "adam", 1, torch.device("cpu"))
    (plain, checkpoints, bp), absent = group.enter((BASELINE, CHECKPOINTS, "bp"))
    plain, checkpoints, bp = plain.count(), checkpoints.count(), bp.count()
    assert not absent
    assert plain.flops == bp.flops == bp.limit
    assert checkpoints.flops > plain.flops
    assert plain.saved_bytes == bp.saved_bytes


def test_the_gradients_of_the_last_step_count_while_they_are_held():
    """Torch's loop drops them before the next forward pass, one that keeps them holds twice as much."""
    (kept, dropped), _ = Group("launay_fc", 4, "sgd", 1, torch.device("cpu")).enter((BASELINE, FUSED))
    gradients = sum(tensor.nbytes for tensor in kept.state())
    assert gradients < dropped.count().peak_bytes < 1.5 * gradients


def test_a_contender_that_cannot_train_a_net_says_why():
    ready, absent = Group("mlp_mixer", 4, "adam", 1, torch.device("cpu")).enter(("ff", "biotorch dfa"))
    assert not ready
    assert absent["ff"].startswith("ff trains dense models only")
    assert absent["biotorch dfa"]


def test_turns_rotate_and_are_as_long_for_everybody():
    calls = []

    def clock(name, times):
        calls.append(name)
        return float(times)

    took, times = interleave({name: partial(clock, name) for name in "ab"}, 2, 60, turn=0)
    assert {name: len(seconds) for name, seconds in took.items()} == {"a": 2, "b": 2}
    assert times == 1
    assert calls == ["a", "b", "a", *"ab", *"ba"]  # each once, the baseline once more, then the rounds


@pytest.mark.parametrize(("n", "k"), [(5, 0), (6, 0), (9, 1), (25, 7)])
def test_an_interval_of_a_median_is_two_order_statistics(n, k):
    """The tables of the sign test: ranks k + 1 and n − k."""
    estimate = Estimate.of([float(value) for value in reversed(range(n))])
    assert (estimate.median, estimate.low, estimate.high) == ((n - 1) / 2, k, n - 1 - k)


def test_ratios_are_taken_within_rounds():
    assert ratios([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == Estimate(2.0, 2.0, 2.0)


def test_the_table_is_kept_and_only_what_is_measured_again_changes(tmp_path):
    path = tmp_path / "kept.json"
    row = {"time": {"median": 1, "low": 1, "high": 1}, "peak": 1, "arithmetic": None}
    old = {"groups": {"mlp_mixer, batch 1": {"rows": {BASELINE: row}}}, "around": {"demo": {"rounds": 0}}}
    path.write_text(json.dumps(old))
    command = [sys.executable, "-m", "benchmarks.steps", "--quick", "--threads", "1", "--json", str(path)]
    command += ["--methods", "dfa", "ff", "--around", "--picture", str(tmp_path / "picture.png")]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    kept = json.loads(path.read_text())
    assert kept["around"] == old["around"]
    assert kept["groups"].pop("mlp_mixer, batch 1") == {"rows": {BASELINE: row}}
    (group,) = kept["groups"].values()
    assert list(group["rows"]) == [BASELINE, "dfa"]
    assert group["rows"]["dfa"]["arithmetic"] == pytest.approx(0.75, abs=0.01)
    assert group["rows"]["dfa"]["done"] == pytest.approx(group["rows"]["dfa"]["arithmetic"])
    assert f"| {BASELINE} | 1.00 [1.00, 1.00] |" in said
    assert "- ff: ff works with relu" in said
    assert (tmp_path / "picture.png").stat().st_size > 10_000
