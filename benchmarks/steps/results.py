"""Measurements kept as JSON, one file per machine, and shown as tables."""

import json
import os
import platform
import re
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.steps.contenders import BASELINE, FUSED, Counts
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


def load(path: Path | None) -> dict[str, Any]:
    """What is kept of a machine; ``groups`` by net and batch, ``around`` by run."""
    if path is None or not path.exists():
        return {"groups": {}, "around": {}}
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def save(path: Path | None, kept: Mapping[str, Any]) -> None:
    if path is None:
        return
    text = json.dumps(kept, indent=1)
    on_one_line = re.sub(r"\[[^][{}]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    path.write_text(on_one_line + "\n")


def text(kept: Mapping[str, Any]) -> str:
    """Everything kept, as Markdown."""
    return "\n\n".join(
        [*(table(title, measured) for title, measured in kept["groups"].items()), around(kept["around"])]
    )


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
