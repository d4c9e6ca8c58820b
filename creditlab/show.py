"""What the command line prints: tables for reading, and the progress of jobs while one waits."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

JSON = dict[str, Any]

COLORS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}
PLAIN_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""


def console(*, stderr: bool = False) -> Console:
    """Where to print; a terminal's own width, a generous one elsewhere."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)


def table(*heads: str, rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A table of texts; every column after the first that holds numbers alone stands to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for place, head in enumerate(heads):
        numbers = bool(texts) and all(row[place][:1].isdigit() or row[place][:1] in "-–" for row in texts)
        shown.add_column(head, justify="right" if numbers and place else "left")
    for row in texts:
        shown.add_row(*(Text(cell, style=COLORS.get(cell, "")) for cell in row))
    return shown


def results(jobs: Sequence[JSON]) -> list[Table]:
    """Results of a job (the first) beside those of its twins, and its alignment per layer."""
    own = jobs[0]
    gaps = {twin["method"]: twin["gap"] for twin in own["pairing"].get("twins", ())}
    rows = []
    for place, job in enumerate(jobs):
        cost, to_bp = job.get("cost") or {}, gaps.get("bp")
        gap = gaps.get(job["method"]) if place else 0.0
        behind = None if to_bp is None or gap is None or job["method"] == "bp" else to_bp - gap
        rows.append(
            (
                job["method"],
                percent((job.get("test") or {}).get("accuracy")),
                "–" if behind is None else f"{100 * behind:.2f} pp",
                percent(job["pairing"].get("recovery")),
                unit(cost.get("step_ms_median"), "ms"),
                unit(cost.get("peak_memory_bytes"), "MiB", 2**-20),
            )
        )
    heads = ("method", "test accuracy", "gap to bp", "recovery", "step time", "peak memory")
    tables = [table(*heads, rows=rows)]
    if readouts := (own.get("test") or {}).get("layers"):
        alone = [(layer, percent(accuracy)) for layer, accuracy in readouts.items()]
        tables.append(table("readout of", "test accuracy", rows=alone))
    layers = (own.get("alignment") or {}).get("layers", [])
    if layers:
        heads = ("layer", "angle to BP", "cosine", "± std", "update cosine", "norm ratio")
        tables.append(table(*heads, rows=map(layer_row, layers), title=f"Alignment of {own['method']} with backprop"))
    return tables


def print_all(out: Console, parts: Iterable[Table | Text]) -> None:
    """Tables and texts with a blank line around each."""
    for one in parts:
        out.print()
        out.print(one)
    out.print()


def layer_row(layer: JSON) -> Sequence[str]:
    cosine = layer["delta_cosine"]
    return (
        layer["layer"],
        "–" if layer["delta_angle_degrees"] is None else f"{layer['delta_angle_degrees']:.1f}°",
        *(unit(value) for value in (cosine["mean"], cosine["std"], layer["update_cosine"], layer["norm_ratio"])),
    )


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def unit(value: float | None, name: str = "", factor: float = 1.0) -> str:
    return "–" if value is None else f"{value * factor:.3f} {name}".strip()


def standing(job: JSON) -> str:
    """Where a job is, in a few words."""
    progress = job.get("progress") or {}
    told = job["status"]
    if job.get("fetching"):
        told += f", {job['fetching']}"
    if told == "running" and progress.get("epochs"):
        told += f", epoch {progress['epoch']:.1f} of {progress['epochs']}"
        told += f", {progress['eta_seconds']:.0f} s left" if progress.get("eta_seconds") else ""
    if job.get("error"):
        told += f" ({job['error']['code']}): {job['error']['message']}"
    return str(told)


def fetched(job: JSON) -> float:
    """What part of a data set's download is there."""
    fetching = job.get("fetching")
    return fetching.received / fetching.size if fetching and fetching.size else 0.0


class Board:
    """Jobs and their progress while one waits: live bars on a terminal, elsewhere a line per change."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self.said: dict[str, tuple[str, int, int]] = {}
        self.bars: dict[str, TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), TextColumn("{task.fields[standing]}"))
        self.live = Progress(*columns, TimeElapsedColumn(), console=out) if out.is_terminal else None

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.live:
            self.live.stop()

    def update(self, job: JSON, note: str = "") -> None:
        """Show the job as it now is (the API's JSON, or as much of it as there is without the service) and a note."""
        told = ", ".join(filter(None, (standing(job), note)))
        progress, method, identity = job.get("progress") or {}, job["spec"]["method"]["name"], job.get("id", "")
        title = job.get("title") or method
        key = identity or title
        if self.live:
            if key not in self.bars:
                self.bars[key] = self.live.add_task(title, total=1.0, standing="")
            done = fetched(job) if job.get("fetching") else progress.get("fraction")
            self.live.update(self.bars[key], completed=done or 0.0, standing=told)
        elif self.said.get(key) != (state := (job["status"], int(progress.get("epoch") or 0), int(10 * fetched(job)))):
            self.said[key] = state
            self.out.print(f"{identity} {title}: {told}".strip(), markup=False, soft_wrap=True)
