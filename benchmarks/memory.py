"""Peak memory of a training step of MLP-Mixers on 28×28×3 images: Mono-Forward against backpropagation, as it is and
with a checkpoint per block.

    python benchmarks/memory.py [--quick]

No data set is read: the images are random numbers of PathMNIST's shape (the published comparison is on PathMNIST), and
bytes do not depend on their values. The step is the training loop's own, the second one, so that the optimizer's state
is there; the meter counts the tensors that live (``credit/meter.py``). Two figures per net: the whole (parameters,
optimizer's state and batch-independent buffers too) and the step alone. With checkpoints, backpropagation keeps the
input of each block and runs the block again on the way back: the same gradients for a second forward pass.
Mono-Forward's paper reports 31 % of backpropagation's memory; neither its nets nor its protocol are published in a form
that we could read.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from credit import spec
from credit.losses import LOSSES
from credit.meter import metered
from credit.nets import build_net
from credit.optimizers import build_optimizer
from credit.rule import Task, hand_over
from credit.rules import build_rule
from lab import specs

SHAPE, CLASSES = spec.PathMNIST.shape, spec.PathMNIST.classes
GOAL = 0.31
SIZES = {
    "width 128": {"width": 128, "token_width": 64, "channel_width": 512},
    "width 32": {"width": 32, "token_width": 16, "channel_width": 128},
}


class Bytes(NamedTuple):
    whole: int
    step: int


class Recomputed(nn.Module):
    """A block of which nothing but its input is kept for the backward pass, which runs it again."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = checkpoint(self.block, x, use_reentrant=False)
        return h


def measure(run: spec.Run, *, checkpoints: bool = False) -> Bytes:
    """Bytes at the peak of the second step of a run."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(run.training.batch_size, *SHAPE, generator=generator)
    y_N = torch.randint(CLASSES, (len(x),), generator=generator)
    net = build_net(run.model, run.method, SHAPE, CLASSES, generator)
    if checkpoints:
        net = nn.Sequential(*map(Recomputed, net))
    rule = build_rule(run.method, net, Task(LOSSES[run.loss], torch.zeros(1, *SHAPE), generator, adaptive=True))
    optimizer = build_optimizer(run.optimizer, [*rule.learns(net), *rule.parameters()])

    def step() -> None:
        credit = rule.assign(net, x, y_N)
        hand_over(credit, net, rule)
        optimizer.step()
        rule.settle(net, run.optimizer.lr)

    step()
    moments = (value for state in optimizer.state.values() for value in state.values())
    state = [*net.parameters(), *net.buffers(), *rule.parameters(), *rule.buffers()]
    state += [tensor for tensor in moments if isinstance(tensor, torch.Tensor)]
    with metered((*state, x, y_N)) as cost:
        step()
    return Bytes(sum(tensor.nbytes for tensor in state) + cost.peak_bytes, cost.peak_bytes)


def nets(*, quick: bool) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Name, model and batch size of every net compared."""
    grid = [((4, 4), 128, "width 32")] if quick else product(product((4, 7), (4, 8)), (128, 512), SIZES)
    for (patch, depth), batch, size in grid:
        model = {"name": "mlp_mixer", "patch_size": patch, "depth": depth, **SIZES[size]}
        yield f"patch {patch}, depth {depth}, {size}, batch {batch}", model, batch


def row(name: str, model: dict[str, Any], batch: int) -> str:
    bp, mono = (
        specs.parse({"method": method, "model": model, "dataset": "pathmnist", "training": {"batch_size": batch}})
        for method in ("bp", "mono_forward")
    )
    full, kept, local = measure(bp), measure(bp, checkpoints=True), measure(mono)
    sizes = [" / ".join(f"{value / 2**20:.1f}" for value in each) for each in (full, kept, local)]
    ratios = [
        " / ".join(f"{mine / theirs:.2f}" for mine, theirs in zip(local, rival, strict=True)) for rival in (full, kept)
    ]
    met = "yes" if local.whole / full.whole <= GOAL else "no"
    return "| " + " | ".join([name, *sizes, *ratios, met]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small net")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "bp: backpropagation; ck: with a checkpoint per block; mf: mono_forward; MiB of the whole / of the step alone\n"
        f"\n| net | bp | ck | mf | mf / bp | mf / ck | whole mf / bp ≤ {GOAL} |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for net in nets(quick=chosen.quick):
        print(row(*net), flush=True)


if __name__ == "__main__":
    main()
