"""Measurements kept as JSON, one file per machine, and shown as tables."""

import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.steps.contenders import BASELINE, FUSED, METHODS, NETS, Counts
from benchmarks.steps.measure import ratios

RESULTS = Path(__file__).parent.parent / "results"
MIB = 2**20


def machine(device: torch.device, threads: int, optimizer: str) -> dict[str, Any]:
    """What the numbers depend on besides the code; no names of hosts."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (model := re.search(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE)):
        cpu = model[1]
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": gpu,
        "threads": threads,
        "torch": torch.__version__,
        "optimizer": optimizer,
    }


def file_of(described: Mapping[str, Any]) -> Path:
    """Where the results of a machine are kept."""
    version, _, _ = described["torch"].partition("+")
    name = "{} {cores} cores {threads} threads torch {} {optimizer}".format(
        described["gpu"] or described["cpu"], version, **described
    )
    return RESULTS / f"steps-{re.sub(r'[^a-z0-9.]+', '-', name.lower()).strip('-')}.json"


def group(took: Mapping[str, list[float]], counts: Mapping[str, Counts], absent: Mapping[str, str], times: int) -> dict:
    """The rows of one net and batch."""
    base = counts[BASELINE]
    rows = {
        name: {
            "time": asdict(ratios(took[name], took[BASELINE])),
            "time_of_fused": asdict(ratios(took[name], took[FUSED])) if FUSED in took else None,
            "milliseconds": [round(1e3 * seconds, 3) for seconds in took[name]],
            "arithmetic": None if count.limit is None else count.limit / base.flops,
            "done": count.flops / base.flops,
            "peak": count.peak_bytes / base.peak_bytes,
            "saved": count.saved_bytes / base.saved_bytes,
            **asdict(count),
        }
        for name, count in counts.items()
    }
    return {
        "measured": date.today().isoformat(),  # noqa: DTZ011  (of the machine)
        "rounds": len(took[BASELINE]),
        "steps_per_turn": times,
        "rows": rows,
        "absent": dict(absent),
    }


def load(path: Path) -> dict[str, Any]:
    """What is kept of a machine; ``groups`` by net and batch, ``around`` by run."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"groups": {}, "around": {}}
    return kept


def keep(path: Path | None, described: Mapping[str, Any], part: str, title: str, measured: Mapping[str, Any]) -> None:
    """Store one measurement; all others in the file stay as they are."""
    if path is None:
        return
    kept = load(path)
    kept["machine"] = described
    kept[part][title] = measured
    text = json.dumps(kept, indent=1)
    path.write_text(re.sub(r"\[[^][{}]*\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n")


def text(kept: Mapping[str, Any]) -> str:
    """Everything kept, as Markdown: the long tables, then the short ones."""
    tables = [table(title, measured) for title, measured in in_order(kept["groups"])]
    return "\n\n".join([*tables, summary(kept["groups"]), around(kept["around"])])


def in_order(groups: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Nets as they are listed, batches by size, whenever they were measured."""

    def place(item: tuple[str, Any]) -> tuple[int, int]:
        net, _, batch = item[0].partition(", batch ")
        return list(NETS).index(net), int(batch)

    return sorted(groups.items(), key=place)


def summary(groups: Mapping[str, Any]) -> str:
    """Markdown, a row a contender, a column a net and batch: medians of the time over plain PyTorch's, and peaks."""
    columns = in_order(groups)
    names = [name for name in METHODS if any(name in measured["rows"] for _, measured in columns)]
    titles = [title.replace(", batch", "") for title, _ in columns]

    def part(title: str, value: Callable[[Mapping[str, Any]], float]) -> list[str]:
        lines = ["| " + " | ".join([title, *titles]) + " |", "| --- " * (len(columns) + 1) + "|"]
        for name in names:
            cells = [f"{value(of['rows'][name]):.2f}" if name in of["rows"] else "–" for _, of in columns]
            lines.append("| " + " | ".join([name, *cells]) + " |")
        return lines

    times = part("time / torch bp", lambda row: row["time"]["median"])
    peaks = part("peak / torch bp", lambda row: row["peak"])
    return "\n".join(["### Medians", "", *times, "", *peaks])


def table(title: str, measured: Mapping[str, Any]) -> str:
    """Markdown, a row a contender."""
    lines = [
        f"### {title}",
        "",
        "| | time / torch bp | / fused | ms | FLOPs: limit | done | peak / torch bp | MiB | saved / torch bp | MiB |",
        "| --- " * 10 + "|",
    ]
    for name, row in measured["rows"].items():
        cells = [
            name,
            interval(row["time"], 2),
            "–" if row["time_of_fused"] is None else interval(row["time_of_fused"], 2),
            f"{statistics.median(row['milliseconds']):.1f}",
            "–" if row["arithmetic"] is None else f"{row['arithmetic']:.2f}",
            f"{row['done']:.2f}",
            f"{row['peak']:.2f}",
            f"{row['peak_bytes'] / MIB:.1f}",
            f"{row['saved']:.2f}",
            f"{row['saved_bytes'] / MIB:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{measured['rounds']} rounds, turns of {measured['steps_per_turn']} steps, {measured['measured']}.",
        "",
    ]
    lines += [f"- {name}: {reason}" for name, reason in measured["absent"].items()]
    return "\n".join(lines)


def interval(estimate: Mapping[str, float], digits: int) -> str:
    return "{:.{digits}f} [{:.{digits}f}, {:.{digits}f}]".format(*estimate.values(), digits=digits)


def around(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, a row a run: what is not a training step."""
    lines = [
        "### Around the steps",
        "",
        "| DFA, batch 128 | loop's own work, % of the steps | a probe, in steps | every epoch, % | every 50 steps, % |",
        "| --- " * 5 + "|",
    ]
    for name, row in measured.items():
        cells = [interval(row[key], 2) for key in ("loop", "probe", "every_epoch", "every_50")]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)
