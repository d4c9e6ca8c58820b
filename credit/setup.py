"""From a resolved spec to everything a run needs: device, data, net, rule and optimizer."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, optim

from credit import data, memory, spec
from credit.data.augment import flip_crop
from credit.data.split import Splits, split
from credit.engines import build_engine
from credit.engines.eager import Engine
from credit.events import RunError
from credit.flow import Loss
from credit.heap import keep_memory
from credit.losses import LOSSES
from credit.nets import build_net
from credit.nets.blocks import Net, fingerprint
from credit.optimizers import ADAPTIVE, build_optimizer
from credit.parallel import ALONE, Group
from credit.rule import Rule, Task, Update
from credit.rules import build_rule
from credit.streams import Streams


@dataclass(frozen=True, eq=False)
class Setup:
    """The parts of a run, on its device."""

    chosen: spec.Run
    device: torch.device
    splits: Splits
    streams: Streams
    net: Net
    rule: Rule
    loss: Loss
    optimizer: optim.Optimizer
    engine: Engine
    init_sha256: str
    dataset_sha256: str
    group: Group = ALONE

    @property
    def steps_per_epoch(self) -> int:
        samples, size = len(self.splits.train), self.chosen.training.batch_size
        return samples // size if self.chosen.training.drop_last else -(-samples // size)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.chosen.training.epochs

    def batches(self, order: Tensor) -> tuple[Tensor, ...]:
        """An epoch's order of samples, cut into the indices of its batches."""
        indices: tuple[Tensor, ...] = order.to(self.device).split(self.chosen.training.batch_size)
        return indices[: self.steps_per_epoch]

    def batch(self, index: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of a batch, augmented as the spec says; what is drawn depends on seed and step alone."""
        x, y_N = self.splits.train.batch(self.group.share(index))
        if self.chosen.dataset.augment == "flip_crop":
            x = flip_crop(x, self.streams.generator("augment", step), self.group)
        return x, y_N

    def state(self) -> list[Tensor]:
        """Every tensor that outlives a step: parameters, buffers, the rule's and the optimizer's."""
        moments = (value for state in self.optimizer.state.values() for value in state.values())
        own = (tensor for part in (self.net, self.rule) for tensor in (*part.parameters(), *part.buffers()))
        return [*own, *(tensor for tensor in moments if isinstance(tensor, Tensor))]


def build(
    chosen: spec.Run,
    datasets: Path | None,
    cache: Path,
    progress: data.Progress | None = None,
    group: Group = ALONE,
) -> Setup:
    """Make the process's numbers depend on the spec alone, then build all parts from it.

    Raises:
        RunError: the data are not to be had, or the device is not there, or the engine is not for it.
    """
    training = chosen.training
    assert training.threads is not None
    prepare(training.threads, training.precision)
    device = pick_device(training.device, group)
    images = data.load(chosen.dataset, datasets=datasets, cache=cache, progress=progress)
    return furnish(chosen, device, split(images, chosen.dataset, device), images.sha256, cache, group)


def furnish(
    chosen: spec.Run,
    device: torch.device,
    splits: Splits,
    dataset_sha256: str,
    cache: Path,
    group: Group = ALONE,
) -> Setup:
    """Net, rule, optimizer and engine beside the data that are there."""
    assert chosen.training.seed is not None
    streams, loss = Streams(chosen.training.seed), LOSSES[chosen.loss]
    shape, classes = chosen.dataset.shape, chosen.dataset.classes
    net = build_net(chosen.model, chosen.method, shape, classes, streams.generator("init"), group)
    adaptive = isinstance(chosen.optimizer, ADAPTIVE)
    task = Task(loss, torch.zeros(1, *shape), streams.generator("rule"), adaptive, group)
    rule = build_rule(chosen.method, net, task).to(device)
    init_sha256 = fingerprint(net)  # of the weights that training starts from: a rule may have zeroed some
    net.to(device)
    learnt = [*rule.learns(net), *rule.parameters()]
    optimizer = build_optimizer(chosen.optimizer, learnt, recorded=chosen.training.engine == "graph")
    if memory.updates_as_told(chosen):
        rule.update = Update(optimizer)
    return Setup(
        chosen=chosen,
        device=device,
        splits=splits,
        streams=streams,
        net=net,
        rule=rule,
        loss=loss,
        optimizer=optimizer,
        engine=build_engine(chosen, device, net, rule, cache),
        init_sha256=init_sha256,
        dataset_sha256=dataset_sha256,
        group=group,
    )


def prepare(threads: int, precision: spec.Precision = "fp32") -> None:
    """Settings of the whole process: threads (sums are split by them), deterministic algorithms only, TF32 on CUDA.

    And memory that one step gives back is kept for the next.
    """
    keep_memory()
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def pick_device(name: str, group: Group = ALONE) -> torch.device:
    """``auto`` is CUDA where there is a device, else the CPU; each process of a group has a CUDA device of its own.

    Raises:
        RunError: a CUDA device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    count = torch.cuda.device_count()
    if name == "cuda" and group.size > 1:
        if group.size > count:
            there = f"this machine has {count} of them"
            raise RunError("user_error", f"devices {group.size} on {name} needs as many CUDA devices, and {there}")
        name = f"cuda:{group.rank}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RunError("user_error", f"device {name!r} is not there: this machine has {count} CUDA devices")
    return device
