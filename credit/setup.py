"""From a resolved spec to everything a run needs: device, data, net, rule and optimizer."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, optim

from credit import data, memory, spec
from credit.data.augment import flip_crop
from credit.data.images import Images
from credit.data.split import Splits, split
from credit.events import RunError
from credit.flow import Loss
from credit.losses import LOSSES
from credit.nets import build_net
from credit.nets.blocks import Net, fingerprint
from credit.optimizers import ADAPTIVE, build_optimizer
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
    init_sha256: str
    dataset_sha256: str

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
        """Training samples, augmented as the spec says; what is drawn depends on seed and step alone."""
        x, y_N = self.splits.train.batch(index)
        if self.chosen.dataset.augment == "flip_crop":
            x = flip_crop(x, self.streams.generator("augment", step))
        return x, y_N

    def state(self) -> list[Tensor]:
        """Every tensor that outlives a step: parameters, buffers, the rule's and the optimizer's."""
        moments = (value for state in self.optimizer.state.values() for value in state.values())
        own = (tensor for part in (self.net, self.rule) for tensor in (*part.parameters(), *part.buffers()))
        return [*own, *(tensor for tensor in moments if isinstance(tensor, Tensor))]


def build(chosen: spec.Run, datasets: Path | None, cache: Path, progress: data.Progress | None = None) -> Setup:
    """Make the process's numbers depend on the spec alone, then build all parts from it.

    Raises:
        RunError: the data are not to be had, or the device is not there.
    """
    training = chosen.training
    assert training.threads is not None
    prepare(training.threads)
    device = pick_device(training.device)
    images = data.load(chosen.dataset, datasets=datasets, cache=cache, progress=progress)
    return furnish(chosen, images, device)


def furnish(chosen: spec.Run, images: Images, device: torch.device) -> Setup:
    """All parts of a run on these images, in a process that is prepared."""
    training = chosen.training
    assert training.seed is not None
    streams, loss = Streams(training.seed), LOSSES[chosen.loss]
    shape, classes = chosen.dataset.shape, chosen.dataset.classes
    net = build_net(chosen.model, chosen.method, shape, classes, streams.generator("init"))
    task = Task(loss, torch.zeros(1, *shape), streams.generator("rule"), isinstance(chosen.optimizer, ADAPTIVE))
    rule = build_rule(chosen.method, net, task).to(device)
    init_sha256 = fingerprint(net)  # of the weights that training starts from: a rule may have zeroed some
    net.to(device)
    optimizer = build_optimizer(chosen.optimizer, [*rule.learns(net), *rule.parameters()])
    if memory.updates_as_told(chosen):
        rule.update = Update(optimizer)
    return Setup(
        chosen=chosen,
        device=device,
        splits=split(images, chosen.dataset, device),
        streams=streams,
        net=net,
        rule=rule,
        loss=loss,
        optimizer=optimizer,
        init_sha256=init_sha256,
        dataset_sha256=images.sha256,
    )


def prepare(threads: int) -> None:
    """Settings of the whole process: threads (sums are split by them) and deterministic algorithms only."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is a device, else the CPU.

    Raises:
        RunError: a CUDA device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RunError("user_error", f"device {name!r} is not there: this machine has {count} CUDA devices")
    return device
