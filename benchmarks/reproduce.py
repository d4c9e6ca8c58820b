"""Published tables, trained anew at a declared budget: paper's value, ours with its interval, goal reached or not.

    python benchmarks/reproduce.py PRESET [--cells NAME ...] [--datasets FOLDER] [--processes 2] [--list] [--quick]

A preset (``benchmarks/presets/NAME.json``) declares a table: what every cell shares (``base``), and per cell its
settings, the published value with its source, or null where none was published that we could read, and our goal. Each
run is a process of one thread. A finished run is a line of ``benchmarks/results/NAME.jsonl``, and is not run again.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from credit import spec
from credit.events import Aligned, Evaluated, Finished, RunError
from creditlab.seeds import half_width
from lab import specs
from lab.settings import Settings

HERE = Path(__file__).parent
PRESETS, RESULTS = HERE / "presets", HERE / "results"
QUICK = {
    "dataset": {"name": "fashion-mnist-mini", "train_samples": 2_000, "test_samples": 500},
    "training": {"epochs": 1},
}
"""What --quick puts in the place of a preset's own: it shows that the cells run, not what they reach."""

Record = dict[str, Any]


# ---- presets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One number of a table. All accuracies are in per cent."""

    name: str
    run: spec.Run
    """Without a seed."""
    published: str
    goal: float | None

    def seeded(self, seed: int) -> spec.Run:
        run = replace(self.run, training=replace(self.run.training, seed=seed))
        return specs.resolve(run, threads=1)


@dataclass(frozen=True)
class Preset:
    name: str
    title: str
    budget: str
    measure: str
    """``test``, or ``validation`` where the runs are a search for settings."""
    seeds: list[int]
    cells: list[Cell]


def merged(base: Any, over: Any) -> Any:
    """Objects merge by field, unless they name another kind; anything else replaces."""
    if not (isinstance(base, dict) and isinstance(over, dict)) or over.get("name", base.get("name")) != base.get(
        "name"
    ):
        return over
    return base | {key: merged(base.get(key), value) for key, value in over.items()}


def load(name: str, quick: Any = None) -> Preset:
    """A preset by name; ``quick`` is laid over every cell's settings."""
    body = json.loads((PRESETS / f"{name}.json").read_text())
    cells = [
        Cell(
            name=cell["cell"],
            run=specs.parse(merged(merged(body["base"], cell["spec"]), quick or {})),
            published=published(cell.get("published")),
            goal=cell.get("goal"),
        )
        for cell in body["cells"]
    ]
    return Preset(name, body["title"], body["budget"], body.get("measure", "test"), body["seeds"], cells)


def published(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value['value']} ({value['source']})"


def available() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.json"))


# ---- runs ------------------------------------------------------------------------------------------------------------


def train(chosen: spec.Run, datasets: Path | None, cache: Path) -> Record:
    """One run, as its line of results. A run that diverges is a result, too."""
    from credit.train import run  # noqa: PLC0415  (torch, in the child process alone)

    record: Record = {"seed": chosen.training.seed, "spec_sha256": specs.sha256(chosen), "spec": specs.to_dict(chosen)}
    curve: dict[str, list[float]] = {"validation": [], "test": []}
    try:
        for event in run(chosen, datasets=datasets, cache=cache):
            if isinstance(event, Aligned):
                record["alignment"] = {layer.layer: layer.delta_cosine for layer in event.layers}
                record["gauges"] = event.gauges
            if isinstance(event, Evaluated):
                curve[event.split].append(round(100 * event.accuracy, 2))
                record["layers"] = {layer: round(100 * accuracy, 2) for layer, accuracy in event.layers.items()}
            if isinstance(event, Finished):
                record["train"] = round(100 * event.results["train"]["accuracy"], 2)
                record["cost"] = event.results["cost"]
                record["environment"] = event.results["environment"]
    except RunError as error:
        if error.code != "diverged":
            raise RuntimeError(str(error)) from None  # a RunError does not survive the way between processes
        record["diverged"] = str(error)
    finished = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return record | {"accuracy": curve, "finished": finished}


