"""What a run does around its steps: the loop's own work, and probes of alignment, in shares of the steps."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import cycle
from typing import Any

import torch

from benchmarks.steps.contenders import setup_of
from benchmarks.steps.measure import Estimate, clock, interleave
from credit.alignment import Probe
from credit.results import Ledger
from credit.setup import Setup
from credit.tally import Tally
from credit.train import _step
from lab import specs

RUNS: dict[str, dict[str, Any]] = {
    "demo": {
        "model": {"name": "mlp", "hidden": [512, 512, 512], "activation": "tanh"},
        "dataset": "fashion-mnist-mini",
    },
    "launay_fc on cifar10": {"model": "launay_fc", "dataset": "cifar10"},
}
"""Trained by DFA in batches of 128, probed with the default of 512 samples."""


def turns(setup: Setup) -> dict[str, Callable[[], object]]:
    """A step, what the loop does around it, and a probe."""
    order = setup.streams.order(0, len(setup.splits.train))
    indices = cycle(setup.batches(order)[:-1])
    batch = setup.batch(next(indices), 0)
    loss, hits = _step(setup, *batch, 0)
    log_every, wanted = setup.chosen.training.log_every, setup.chosen.alignment
    tally, ledger = Tally(log_every, setup.device), Ledger(setup, None)
    probe = Probe(wanted, *setup.splits.test.batch(torch.arange(wanted.samples)))

    def loop() -> None:
        _, y_N = setup.batch(next(indices), 0)
        tally.add(loss, hits, len(y_N))
        if tally.steps == log_every:
            ledger.trained(tally.read())
            tally.clear()

    return {
        "step": lambda: _step(setup, *batch, 0),
        "loop": loop,
        "probe": lambda: probe.take(setup.net, setup.rule, 0, 0.0),
    }


def measure(name: str, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    training = {"seed": 0, "threads": threads, "device": "cpu"}
    run = specs.parse({"method": "dfa", "training": training, **RUNS[name]})
    setup = setup_of(run, run.dataset.train_images)
    clocks = {part: partial(clock, turn) for part, turn in turns(setup).items()}
    took, _ = interleave(clocks, rounds, seconds)
    loop, probe = ([a / b for a, b in zip(took[key], took["step"], strict=True)] for key in ("loop", "probe"))
    return {
        "rounds": len(probe),
        "loop": asdict(Estimate.of([100 * ratio for ratio in loop])),
        "probe": asdict(Estimate.of(probe)),
        "every_epoch": asdict(Estimate.of([100 * ratio / setup.steps_per_epoch for ratio in probe])),
        "every_50": asdict(Estimate.of([100 * ratio / 50 for ratio in probe])),
    }
