"""The picture of a machine's results: what a step takes, and holds, of plain PyTorch's backpropagation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.steps.contenders import BASELINE
from benchmarks.steps.results import in_order

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito's, a batch size each: told apart by everybody."""


def draw(kept: Mapping[str, Any], path: Path) -> None:
    """A row of panels per net: time with intervals and the FLOP limit of each rule, and peak memory."""
    nets: dict[str, dict[str, Any]] = {}
    for title, measured in in_order(kept["groups"]):
        net, _, batch = title.partition(", ")
        nets.setdefault(net, {})[batch] = measured["rows"]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        names = [list(dict.fromkeys(name for rows in batches.values() for name in rows)) for batches in nets.values()]
        heights = [len(those) for those in names]
        figure = Figure(figsize=(9, 0.22 * sum(heights) + 0.7 * len(nets)), layout="constrained")
        panels = figure.subplots(len(nets), 2, squeeze=False, height_ratios=heights, sharey="row")
        for (time, memory), (net, batches), those in zip(panels, nets.items(), names, strict=True):
            times(time, batches, those)
            peaks(memory, batches, those)
            time.set_title(f"{net}: time of a step / torch bp", loc="left")
            memory.set_title("peak memory of a step / torch bp", loc="left")
            memory.tick_params(labelleft=False, left=False)
        panels[0][0].legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=130)


def rows(axes: Axes, names: list[str]) -> None:
    """The contenders from top to bottom, and the line of those who are as the baseline."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    axes.grid(axis="x", color="0.92", zorder=0)
    axes.set_axisbelow(True)


def times(axes: Axes, batches: Mapping[str, Any], names: list[str]) -> None:
    for k, (batch, measured) in enumerate(batches.items()):
        offset = 0.22 * (k - (len(batches) - 1) / 2) * 2
        for name, row in measured.items():
            at, time = names.index(name) + offset, row["time"]
            label = batch if name == BASELINE else None
            axes.plot([time["low"], time["high"]], [at, at], color=COLOURS[k], linewidth=1.5)
            axes.plot(time["median"], at, "o", color=COLOURS[k], markersize=4, label=label)
            if row["arithmetic"] is not None:
                limit = "FLOP limit" if k == 0 and name == "bp" else None
                axes.plot(row["arithmetic"], at, "|", color="black", markersize=7, label=limit)
    rows(axes, names)


def peaks(axes: Axes, batches: Mapping[str, Any], names: list[str]) -> None:
    for k, (_, measured) in enumerate(batches.items()):
        offset = 0.2 * (k - (len(batches) - 1) / 2) * 2
        places = [names.index(name) + offset for name in measured]
        axes.barh(places, [row["peak"] for row in measured.values()], height=0.36, color=COLOURS[k])
    rows(axes, names)
