"""Sixteen seeds of the demo's net trained together against one after the other, and of the same net in other widths.

    python benchmarks/members.py [--quick] [--threads 1] [--widths 16 64] [--rounds 2]

Both ways are the whole of a run in this process: data set, nets, training, probes of alignment and evaluations as the
demo has them, for one epoch. They take turns, and the figures are totals over all rounds, after a first run that is not
counted. ``credit.spec.together.pays`` follows the ratio. On a CUDA device where there is one.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from credit import spec, train
from credit.members import run_members
from credit.spec.together import pays
from creditlab.demo import SPEC
from lab import specs

SEEDS = 16
WIDTHS = (16, 32, 64, 128, 256, 512)
RESULTS = Path(__file__).parent / "results" / "members.json"


def runs(width: int, threads: int) -> list[spec.Run]:
    """The demo's run in another width, for each seed."""
    base = specs.parse({**SPEC, "controls": [], "model": {**SPEC["model"], "hidden": [width] * 3}})
    base = specs.resolve(base, threads=threads)
    return [replace(base, training=replace(base.training, epochs=1, seed=seed)) for seed in range(SEEDS)]


def alone(chosen: Sequence[spec.Run], cache: Path) -> float:
    began = time.perf_counter()
    for run in chosen:
        for _ in train.run(run, datasets=None, cache=cache):
            """Nobody listens."""
    return time.perf_counter() - began


def together(chosen: Sequence[spec.Run], cache: Path) -> float:
    began = time.perf_counter()
    for _ in run_members(chosen, datasets=None, cache=cache):
        """Nobody listens."""
    return time.perf_counter() - began


def measure(width: int, rounds: int, threads: int, cache: Path) -> dict[str, Any]:
    """Seconds of both ways, in turns."""
    chosen = runs(width, threads)
    taken = [(together(chosen, cache), alone(chosen, cache)) for _ in range(rounds)]
    one, apart = (sum(times) for times in zip(*taken, strict=True))
    return {
        "width": width,
        "together_seconds": one,
        "alone_seconds": apart,
        "ratio": one / apart,
        "rounds": [first / second for first, second in taken],
    }


def keep(setting: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """Write what was measured, beside the other widths that were measured on the same machine."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    others = known["widths"] if {name: known.get(name) for name in setting} == setting else []
    measured = {row["width"] for row in found}
    rows = sorted([*found, *(row for row in others if row["width"] not in measured)], key=lambda row: row["width"])
    RESULTS.write_text(json.dumps({**setting, "widths": rows}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two widths, one round; nothing is written")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both ways")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="of the three hidden layers")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    rounds, widths = (1, (16, 64)) if asked.quick else (asked.rounds, asked.widths)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {asked.threads} threads"
    print(f"{SEEDS} seeds, {device}\n\n| width | together s | alone s | ratio | pays |\n|{' --- |' * 5}")
    found = []
    with tempfile.TemporaryDirectory() as cache:
        measure(min(WIDTHS), 1, asked.threads, Path(cache))
        for width in widths:
            row = measure(width, rounds, asked.threads, Path(cache))
            found.append(row)
            seconds = f"{row['together_seconds']:.2f} | {row['alone_seconds']:.2f}"
            paying = "yes" if pays(runs(width, asked.threads)[0], SEEDS) else "no"
            print(f"| {width} | {seconds} | {row['ratio']:.2f} | {paying} |", flush=True)
    if not asked.quick:
        keep({"device": device, "machine": platform.machine(), "torch": torch.__version__, "seeds": SEEDS}, found)


if __name__ == "__main__":
    main()
