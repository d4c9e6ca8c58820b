"""A training step by two processes of one thread against one process of two threads, and of one.

    python benchmarks/devices.py [--quick]

The same global batch for all three, the loop's own step (``credit/train.py``), interleaved: every round takes a few
steps of each, so that what else the machine does is everybody's alike. The second process is a real one, started as the
training starts it; gradients are agreed on with gloo over the loopback device. Times are medians per step over the
rounds; ratios are medians of the rounds' own ratios. Results go to ``benchmarks/results/devices.json``.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch

from credit import spec
from credit.parallel import Group, Order, gathered
from credit.setup import Setup, build
from credit.train import _step

RESULTS = Path(__file__).parent / "results" / "devices.json"
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread": (2, 1)}
NETS: dict[str, spec.Model] = {
    "mlp 3×800": spec.MLP(hidden=(800, 800, 800), activation="tanh"),
    "cnn 32-64": spec.CNN(blocks=(spec.ConvBlock(channels=32), spec.ConvBlock(channels=64)), hidden=(128,)),
}
CASES = (("mlp 3×800", 128), ("mlp 3×800", 1024), ("cnn 32-64", 128))
METHOD = spec.DFA()


def run(model: spec.Model, batch: int, devices: int, threads: int) -> spec.Run:
    """Long enough that the other process never comes to its end before the measurement does."""
    training = spec.Training(
        epochs=1000, batch_size=batch, seed=0, threads=threads, device="cpu", devices=devices, log_every=1_000_000
    )
    return spec.Run(method=METHOD, model=model, dataset=spec.FashionMNISTMini(), training=training)


class Steps:
    """A run that takes steps when it is asked to: the same as the loop's, without its bookkeeping."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.step = setup, 0
        self.batches = self._batches()

    def _batches(self) -> Iterator[torch.Tensor]:
        for epoch in range(self.setup.chosen.training.epochs):
            yield from self.setup.batches(self.setup.streams.order(epoch, len(self.setup.splits.train)))

    def take(self, count: int) -> float:
        """Seconds per step."""
        training = self.setup.chosen.training
        assert training.threads is not None
        torch.set_num_threads(training.threads)
        began = time.perf_counter()
        for _ in range(count):
            x, y_N = self.setup.batch(next(self.batches), self.step)
            _step(self.setup, x, y_N, self.step)
            if self.step == 1:  # the other process watches its second step, and asks what it cost
                self.setup.group.total(0)
            self.step += 1
        return (time.perf_counter() - began) / count


def start(chosen: spec.Run, group: Group, cache: Path) -> Steps:
    setup = build(chosen, None, cache, group=group)
    group.meet(Order(chosen, None, cache, None), setup.device)
    setup.net.train()
    return Steps(setup)


def measure(model: spec.Model, batch: int, rounds: int, count: int) -> dict[str, list[float]]:
    """Seconds per step of each way, round by round."""
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = {}
        for way, (devices, threads) in WAYS.items():
            group = stack.enter_context(gathered(devices))
            runs[way] = start(run(model, batch, devices, threads), group, cache)
        for steps in runs.values():
            steps.take(5)
        taken: dict[str, list[float]] = {way: [] for way in runs}
        for _ in range(rounds):
            for way, steps in runs.items():
                taken[way].append(steps.take(count))
    return taken


def ratio(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Median and quartiles of the rounds' ratios."""
    low, middle, high = statistics.quantiles((a / b for a, b in zip(one, other, strict=True)), n=4)
    return middle, low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two cases, a few rounds, nothing is written")
    quick = parser.parse_args().quick
    rounds, count = (3, 3) if quick else (7, 4)
    rows = []
    for name, batch in CASES[::2] if quick else CASES:
        taken = measure(NETS[name], batch, rounds, count)
        one, threads, processes = taken.values()
        row = {
            "net": name,
            "batch": batch,
            "ms": {way: round(1000 * statistics.median(seconds), 2) for way, seconds in taken.items()},
            "processes_over_threads": [round(value, 2) for value in ratio(processes, threads)],
            "processes_over_one": [round(value, 2) for value in ratio(processes, one)],
        }
        rows.append(row)
        print(json.dumps(row, ensure_ascii=False), flush=True)
    if not quick:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
        RESULTS.write_text(
            json.dumps({**machine, "method": METHOD.name, "rows": rows}, ensure_ascii=False, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