def recorded(path: Path) -> dict[str, Record]:
    """Finished runs by the SHA-256 of their spec, which holds the seed."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["spec_sha256"]: record for record in map(json.loads, lines)}


class Place(NamedTuple):
    datasets: Path | None
    cache: Path
    results: Path


def reproduce(preset: Preset, seeds: Sequence[int], place: Place, processes: int) -> None:
    """Run what is missing of a preset and append each run as it ends."""
    path = place.results / f"{preset.name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = recorded(path)
    runs = [(cell, cell.seeded(seed)) for seed in seeds for cell in preset.cells]
    missing = [(cell, run) for cell, run in runs if specs.sha256(run) not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool:
        cells = {pool.submit(train, run, place.datasets, place.cache): cell for cell, run in missing}
        for record in finished(cells):
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")


def finished(cells: dict[Future[Record], Cell]) -> Iterator[Record]:
    """Lines of results as their runs end."""
    for future in as_completed(cells):
        record = {"cell": cells[future].name} | future.result()
        reached = record.get("diverged") or {
            split: values[-1] for split, values in record["accuracy"].items() if values
        }
        print(f"{record['finished']} {record['cell']}, seed {record['seed']}: {reached}", file=sys.stderr, flush=True)
        yield record


# ---- tables ----------------------------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A mean and the half width of its 95 % interval; NaN where there is but one value."""

    mean: float
    half: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        return cls(statistics.fmean(values), half_width(values), len(values))

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.n == 1 else f"{self.mean:.2f} ± {self.half:.2f}"


def row(cell: Cell, records: Sequence[Record], measure: str, wanted: int) -> str:
    """``| cell | published | ours | n | epochs | goal | reached |`` of the runs that there are, out of those wanted."""
    values = [record["accuracy"][measure][-1] for record in records if "diverged" not in record]
    diverged = len(records) - len(values)
    goal, reached = ("–", "–") if cell.goal is None else (f"≥ {cell.goal}", "not run")
    ours = "–"
    if values:
        estimate = Estimate.of(values)
        ours = str(estimate)
        if cell.goal is not None:
            reached = "yes" if estimate.mean >= cell.goal else "no"
            reached += "" if len(records) == wanted else " so far"
    if diverged:
        ours += f", {diverged} diverged"
        reached = "no" if cell.goal is not None else "–"
    columns = [cell.name, cell.published, ours, str(len(records)), str(cell.run.training.epochs), goal, reached]
    return "| " + " | ".join(columns) + " |"


def table(preset: Preset, seeds: Sequence[int], done: dict[str, Record]) -> str:
    """Markdown; ours is the mean over the seeds ± its 95 % interval, of the last epoch."""
    lines = [
        f"{preset.title}: {preset.measure} accuracy in per cent, last epoch, seeds {', '.join(map(str, seeds))}",
        "",
        "| cell | published | ours, mean ± 95 % interval | runs | epochs | goal | reached |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in preset.cells:
        found = (done.get(specs.sha256(run)) for run in map(cell.seeded, seeds))
        lines.append(row(cell, [record for record in found if record], preset.measure, len(seeds)))
    return "\n".join([*lines, "", f"Budget: {preset.budget}"])


# ---- command ---------------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings = Settings.load()
    parser.add_argument("preset", nargs="?", default="mnist_mlp", choices=available())
    parser.add_argument("--cells", nargs="+", help="these cells alone")
    parser.add_argument("--seeds", type=int, nargs="+", help="in the place of the preset's")
    parser.add_argument("--datasets", type=Path, default=settings.datasets_dir, help="folder of pre-placed data sets")
    parser.add_argument("--cache", type=Path, default=settings.cache_dir, help="folder for downloads")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the finished runs")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--list", action="store_true", help="print presets and cells, train nothing")
    parser.add_argument(
        "--table", action="store_true", help="print the table of the runs that there are, train nothing"
    )
    parser.add_argument("--quick", action="store_true", help="every cell once, one epoch of a tiny set; kept nowhere")
    return parser.parse_args()


def catalogue() -> str:
    presets = map(load, available())
    return "\n".join(f"{preset.name}: {preset.title}: {', '.join(c.name for c in preset.cells)}" for preset in presets)


def main() -> None:
    chosen = arguments()
    if chosen.list:
        print(catalogue())
        return
    preset = load(chosen.preset, QUICK if chosen.quick else None)
    if chosen.quick:
        cells = [replace(cell, published="–", goal=None) for cell in preset.cells]
        preset = replace(preset, title=f"{preset.title}, quick form", budget="shows that the cells run", cells=cells)
    if chosen.cells:
        unknown = set(chosen.cells) - {cell.name for cell in preset.cells}
        if unknown:
            sys.exit(f"no cell {', '.join(sorted(unknown))}; see --list")
        preset = replace(preset, cells=[cell for cell in preset.cells if cell.name in chosen.cells])
    seeds = chosen.seeds or (preset.seeds[:1] if chosen.quick else preset.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) if chosen.quick else chosen.results
        if not chosen.table:
            try:
                reproduce(preset, seeds, Place(chosen.datasets, chosen.cache, results), chosen.processes)
            except RuntimeError as error:
                sys.exit(str(error))
        print(table(preset, seeds, recorded(results / f"{preset.name}.jsonl")))


if __name__ == "__main__":
    main()
