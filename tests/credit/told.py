"""Jobs as figures and report take them, without training."""

import json
import math
from dataclasses import asdict

from credit import spec
from credit.artifacts import series
from credit.events import Aligned, Evaluated, LayerAlignment, Progress

LAYERS = ("hidden1", "hidden2", "output")


def aligned(epoch: int, cosine: float | None) -> Aligned:
    angle = None if cosine is None else math.degrees(math.acos(cosine))
    layers = [
        LayerAlignment(
            layer=layer,
            delta_cosine=cosine,
            delta_cosine_std=0.1,
            preactivation_cosine=cosine,
            delta_angle=angle,
            update_cosine=cosine,
            norm_ratio=1.5,
            activation_rms=0.5,
        )
        for layer in LAYERS
    ]
    return Aligned(step=10 * epoch, epoch=float(epoch), layers=layers)


def events(accuracy: float) -> list:
    said = []
    for epoch in (1, 2, 3):
        said.append(
            Progress(step=10 * epoch, epoch=epoch, train_seconds=1.0, intervals=[(10 * epoch, epoch, 1 / epoch, 0.5)])
        )
        said.append(Evaluated(step=10 * epoch, epoch=epoch, split="test", loss=0.4, accuracy=accuracy * epoch / 3))
        said.append(aligned(epoch, 0.2 * epoch))
    return said


def results(method: str, accuracy: float) -> dict:
    layers = [
        {
            "layer": layer,
            "delta_cosine": {"mean": 0.6, "std": 0.1},
            "preactivation_cosine": None,
            "delta_angle_degrees": 53.13,
            "update_cosine": 0.7,
            "norm_ratio": 1.5,
            "activation_rms": 0.5,
        }
        for layer in LAYERS
    ]
    cost = {
        "train_seconds": 3.0,
        "step_ms_median": 2.5,
        "samples_per_second": 40_000.0,
        "peak_memory_bytes": 3 * 2**20,
        "saved_activation_bytes": 2**20,
        "flops_per_step": 1_230_000_000,
        "parameters": 134_794,
    }
    return {
        "job_id": f"job_{method}",
        "status": "succeeded",
        "method": method,
        "test": {"accuracy": accuracy, "loss": 0.4},
        "train": {"accuracy": accuracy, "loss": 0.3},
        "alignment": {"probe": {"samples": 512, "split": "test", "sha256": "ab" * 32}, "layers": layers},
        "cost": cost,
        "pairing": {"init_sha256": "c4" * 32, "order_sha256": "0d" * 32, "twins": [], "recovery": None},
        "diagnoses": [],
        "environment": {"creditlab": "0.1.0", "seed": 0},
    }


def told(method: str, accuracy: float, name: str | None = None) -> dict:
    """A finished job of three epochs."""
    run = spec.Run(
        method=spec.menu(spec.Method)[method](),
        model=spec.MLP(hidden=(64, 32)),
        dataset=spec.FashionMNISTMini(),
        training=spec.Training(epochs=3, seed=0, threads=1),
        name=name,
    )
    return {
        "results": results(method, accuracy),
        "series": series(events(accuracy)),
        "spec": json.loads(json.dumps(asdict(run))),
        "status": "succeeded",
    }
