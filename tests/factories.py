"""Runs that train in a second, and events as a training process sends them."""

from typing import Any

from credit import spec
from credit.events import Aligned, Checkpointed, Evaluated, LayerAlignment, Progress, Started
from lab import specs

TINY: dict[str, Any] = {
    "method": "dfa",
    "model": {"name": "mlp", "hidden": [16, 16]},
    "dataset": {"name": "fashion-mnist-mini", "train_samples": 500, "test_samples": 100},
    "training": {"epochs": 2, "batch_size": 50, "seed": 1, "threads": 1, "device": "cpu"},
    "alignment": {"samples": 32},
}


def tiny(**fields: Any) -> spec.Run:
    """A resolved run of twenty quick steps."""
    return specs.resolve(specs.parse(TINY | fields), threads=1)


def started(**fields: Any) -> Started:
    return Started(
        **{
            "epochs": 2,
            "steps": 20,
            "parameters": 13_000,
            "layers": ["hidden1", "hidden2", "output"],
            "init_sha256": "a" * 64,
            "probe": {"samples": 32, "split": "test", "sha256": "b" * 64},
            "environment": {"creditlab": "0.1.0", "torch": "2.13.0", "device": "cpu", "seed": 1},
        }
        | fields
    )


def progress(*steps: int, loss: float = 1.0) -> Progress:
    intervals = [(step, step / 10, loss, 0.5) for step in steps]
    return Progress(step=steps[-1], epoch=steps[-1] / 10, train_seconds=steps[-1] / 100, intervals=intervals)


def aligned(step: int, cosine: float | None = 0.5) -> Aligned:
    numbers = {"delta_cosine_std": 0.1, "preactivation_cosine": cosine, "delta_angle": 60.0, "activation_rms": 1.0}
    layers = [
        LayerAlignment(layer=layer, delta_cosine=cosine, update_cosine=0.4, norm_ratio=2.0, **numbers)
        for layer in ("hidden1", "hidden2", "output")
    ]
    return Aligned(step=step, epoch=step / 10, layers=layers)


def evaluated(step: int, accuracy: float = 0.5, split: str = "test") -> Evaluated:
    return Evaluated(step=step, epoch=step / 10, split=split, loss=1.0, accuracy=accuracy)


def checkpointed(step: int) -> Checkpointed:
    return Checkpointed(step=step, epoch=step / 10, file=f"somewhere/{step}", size=1, sha256="e" * 64, seconds=0.01)


def results(accuracy: float = 0.5, init: str = "a" * 64, order: str = "c" * 64) -> dict[str, Any]:
    """What a finished run says about itself."""
    return {
        "test": {"accuracy": accuracy, "loss": 1.0},
        "train": {"accuracy": accuracy, "loss": 1.0},
        "alignment": {"probe": None, "layers": []},
        "cost": {"train_seconds": 1.0},
        "pairing": {"init_sha256": init, "order_sha256": order},
        "diagnoses": [],
        "environment": {"creditlab": "0.1.0", "seed": 1},
    }


def gpu(**fields: Any) -> dict[str, Any]:
    """A GPU as a worker's row has it."""
    known = {"index": 0, "uuid": "GPU-1", "name": "H100", "utilization": 0.75, "temperature_celsius": 61}
    known |= {"memory_used_bytes": 3 * 2**30, "memory_total_bytes": 80 * 2**30}
    return known | {"power_watts": 312.5, "energy_joules": 1000.5} | fields
