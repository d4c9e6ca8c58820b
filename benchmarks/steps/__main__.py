"""The training step: our methods against plain PyTorch, BioTorch and the arithmetic of each rule, in ratios.

    python -m benchmarks.steps [--nets N ...] [--batches B ...] [--methods M ...] [--threads 2] [--rounds 25] [--quick]

All contenders of one net and batch take turns (``measure.py``); every ratio is that of two times of one round, and the
table has the median of these and its 95 % interval. Ours is the step of the training loop itself, in a process prepared
as a training process is; all others run in a second, plain process (``stage.py``), and one of both works at a time.

- ``torch bp``: the tutorial's loop with torch's default optimizer. ``torch bp fused``: with the fused one, as all
  others. ``torch bp checkpoints``: every layer but the last is run again on the way back. ``torch bp fused, our
  process``: the fused loop beside our methods, with their heap.
- FLOPs: ``limit`` is the arithmetic of the rule's equations over backpropagation's, ``done`` what was counted.
- Peak and saved bytes are counted, not sampled (``credit/meter.py``): what two steps in a row made and held,
  parameters, the optimizer's state and the batch left out. What checkpoints keep escapes the count of saved bytes, not
  the peak.
- BioTorch takes part where it is installed: ``pip install --no-deps biotorch``.

Results are kept in ``benchmarks/results/steps-*.json``, a file per machine; nets and batches not measured this time
stay as they were. ``--show`` measures nothing, prints what is kept and draws it.
"""

import argparse
from itertools import product
from pathlib import Path

import torch

from benchmarks.steps import around, results
from benchmarks.steps.contenders import BASELINE, METHODS, NETS, OPTIMIZERS, OURS, PREPARED, Group
from benchmarks.steps.figure import draw
from benchmarks.steps.measure import interleave
from benchmarks.steps.stage import Stage
from credit.setup import pick_device, prepare

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "steps.png"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="*", choices=NETS, default=list(NETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--around", nargs="*", choices=around.RUNS, default=list(around.RUNS))
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=25, help="at most so many of each net and batch")
    parser.add_argument("--seconds", type=float, default=60, help="no further round of a net and batch after these")
    parser.add_argument("--json", type=Path, help="another place for the results")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where they are drawn")
    parser.add_argument("--quick", action="store_true", help="the first net, a batch of 32, two rounds, nothing kept")
    parser.add_argument("--show", action="store_true", help="print and draw what is kept")
    return parser.parse_args()


def measure(chosen: argparse.Namespace, net: str, batch: int, device: torch.device) -> dict:
    """One net and batch."""
    group = Group(net, batch, chosen.optimizer, chosen.threads, device)
    names = (BASELINE, *(name for name in chosen.methods if name != BASELINE))
    ours = [name for name in names if name in {*OURS, PREPARED}]
    with (
        Stage(group, [name for name in names if name not in ours], prepared=False) as plain,
        Stage(group, ours, prepared=True) as prepared,
    ):
        counts, absent = plain.counts | prepared.counts, plain.absent | prepared.absent
        clocks = plain.clocks() | prepared.clocks()
        took, times = interleave(
            {name: clocks[name] for name in names if name in counts}, chosen.rounds, chosen.seconds
        )
    return results.group(took, {name: counts[name] for name in took}, absent, times)


def main() -> None:
    chosen = arguments()
    if chosen.quick:
        chosen.nets, chosen.batches, chosen.around, chosen.rounds = chosen.nets[:1], [32], chosen.around[:1], 2
    prepare(chosen.threads)
    device = pick_device(chosen.device)
    described = results.machine(device, chosen.threads, chosen.optimizer)
    path = chosen.json or (None if chosen.quick else results.file_of(described))
    if not chosen.show:
        for net, batch in product(chosen.nets, chosen.batches):
            title, measured = f"{net}, batch {batch}", measure(chosen, net, batch, device)
            print(results.table(title, measured), flush=True)
            results.keep(path, described, "groups", title, measured)
        for name in chosen.around:
            measured = around.measure(name, chosen.threads, chosen.rounds, chosen.seconds)
            print(results.around({name: measured}), flush=True)
            results.keep(path, described, "around", name, measured)
    if path:
        print(results.text(results.load(path)) if chosen.show else results.summary(results.load(path)["groups"]))
        draw(results.load(path), chosen.picture)


if __name__ == "__main__":
    main()
