"""The training loop: ``run(spec)`` yields events and knows nobody.

Readable top to bottom: build, then per step a batch, its credit, the optimizer's step; probes, reports and evaluations
when they are due. To stop a run early, close the generator.
"""

import hashlib
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from credit import __version__, data, spec
from credit.alignment import measure
from credit.data.split import Split, split
from credit.events import Aligned, Diagnosed, Evaluated, Event, Finished, Progress, RunError, Started
from credit.flow import Credit, Loss
from credit.losses import LOSSES
from credit.meter import Cost, metered
from credit.nets import build_net
from credit.nets.blocks import Net, fingerprint
from credit.optimizers import ADAPTIVE, build_optimizer, learning_rate
from credit.rule import Rule, Task, hand_over
from credit.rules import build_rule
from credit.streams import Streams

EVALUATION_BATCH = 1_000
REPORT_SECONDS = 0.25
"""Intervals are handed over together where they are shorter than this; their numbers do not depend on it."""


def run(chosen: spec.Run, *, datasets: Path | None, cache: Path, out: Path | None = None) -> Iterator[Event]:
    """Train as a resolved spec says and tell what happens; ``Started`` comes first, ``Finished`` last.

    Meant for a process of its own: sets torch's thread count, deterministic algorithms and the global random state
    that dropout draws from.

    Args:
        chosen: with seed and threads filled in.
        datasets: a folder of data sets placed there by hand, or None.
        cache: folder for downloads and decoded copies.
        out: where to write ``model.safetensors`` (weights and the rule's feedback), or None.

    Raises:
        RunError: the data are not to be had, the device is not there, memory ran out or the loss stopped being finite.
    """
    try:
        yield from _Training(chosen, datasets, cache).events(out)
    except torch.OutOfMemoryError as error:
        raise RunError("out_of_memory", str(error).split(". ")[0]) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise RunError("out_of_memory", f"the machine's memory does not suffice: {error}") from error
        raise


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is a device, else the CPU.

    Raises:
        RunError: a CUDA device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RunError(
            "user_error", f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


def prepare(threads: int) -> None:
    """Make the process's numbers depend on the spec alone."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


@torch.inference_mode()
def evaluate(net: nn.Sequential, rule: Rule, part: Split, loss: Loss) -> tuple[float, float]:
    """Mean loss and accuracy of a whole split, in evaluation mode."""
    net.eval()
    total = torch.zeros(2, dtype=torch.float64, device=part.y.device)
    for index in torch.arange(len(part.y), device=part.y.device).split(EVALUATION_BATCH):
        x, y_N = part.batch(index)
        z_NC = rule.predict(net, x)
        total += torch.stack((loss(z_NC, y_N) * len(y_N), (z_NC.argmax(1) == y_N).sum()))
    net.train()
    mean_loss, accuracy = (total / len(part.y)).tolist()
    return mean_loss, accuracy


class Tally:
    """Losses and hits of the steps since the last reading, kept on the device; reading is the only synchronisation."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.losses = torch.zeros(size, device=device)
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.clear()

    def clear(self) -> None:
        self.steps, self.samples, self.started = 0, 0, time.perf_counter()
        self.hits.zero_()

    def add(self, credit: Credit, y_N: Tensor) -> None:
        self.losses[self.steps].copy_(credit.loss)
        self.hits += (credit.outputs.argmax(1) == y_N).sum()
        self.steps += 1
        self.samples += len(y_N)

    def read(self) -> tuple[list[float], int]:
        """The loss of each step, and the hits of all."""
        *losses, hits = torch.cat((self.losses[: self.steps].double(), self.hits.double()[None])).tolist()
        return losses, int(hits)


class _Training:
    """The state of one run and what is done with it."""

    def __init__(self, chosen: spec.Run, datasets: Path | None, cache: Path) -> None:
        training = chosen.training
        assert training.seed is not None
        assert training.threads is not None
        prepare(training.threads)
        self.chosen, self.device = chosen, pick_device(training.device)
        images = data.load(chosen.dataset, datasets=datasets, cache=cache)
        self.dataset_sha256 = images.sha256
        self.splits = split(images, chosen.dataset, self.device)
        self.streams = Streams(training.seed)
        self.loss = LOSSES[chosen.loss]
        shape, classes = chosen.dataset.shape, chosen.dataset.classes
        self.net: Net = build_net(chosen.model, chosen.method, shape, classes, self.streams.generator("init"))
        self.init_sha256 = fingerprint(self.net)
        adaptive = isinstance(chosen.optimizer, ADAPTIVE)
        task = Task(self.loss, torch.zeros(1, *shape), self.streams.generator("rule"), adaptive)
        self.rule = build_rule(chosen.method, self.net, task).to(self.device)
        self.net.to(self.device)
        learning = [*self.rule.learns(self.net), *self.rule.parameters()]
        self.optimizer = build_optimizer(chosen.optimizer, learning)
        self.steps_per_epoch = self._batches(torch.arange(len(self.splits.train.y))).__len__()
        self.steps = self.steps_per_epoch * training.epochs
        self.order = hashlib.sha256()
        self.step, self.train_seconds = 0, 0.0
        self.tally = Tally(training.log_every, self.device)
        self.intervals: list[tuple[int, float, float, float]] = []
        self.step_seconds: list[float] = []
        self.reported = time.perf_counter()
        self.cost = Cost()
        self.diagnoses: list[Diagnosed] = []
        self.known: dict[str, dict[str, float]] = {}
        self.aligned: Aligned | None = None

    # ---- the loop ----

    def events(self, out: Path | None) -> Iterator[Event]:
        training = self.chosen.training
        probe = self._probe()
        yield self._started(probe)
        torch.manual_seed(self.streams.seed("dropout"))
        self.net.train()
        if probe is not None:
            yield self._align(probe)
        for epoch in range(training.epochs):
            order = self.streams.order(epoch, len(self.splits.train.y))
            self.order.update(order.numpy().tobytes())
            hits = samples = 0
            losses: list[float] = []
            self.tally.clear()
            for index in self._batches(order.to(self.device)):
                self._train(index)
                if self.tally.steps == training.log_every or self.step % self.steps_per_epoch == 0:
                    some, more = self._interval(epoch)
                    yield from self.diagnoses
                    self._stop_if_diverged()
                    losses, hits, samples = losses + some, hits + more, samples + self.tally.samples
                    if time.perf_counter() - self.reported > REPORT_SECONDS:
                        yield self._progress()
                    self.tally.clear()
                if probe is not None and self._probe_due():
                    yield self._align(probe)
                    self.tally.started = time.perf_counter()
            self.known["train"] = {"accuracy": hits / samples, "loss": statistics.fmean(losses)}
            if self.intervals:
                yield self._progress()
            yield from self._evaluations()
        if out is not None:
            self._save(out / "model.safetensors")
        yield Finished(step=self.step, results=self._results(probe))

    def _batches(self, order: Tensor) -> list[Tensor]:
        batches = list(order.split(self.chosen.training.batch_size))
        if self.chosen.training.drop_last and len(batches[-1]) < self.chosen.training.batch_size:
            batches.pop()
        return batches

    def _train(self, index: Tensor) -> None:
        """One step; the second one (or the only one) is metered."""
        x, y_N = self.splits.train.batch(index)
        lr = learning_rate(self.chosen.optimizer, self.step, self.steps, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.step == min(1, self.steps - 1):
            with metered(
                (*self.net.parameters(), *self.net.buffers(), *self.rule.buffers(), *self._state(), x, y_N)
            ) as cost:
                credit = self._step(x, y_N)
            self.cost = cost
        else:
            credit = self._step(x, y_N)
        self.tally.add(credit, y_N)
        self.step += 1

    def _step(self, x: Tensor, y_N: Tensor) -> Credit:
        half = self.chosen.training.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            credit = self.rule.assign(self.net, x, y_N)
        hand_over(credit, self.net, self.rule)
        self.optimizer.step()
        return credit

    # ---- reports ----

    def _interval(self, epoch: int) -> tuple[list[float], int]:
        """Close an interval of ``log_every`` steps, or what is left of it at an epoch's end."""
        losses, hits = self.tally.read()
        seconds = time.perf_counter() - self.tally.started
        self.train_seconds += seconds
        self.step_seconds.append(seconds / len(losses))
        bad = next((k for k, loss in enumerate(losses) if not abs(loss) < float("inf")), None)
        if bad is not None:
            self._diverged(self.step - len(losses) + bad, f"the training loss was {losses[bad]}")
        else:
            loss, accuracy = statistics.fmean(losses), hits / self.tally.samples
            self.intervals.append((self.step, self._epoch(), loss, accuracy))
        del epoch
        return losses, hits

    def _diverged(self, step: int, evidence: str) -> None:
        advice = "lower the learning rate, or the feedback's scale; tanh or batch norm keep activations bounded"
        self.diagnoses.append(
            Diagnosed(code="diverged", layer=None, step=step, evidence=f"{evidence} at step {step}", advice=advice)
        )

    def _stop_if_diverged(self) -> None:
        if self.diagnoses:
            last = self.diagnoses[-1]
            raise RunError("diverged", f"{last.evidence}; {last.advice}")

    def _epoch(self) -> float:
        return self.step / self.steps_per_epoch

    def _progress(self) -> Progress:
        event = Progress(
            step=self.step, epoch=self._epoch(), train_seconds=self.train_seconds, intervals=self.intervals
        )
        self.intervals, self.reported = [], time.perf_counter()
        return event

    def _evaluations(self) -> Iterator[Event]:
        for name, part in (("validation", self.splits.validation), ("test", self.splits.test)):
            if part is None:
                continue
            loss, accuracy = evaluate(self.net, self.rule, part, self.loss)
            if not abs(loss) < float("inf"):
                self._diverged(self.step, f"the {name} loss was {loss}")
                yield self.diagnoses[-1]
                self._stop_if_diverged()
            self.known[name] = {"accuracy": accuracy, "loss": loss}
            yield Evaluated(step=self.step, epoch=self._epoch(), split=name, loss=loss, accuracy=accuracy)

    # ---- alignment ----

    def _probe(self) -> tuple[Tensor, Tensor, dict[str, Any]] | None:
        """The probe batch, the first samples of its split, and what the results say of it."""
        wanted = self.chosen.alignment
        if wanted.every == "never":
            return None
        part = self.splits.test if wanted.split == "test" else self.splits.train
        index = torch.arange(min(wanted.samples, len(part.y)), device=self.device)
        x, y_N = part.batch(index)
        digest = hashlib.sha256(x.cpu().numpy().tobytes() + y_N.cpu().numpy().tobytes())
        return x, y_N, {"samples": len(index), "split": wanted.split, "sha256": digest.hexdigest()}

    def _probe_due(self) -> bool:
        every = self.chosen.alignment.every
        period = self.steps_per_epoch if every == "epoch" else int(every)
        return self.step % period == 0 or self.step == self.steps

    def _align(self, probe: tuple[Tensor, Tensor, dict[str, Any]]) -> Aligned:
        x, y_N, _ = probe
        self.aligned = Aligned(step=self.step, epoch=self._epoch(), layers=measure(self.net, self.rule, x, y_N))
        return self.aligned

    # ---- the beginning and the end ----

    def _started(self, probe: tuple[Tensor, Tensor, dict[str, Any]] | None) -> Started:
        return Started(
            epochs=self.chosen.training.epochs,
            steps=self.steps,
            parameters=sum(parameter.numel() for parameter in self.net.parameters()),
            layers=[point.layer for point in self.net.points],
            init_sha256=self.init_sha256,
            probe=probe[2] if probe else None,
            environment=self._environment(),
        )

    def _environment(self) -> dict[str, Any]:
        return {
            "creditlab": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "threads": self.chosen.training.threads,
            "seed": self.chosen.training.seed,
            "dataset_sha256": self.dataset_sha256,
        }

    def _results(self, probe: tuple[Tensor, Tensor, dict[str, Any]] | None) -> dict[str, Any]:
        layers = [
            {
                "layer": layer.layer,
                "delta_cosine": {"mean": layer.delta_cosine, "std": layer.delta_cosine_std},
                "preactivation_cosine": layer.preactivation_cosine,
                "delta_angle_degrees": layer.delta_angle,
                "update_cosine": layer.update_cosine,
                "norm_ratio": layer.norm_ratio,
                "activation_rms": layer.activation_rms,
            }
            for layer in (self.aligned.layers if self.aligned else ())
        ]
        return {
            **self.known,
            "alignment": {"probe": probe[2] if probe else None, "layers": layers},
            "cost": self._costs(),
            "pairing": {"init_sha256": self.init_sha256, "order_sha256": self.order.hexdigest()},
            "diagnoses": [asdict(diagnosis) for diagnosis in self.diagnoses],
            "environment": self._environment(),
        }

    def _costs(self) -> dict[str, Any]:
        """Times are of training steps alone; the first interval, which holds the warm-up, is left out of the median."""
        step_seconds = self.step_seconds[1:] or self.step_seconds
        resident = (
            *self.net.parameters(),
            *self.net.buffers(),
            *self.rule.parameters(),
            *self.rule.buffers(),
            *self._state(),
        )
        samples = len(self.splits.train.y) * self.chosen.training.epochs
        if self.chosen.training.drop_last:
            samples = self.steps * self.chosen.training.batch_size
        return {
            "train_seconds": self.train_seconds,
            "step_ms_median": 1000 * statistics.median(step_seconds),
            "samples_per_second": samples / self.train_seconds,
            "peak_memory_bytes": sum(tensor.nbytes for tensor in resident) + self.cost.peak_bytes,
            "saved_activation_bytes": self.cost.saved_bytes,
            "flops_per_step": self.cost.flops,
            "parameters": sum(parameter.numel() for parameter in self.net.parameters()),
        }

    def _state(self) -> list[Tensor]:
        """The optimizer's tensors."""
        return [
            value for state in self.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
        ]

    def _save(self, path: Path) -> None:
        tensors = {**self.net.tensors(), **{f"rule.{name}": tensor for name, tensor in self.rule.state_dict().items()}}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
