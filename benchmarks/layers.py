"""Do the updates of all layers, which a broadcast score makes independent, take less time at once than in turn?

    python benchmarks/layers.py [--device cpu] [--threads 2] [--rounds 30] [--quick]

Nets of L equal layers (tanh): a forward pass by all threads, and then, with the score s of the batch known, what each
layer has to do by itself: δ = (s B) ⊙ f′(a), and the gradients δᵀ h of its weight and Σ δ of its bias. The latter in
three ways: layer by layer; grouped, as one batched product over the layers; and side by side, on a CPU by as many
threads as there are, each of which takes its products alone, on CUDA by a stream per layer. Printed are medians of the
ratios to layer by layer, each of one round, with their quartiles; forward passes included.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from credit.heap import keep_memory

CLASSES = 10
SHAPES = ((3, 64, 128), (3, 512, 128), (3, 800, 128), (3, 800, 1024), (3, 2048, 128), (16, 64, 128), (16, 512, 128))
"""Layers, units of each, samples of a batch."""


class Layers:
    """A net, its batch and the score."""

    def __init__(self, layers: int, units: int, samples: int, device: torch.device) -> None:
        draw = torch.Generator().manual_seed(0)
        self.L = layers
        self.W_Lnn = torch.randn(layers, units, units, generator=draw).div(units**0.5).to(device)
        self.h_LNn = torch.rand(layers + 1, samples, units, generator=draw).to(device)
        self.B_Cn = torch.randn(CLASSES, units, generator=draw).to(device)
        self.s_NC = torch.randn(samples, CLASSES, generator=draw).to(device)

    def forward(self) -> None:
        for k in range(self.L):
            torch.tanh(self.h_LNn[k] @ self.W_Lnn[k].mT, out=self.h_LNn[k + 1])

    def layer(self, k: int) -> tuple[Tensor, Tensor]:
        h, below = self.h_LNn[k + 1], self.h_LNn[k]
        delta = (self.s_NC @ self.B_Cn) * (1 - h * h)
        return delta.mT @ below, delta.sum(0)

    def in_turn(self) -> object:
        return [self.layer(k) for k in range(self.L)]

    def grouped(self) -> object:
        h, below = self.h_LNn[1:], self.h_LNn[:-1]
        delta = (self.s_NC @ self.B_Cn) * (1 - h * h)
        return delta.mT @ below, delta.sum(1)


def by_threads(layers: Layers, pool: ThreadPoolExecutor) -> Callable[[], object]:
    return lambda: list(pool.map(layers.layer, range(layers.L)))


def by_streams(layers: Layers) -> Callable[[], object]:
    streams = [torch.cuda.Stream() for _ in range(layers.L)]

    def step() -> object:
        now = torch.cuda.current_stream()
        told = []
        for k, stream in enumerate(streams):
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                told.append(layers.layer(k))
        for stream in streams:
            now.wait_stream(stream)
        return told  # held until the streams have met, so nobody is given their memory

    return step


def clock(layers: Layers, updates: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of a forward pass and the updates, over so many seconds."""
    times, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        layers.forward()
        updates()
        times += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.1, help="of a measurement")
    parser.add_argument("--quick", action="store_true", help="three short rounds of the first shapes")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 3, 0.01
    keep_memory()  # as in a training process
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    print("layers  units  samples  in turn ms   grouped               side by side")
    with ThreadPoolExecutor(chosen.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for shape in SHAPES[:2] if chosen.quick else SHAPES:
            layers = Layers(*shape, device)
            beside = by_streams(layers) if device.type == "cuda" else by_threads(layers, pool)
            rounds = [
                [clock(layers, updates, device, chosen.seconds) for updates in (layers.in_turn, layers.grouped, beside)]
                for _ in range(chosen.rounds)
            ]
            first = statistics.median(one[0] for one in rounds)
            told = [quartiles([one[way] / one[0] for one in rounds]) for way in (1, 2)]
            print(f"{shape[0]:6} {shape[1]:6} {shape[2]:8} {1000 * first:11.3f}   {told[0]}   {told[1]}")


def quartiles(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
