"""What the training loop takes beside the step itself: fetching batches, adding up losses and hits, telling about them.

    python benchmarks/overhead.py [--rounds 9] [--seconds 2] [--threads 2] [--quick]

Rounds of the loop (``credit.train.run``, its ``train_seconds``) and of the bare step (``rule.assign``, the hand-over
and the optimizer's step, on one batch that is there) in turn; the median of the rounds' quotients, and their quartiles.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from credit import spec, train
from credit.events import Finished
from credit.rule import hand_over
from credit.setup import Setup, build
from lab import specs

NETS: dict[str, dict[str, Any]] = {
    "mlp 2 × 64, batch 50": {"model": {"name": "mlp", "hidden": [64, 64]}, "training": {"batch_size": 50}},
    "mlp 3 × 512, batch 128": {"model": {"name": "mlp", "hidden": [512] * 3}, "training": {"batch_size": 128}},
    "launay_fc, batch 128": {"model": "launay_fc", "training": {"batch_size": 128}},
}
METHODS = ["bp", "dfa"]
CACHE = Path(tempfile.gettempdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2, help="about so long takes a round of either kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two rounds of a fifth of a second")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 2, 0.2
    print(f"{'':32}{'bare step':>11}{'loop adds':>11}{'quartiles':>20}")
    for net, fields in NETS.items():
        for method in METHODS:
            bare, shares = measure(wanted(method, fields, chosen.threads), chosen.rounds, chosen.seconds)
            low, middle, high = statistics.quantiles(shares, n=4, method="inclusive")
            print(f"{f'{method}, {net}':32}{1000 * bare:8.2f} ms{middle:10.1%}{low:12.1%} –{high:6.1%}")


def wanted(method: str, fields: dict[str, Any], threads: int) -> spec.Run:
    training = fields["training"] | {"seed": 0, "threads": threads, "device": "cpu"}
    body = {"method": method, "dataset": "fashion-mnist-mini", "alignment": {"every": "never"}}
    return specs.resolve(specs.parse(body | {"model": fields["model"], "training": training}), threads=threads)


def measure(run: spec.Run, rounds: int, seconds: float) -> tuple[float, list[float]]:
    """Median seconds of a bare step, and by how much the loop's step takes longer, round by round."""
    setup = build(run, None, CACHE)
    step_by_step(setup, 10)
    steps = max(1, round(seconds / step_by_step(setup, 10)))
    longer = replace(run, training=replace(run.training, epochs=max(1, round(steps / setup.steps_per_epoch))))
    looped(longer)
    pairs = [(step_by_step(setup, steps), looped(longer)) for _ in range(rounds)]
    return statistics.median(bare for bare, _ in pairs), [loop / bare - 1 for bare, loop in pairs]


def step_by_step(setup: Setup, steps: int) -> float:
    """Seconds of a step that is given its batch and tells nobody anything."""
    order = setup.streams.order(0, len(setup.splits.train))
    x, y_N = setup.splits.train.batch(setup.batches(order)[0])
    began = time.perf_counter()
    for _ in range(steps):
        credit = setup.rule.assign(setup.net, x, y_N)
        hand_over(credit, setup.net, setup.rule)
        setup.optimizer.step()
    return (time.perf_counter() - began) / steps


def looped(run: spec.Run) -> float:
    """Seconds of a step in the training loop, as the results have them: without evaluations."""
    *_, last = train.run(run, datasets=None, cache=CACHE)
    assert isinstance(last, Finished)
    return float(last.results["cost"]["train_seconds"]) / last.step


if __name__ == "__main__":
    main()
