"""A whole job: what to train, how, on what, and beside which controls."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from credit.spec.base import Incompatible, Seed, Spec
from credit.spec.datasets import Dataset
from credit.spec.methods import KP, Method
from credit.spec.models import Model
from credit.spec.optimizers import Adam, Optimizer
from credit.spec.plan import family, has_batch_norm, needs_two_samples, plan, unsuited

Loss = Literal["cross_entropy", "mse", "bce"]
Precision = Literal["fp32", "tf32", "bf16"]
Control = Literal["bp", "shallow"]


@dataclass(frozen=True, kw_only=True)
class Training(Spec):
    """How long, in what portions, on what and from which seed."""

    epochs: Annotated[int, Ge(1), Le(100_000)] = 5
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 128
    drop_last: bool = False
    """Leave out the last, smaller batch of an epoch."""
    seed: Seed | None = None
    """Initial weights, feedback, order of samples and dropout masks all follow from it; null: drawn at submission."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    devices: Annotated[int, Ge(1), Le(64)] = 1
    """Processes that train together, each on its share of every batch: on CUDA each on a device of its own, on the CPU
    each with ``threads`` threads. The numbers are those of one process within float tolerance."""
    precision: Precision = "fp32"
    """tf32: on CUDA the factors of matrix products and convolutions are rounded to 10 bits of mantissa, elsewhere it is
    fp32; bf16: products and convolutions in bfloat16, weights, errors and updates in fp32."""
    engine: Literal["auto", "eager", "compiled", "graph"] = "auto"
    """eager: one operation after the other; compiled: each block by torch.compile; graph: the whole step as one CUDA
    graph; auto: eager. The numbers are the same within rounding (docs/engines.md)."""
    threads: Annotated[int, Ge(1), Le(256)] | None = None
    """CPU threads of the training process (sums are split by thread, so it belongs to the numbers); null: the
    service's setting."""
    together: bool = False
    """May train as one computation with jobs that wait beside it and differ in seed, name and labels alone, where that
    is possible and quicker (docs/members.md). The numbers are those of training alone within float tolerance."""
    log_every: Annotated[int, Ge(1), Le(1_000_000)] = 10
    """Steps per point of train/loss and train/accuracy, each the mean over those steps."""

    def __post_init__(self) -> None:
        kind, _, index = self.device.partition(":")
        if self.device not in {"auto", "cpu", "cuda"} and not (
            kind == "cuda" and index.isascii() and index.isdigit() and len(index) < 4
        ):
            raise Incompatible("/device", f"{self.device!r} is not one of auto, cpu, cuda, cuda:N")
        if self.devices > 1 and index:
            raise Incompatible("/device", f"{self.device!r} is one device, and {self.devices} are asked for; set cuda")
        if self.devices > self.batch_size:
            raise Incompatible(
                "/devices", f"{self.devices} is more than batch_size, {self.batch_size}: each process needs a sample"
            )
        if self.engine == "graph" and self.device == "cpu":
            raise Incompatible("/engine", "graph records a step of a CUDA device, and the device is cpu")
        if self.engine in {"compiled", "graph"} and self.devices > 1:
            raise Incompatible("/engine", f"{self.engine} is for one device, not for {self.devices}; set eager")


@dataclass(frozen=True, kw_only=True)
class Alignment(Spec):
    """When the method's signals are compared with backpropagation's, and on how many samples."""

    every: Literal["epoch", "never"] | Annotated[int, Ge(1), Le(10_000_000)] = "epoch"
    """epoch: before the first step and after every epoch; a number: every so many steps; never."""
    samples: Annotated[int, Ge(1), Le(65_536)] = 512
    """Size of the probe, the first images of the split (fewer where the split is smaller)."""
    split: Literal["test", "train"] = "test"


@dataclass(frozen=True, kw_only=True)
class Run(Spec):
    """A whole job: what to train, how, on what, and beside which controls."""

    method: Method
    model: Model
    dataset: Dataset
    name: Annotated[str, MaxLen(200)] | None = None
    loss: Loss = "cross_entropy"
    optimizer: Optimizer = field(default_factory=Adam)
    training: Training = field(default_factory=Training)
    alignment: Alignment = field(default_factory=Alignment)
    controls: Annotated[tuple[Control, ...], MaxLen(2)] = ()
    """Twins trained beside the job: same seed, same initial weights, same order of samples."""
    labels: Annotated[dict[Annotated[str, MinLen(1), MaxLen(64)], Annotated[str, MaxLen(256)]], MaxLen(32)] = field(
        default_factory=dict
    )
    max_runtime_seconds: Annotated[float, Gt(0), Le(31_536_000)] | None = None
    """Wall-clock limit of an attempt; null: none."""
    priority: Annotated[int, Ge(-100), Le(100)] = 0
    """Higher runs first."""

    def __post_init__(self) -> None:
        if len(set(self.controls)) < len(self.controls):
            raise Incompatible("/controls", "each control may be named once")
        layers = plan(self.model, self.dataset.shape, self.dataset.classes)
        reason = unsuited(self.model, layers, self.method)
        if reason:
            raise Incompatible("/method/name", reason)
        if self.loss not in self.method.losses:
            trained = ", ".join(self.method.losses)
            raise Incompatible("/loss", f"{self.method.name} trains with {trained}, not with {self.loss}")
        if isinstance(self.method, KP) and self.optimizer.weight_decay:
            raise Incompatible("/optimizer/weight_decay", "kp has a decay of its own; set 0 here")
        self.method.check(self.loss, family(layers))
        if self.training.engine == "graph" and (reason := self.method.unrecordable()):
            raise Incompatible("/training/engine", f"graph replays one recorded step, and {reason}")
        train = self.dataset.train_samples or self.dataset.train_images
        train -= round(train * self.dataset.validation_fraction)
        if self.training.drop_last and self.training.batch_size > train:
            raise Incompatible(
                "/training/batch_size",
                f"with drop_last, {train} training images make no batch of {self.training.batch_size}",
            )
        if needs_two_samples(layers) and not self.training.drop_last and train % self.training.batch_size == 1:
            raise Incompatible(
                "/training/batch_size",
                "batch norm cannot train on the last batch of one sample; set drop_last or another size",
            )
        if self.training.devices > 1 and has_batch_norm(layers):
            raise Incompatible(
                "/training/devices",
                "batch norm would normalise by the share of one process, not by the batch; set 1, or norms of layers",
            )
        last = 0 if self.training.drop_last else train % self.training.batch_size
        if 0 < last < self.training.devices:
            raise Incompatible(
                "/training/devices",
                f"{self.training.devices} is more than the samples of the last batch, {last}; set drop_last",
            )
