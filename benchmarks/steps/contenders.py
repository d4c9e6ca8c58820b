"""Who takes part: our methods by the step of our training loop, plain PyTorch and BioTorch by theirs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

from benchmarks.steps.rivals import (
    OPTIMIZERS,
    PLAIN,
    Checkpointed,
    Step,
    Unavailable,
    backprop,
    biotorch,
    biotorch_step,
)
from credit import spec
from credit.data.images import Images
from credit.data.split import split
from credit.estimate import flops_per_step, parameters
from credit.meter import metered
from credit.setup import Setup, furnish
from credit.train import _step
from lab import specs
from lab.errors import InvalidSpec

PROBE = 512
NETS: dict[str, dict[str, Any]] = {
    "launay_fc": {"model": "launay_fc", "dataset": "mnist"},
    "mlp_3x2048": {
        "model": {"name": "mlp", "hidden": [2048, 2048, 2048], "activation": "relu"},
        "dataset": "mnist",
    },
    "launay_cnn": {"model": "launay_cnn", "dataset": "cifar10"},
    "mlp_mixer": {"model": {"name": "mlp_mixer", "patch_size": 4}, "dataset": "cifar10"},
}
OURS = ("bp", "dfa", "dfa lean", "fa", "usf", "sbd", "mono_forward", "ff")
BIOTORCH = ("dfa", "fa", "usf")
BASELINE, FUSED, CHECKPOINTS = "torch bp", "torch bp fused", "torch bp checkpoints"
PREPARED = "torch bp fused, our process"
"""The same loop as ``FUSED`` in a process that is prepared as ours is: what is left is not the heap's doing."""
METHODS = (
    BASELINE,
    FUSED,
    CHECKPOINTS,
    PREPARED,
    *OURS,
    *(f"biotorch {mode}" for mode in BIOTORCH),
)


@dataclass(frozen=True)
class Counts:
    """What one step comes to, whoever looks at the clock."""

    flops: int
    """Floating-point operations done in matrix products and convolutions."""
    peak_bytes: int
    """Highest sum of the tensors that two steps in a row made, gradients included, parameters and batch left out."""
    saved_bytes: int
    """Highest sum of what autograd held for a backward pass."""
    state_bytes: int
    """Parameters, buffers and the optimizer's state."""
    limit: int | None
    """Floating-point operations of the method's own equations; None for others' code."""


@dataclass(frozen=True)
class Contender:
    """A net, ready to be trained on one batch as often as one likes."""

    name: str
    step: Callable[[], object]
    state: Callable[[], list[Tensor]]
    batch: tuple[Tensor, Tensor]
    limit: int | None = None

    def count(self) -> Counts:
        """Two steps under the meter: what the first leaves behind counts while the second works."""
        self.step()  # the optimizer's state is there from then on
        state = self.state()
        with metered((*state, *self.batch)) as cost:
            self.step()
            self.step()
        held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state}
        return Counts(cost.flops // 2, cost.peak_bytes, cost.saved_bytes, sum(held.values()), self.limit)


def setup_of(run: spec.Run, images: int) -> Setup:
    """The parts of a run on so many random images of its data set's shape."""
    generator = torch.Generator().manual_seed(0)

    def part(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randint(256, (n, *run.dataset.shape), dtype=torch.uint8, generator=generator)
        return x, torch.randint(run.dataset.classes, (n,), generator=generator)

    (train_x, train_y), (test_x, test_y) = part(images), part(PROBE)
    images, device = Images(train_x, train_y, test_x, test_y, sha256=""), torch.device(run.training.device)
    return furnish(run, device, split(images, run.dataset, device), images.sha256, Path())


def batch_of(setup: Setup) -> tuple[Tensor, Tensor]:
    return setup.batch(torch.arange(setup.chosen.training.batch_size, device=setup.device), 0)


def ours(name: str, run: spec.Run) -> Contender:
    setup = setup_of(run, run.training.batch_size)
    x, y_N = batch_of(setup)
    return Contender(name, lambda: _step(setup, x, y_N, 0), setup.state, (x, y_N), flops_per_step(run))


def theirs(
    name: str, net: nn.Module, step: Step, optimizer: optim.Optimizer, batch: tuple[Tensor, Tensor]
) -> Contender:
    def state() -> list[Tensor]:
        moments = (value for held in optimizer.state.values() for value in held.values())
        return [*net.parameters(), *net.buffers(), *(tensor for tensor in moments if isinstance(tensor, Tensor))]

    return Contender(name, lambda: step(*batch), state, batch)


@dataclass(frozen=True)
class Group:
    """One net and batch, and who trains it."""

    net: str
    batch: int
    optimizer: str
    threads: int
    device: torch.device

    def run(self, method: str) -> spec.Run:
        """Of a method, or of its lean form. Raises InvalidSpec where the method does not suit the net."""
        training = {"batch_size": self.batch, "device": str(self.device), "seed": 0, "threads": self.threads}
        optimizer = {"name": self.optimizer}
        name, _, lean = method.partition(" ")
        chosen = {"name": name, "lean": True} if lean else {"name": name}
        return specs.parse({"method": chosen, "optimizer": optimizer, "training": training, **NETS[self.net]})

    def enter(self, names: Iterable[str]) -> tuple[list[Contender], dict[str, str]]:
        """Everybody who can train the net, and why the others cannot."""
        ready: list[Contender] = []
        absent: dict[str, str] = {}
        for name in names:
            try:
                ready.append(
                    self.rival(name) if name.startswith(("torch ", "biotorch ")) else ours(name, self.run(name))
                )
            except InvalidSpec as error:
                absent[name] = error.extra["errors"][0]["detail"]
            except Unavailable as error:
                absent[name] = str(error)
        return ready, absent

    def rival(self, name: str) -> Contender:
        """Raises Unavailable."""
        run = self.run("bp")
        batch = batch_of(setup_of(run, self.batch))
        plain: nn.Module = PLAIN[self.net]().to(self.device)
        assert sum(parameter.numel() for parameter in plain.parameters()) == parameters(run), "another net than ours"
        if name == CHECKPOINTS:
            plain = Checkpointed(plain)
        mode = name.removeprefix("biotorch ")
        if mode in BIOTORCH:
            plain = biotorch(plain, mode, batch[0])
        fused = {} if name == BASELINE else {"fused": True}  # the baseline is torch's default
        optimizer = OPTIMIZERS[self.optimizer](plain.parameters(), lr=run.optimizer.lr, **fused)
        step = biotorch_step(plain, mode, optimizer) if mode in BIOTORCH else backprop(plain, optimizer)
        return theirs(name, plain, step, optimizer, batch)
