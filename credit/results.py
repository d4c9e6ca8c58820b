"""The ledger of a run: what it has found so far, and the results JSON of the contract made from it."""

import hashlib
import json
import platform
import statistics
from dataclasses import asdict
from typing import Any

import torch

from credit import __version__
from credit.events import Aligned, Diagnosed, Evaluated, from_json
from credit.meter import Cost
from credit.setup import Setup
from credit.tally import Interval


class Ledger:
    """Keeps what the results need of a run."""

    def __init__(self, setup: Setup, probe: dict[str, Any] | None) -> None:
        self.setup, self.probe = setup, probe
        self.order = hashlib.sha256()
        self.metrics: dict[str, dict[str, Any]] = {}
        self.diagnoses: list[Diagnosed] = []
        self.aligned: Aligned | None = None
        self.cost = Cost()
        self.losses: list[float] = []
        self.hits = self.samples = 0
        self.train_seconds = 0.0
        self.step_seconds: list[float] = []

    def visit(self, order: torch.Tensor) -> None:
        """An epoch's order of samples."""
        self.order.update(order.numpy().tobytes())

    def turn(self) -> None:
        """A new epoch begins: the means of the training's results are those of the last one."""
        self.losses, self.hits, self.samples = [], 0, 0

    def trained(self, interval: Interval) -> None:
        self.losses += interval.losses
        self.hits += interval.hits
        self.samples += interval.samples
        self.train_seconds += interval.seconds
        self.step_seconds.append(interval.seconds / len(interval.losses))

    def aligned_to(self, event: Aligned) -> Aligned:
        self.aligned = event
        return event

    def evaluated(self, event: Evaluated) -> Evaluated:
        self.metrics[event.split] = event.result()
        return event

    def results(self) -> dict[str, Any]:
        """The science part of the contract's results; ``train`` is the mean over the steps of the last epoch."""
        return {
            **self.known(),
            "train": {"accuracy": self.hits / self.samples, "loss": statistics.fmean(self.losses)},
            "cost": self._costs(),
            "pairing": {"init_sha256": self.setup.init_sha256, "order_sha256": self.order.hexdigest()},
            "environment": environment(self.setup),
        }

    def known(self) -> dict[str, Any]:
        """The part of the results that is known before the end."""
        layers = [layer.result() for layer in self.aligned.layers] if self.aligned else []
        return {
            **self.metrics,
            "alignment": {"probe": self.probe, "layers": layers},
            "diagnoses": [asdict(diagnosis) for diagnosis in self.diagnoses],
        }

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps, besides ``tensors``; the order of samples follows from seed and step."""
        return {
            "metrics": self.metrics,
            "diagnoses": [asdict(diagnosis) for diagnosis in self.diagnoses],
            "aligned": self.aligned and json.loads(self.aligned.to_json()),
            "cost": asdict(self.cost),
            "hits": self.hits,
            "samples": self.samples,
            "train_seconds": self.train_seconds,
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """The long lists of a checkpoint."""
        lists = {"losses": self.losses, "step_seconds": self.step_seconds}
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in lists.items()}

    def restore(self, plain: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Go on with the ledger of a checkpoint."""
        self.metrics, self.cost = plain["metrics"], Cost(**plain["cost"])
        self.diagnoses = [Diagnosed(**diagnosis) for diagnosis in plain["diagnoses"]]
        aligned = plain["aligned"] and from_json(json.dumps(plain["aligned"]))
        self.aligned = aligned if isinstance(aligned, Aligned) else None
        self.hits, self.samples, self.train_seconds = plain["hits"], plain["samples"], plain["train_seconds"]
        self.losses, self.step_seconds = tensors["losses"].tolist(), tensors["step_seconds"].tolist()

    def _costs(self) -> dict[str, Any]:
        """Times are of training steps alone; the first interval holds the warm-up and stays out of the median."""
        training, setup = self.setup.chosen.training, self.setup
        per_epoch = len(setup.splits.train)
        if training.drop_last:
            per_epoch = setup.steps_per_epoch * training.batch_size
        return {
            "train_seconds": self.train_seconds,
            "step_ms_median": 1000 * statistics.median(self.step_seconds[1:] or self.step_seconds),
            "samples_per_second": per_epoch * training.epochs / self.train_seconds,
            "peak_memory_bytes": sum(tensor.nbytes for tensor in setup.state()) + self.cost.peak_bytes,
            "saved_activation_bytes": self.cost.saved_bytes,
            "flops_per_step": self.cost.flops,
            "parameters": parameters(setup),
        }


def parameters(setup: Setup) -> int:
    """Trainable numbers of the net."""
    return sum(parameter.numel() for parameter in setup.net.parameters())


def environment(setup: Setup) -> dict[str, Any]:
    """What the numbers depend on besides the spec."""
    training = setup.chosen.training
    return {
        "creditlab": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(setup.device) if setup.device.type == "cuda" else "cpu",
        "devices": training.devices,
        "threads": training.threads,
        "engine": setup.engine.name,
        "seed": training.seed,
        "dataset_sha256": setup.dataset_sha256,
    }
