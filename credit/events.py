"""What a run says: the one vocabulary of the training process, the tables and the command line. No torch.

``credit.train.run`` yields these events and knows nobody; the consumer decides what an event means. Numbers that are
undefined (the cosine of a zero gradient) are ``None`` here and ``null`` in JSON, never 0 or 1.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple


class RunError(Exception):
    """A run that cannot go on, for a reason its user should read.

    Attributes:
        code: ``user_error``, ``dataset_unavailable``, ``diverged``, ``out_of_memory``, ``storage_unavailable``, or
            ``killed`` and ``internal_error`` of a process that trained beside the first one.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Point(NamedTuple):
    """One value of one series; ``layer`` is None for series of the whole net."""

    series: str
    layer: str | None
    step: int
    epoch: float
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events; ``type`` tells them apart in JSON."""

    type: ClassVar[str]

    def points(self) -> Iterator[Point]:
        """The metric points that this event carries."""
        return iter(())

    def to_json(self) -> bytes:
        return json.dumps({"type": self.type, **asdict(self)}, allow_nan=False).encode()


@dataclass(frozen=True, kw_only=True)
class Fetching(Event):
    """The data set is being downloaded, before the run starts; sent now and then, by whoever runs it."""

    type: ClassVar[str] = "fetching"
    received: int
    """Bytes so far."""
    size: int
    """Bytes in all; 0 where nobody says."""

    def __str__(self) -> str:
        whole = f" of {self.size / 1e6:.1f}" if self.size else ""
        return f"downloading the data set, {self.received / 1e6:.1f}{whole} MB"


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """The run is built and is about to take its first step, or its first one after a checkpoint."""

    type: ClassVar[str] = "started"
    epochs: int
    steps: int
    """Optimizer steps of the whole run."""
    parameters: int
    layers: list[str]
    init_sha256: str
    """Of all initial weights and buffers of the net, in order."""
    probe: dict[str, Any] | None
    """``{"samples", "split", "sha256"}`` of the alignment probe; None where alignment is never measured."""
    environment: dict[str, Any]
    """``{"creditlab", "torch", "python", "device", "threads", "seed", "dataset_sha256"}``."""
    step: int = 0
    """Steps that are done already; what was told beyond them by an earlier process is void."""
    known: dict[str, Any] = field(default_factory=dict)
    """What the results knew after that step."""


@dataclass(frozen=True, kw_only=True)
class Recalled(Event):
    """What was measured before a checkpoint, for those who want the whole run; never sent."""

    type: ClassVar[str] = "recalled"
    series: list[dict[str, Any]]
    """As the API's metrics have them; only the points up to ``step`` count."""
    step: int

    def points(self) -> Iterator[Point]:
        for row in self.series:
            for step, epoch, value in row["points"]:
                if step <= self.step:
                    yield Point(row["name"], row["layer"], step, epoch, value)


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """Training went on; sent every ``training.log_every`` steps, several intervals at a time where steps are quick."""

    type: ClassVar[str] = "progress"
    step: int
    epoch: float
    train_seconds: float
    intervals: list[tuple[int, float, float, float]]
    """(step, epoch, mean loss, mean accuracy) of each interval of ``log_every`` steps, at the interval's last step."""

    def points(self) -> Iterator[Point]:
        for step, epoch, loss, accuracy in self.intervals:
            yield Point("train/loss", None, step, epoch, loss)
            yield Point("train/accuracy", None, step, epoch, accuracy)


@dataclass(frozen=True, kw_only=True)
class LayerAlignment:
    """The method's signal at one layer against backpropagation's, over the probe batch."""

    layer: str
    delta_cosine: float | None
    delta_cosine_std: float | None
    preactivation_cosine: float | None
    delta_angle: float | None
    """Mean of the per-sample angles, in degrees."""
    update_cosine: float | None
    norm_ratio: float | None
    activation_rms: float | None
    score_correlation: float | None = None
    """Mean over the layer's outputs and the classes of |Pearson(h_i, s_c)| over the probe."""

    def result(self) -> dict[str, Any]:
        """As the results tell it."""
        return {
            "layer": self.layer,
            "delta_cosine": {"mean": self.delta_cosine, "std": self.delta_cosine_std},
            "preactivation_cosine": self.preactivation_cosine,
            "delta_angle_degrees": self.delta_angle,
            "update_cosine": self.update_cosine,
            "norm_ratio": self.norm_ratio,
            "activation_rms": self.activation_rms,
        }


ALIGNMENT_SERIES = {
    "delta_cosine": "alignment/delta_cosine",
    "delta_cosine_std": "alignment/delta_cosine_std",
    "preactivation_cosine": "alignment/preactivation_cosine",
    "delta_angle": "alignment/delta_angle",
    "update_cosine": "alignment/update_cosine",
    "norm_ratio": "alignment/norm_ratio",
    "activation_rms": "layer/activation_rms",
    "score_correlation": "layer/score_correlation",
}


@dataclass(frozen=True, kw_only=True)
class Aligned(Event):
    """An alignment probe was taken."""

    type: ClassVar[str] = "aligned"
    step: int
    epoch: float
    layers: list[LayerAlignment]
    gauges: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Series of the method's own state, such as ``layer/r_cosine``: a value per layer."""

    def points(self) -> Iterator[Point]:
        for layer in self.layers:
            for attribute, series in ALIGNMENT_SERIES.items():
                yield Point(series, layer.layer, self.step, self.epoch, getattr(layer, attribute))
        for series, values in self.gauges.items():
            for name, value in values.items():
                yield Point(series, name, self.step, self.epoch, value)


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """The net was evaluated on a whole split (``test`` or ``validation``)."""

    type: ClassVar[str] = "evaluated"
    step: int
    epoch: float
    split: str
    loss: float
    accuracy: float
    layers: dict[str, float] = field(default_factory=dict)
    """Accuracy of each layer that has a readout of its own."""

    def result(self) -> dict[str, Any]:
        """As the results tell it; ``layers`` only where a layer has a readout."""
        whole = {"accuracy": self.accuracy, "loss": self.loss}
        return whole | ({"layers": self.layers} if self.layers else {})

    def points(self) -> Iterator[Point]:
        yield Point(f"{self.split}/loss", None, self.step, self.epoch, self.loss)
        yield Point(f"{self.split}/accuracy", None, self.step, self.epoch, self.accuracy)
        if self.split == "test":
            for layer, accuracy in self.layers.items():
                yield Point("layer/accuracy", layer, self.step, self.epoch, accuracy)


@dataclass(frozen=True, kw_only=True)
class Checkpointed(Event):
    """The run's state is stored; everything up to this step has been told."""

    type: ClassVar[str] = "checkpointed"
    step: int
    epoch: float
    file: str
    """Its name; as the service records it, its place in the artifact store."""
    size: int
    """Bytes."""
    sha256: str
    seconds: float
    """Training stood still for so long."""


@dataclass(frozen=True, kw_only=True)
class Troubled(Event):
    """Something failed that training does not depend on, such as a checkpoint that could not be written or read."""

    type: ClassVar[str] = "troubled"
    message: str


@dataclass(frozen=True, kw_only=True)
class Diagnosed(Event):
    """Something is wrong with the learning, said by name, with evidence and advice."""

    type: ClassVar[str] = "diagnosed"
    code: str
    layer: str | None
    step: int
    evidence: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The run is complete; ``results`` is the science part of the contract's results JSON."""

    type: ClassVar[str] = "finished"
    step: int
    results: dict[str, Any] = field(default_factory=dict)
    """``test``, ``train``, ``alignment``, ``cost``, ``pairing`` (hashes only), ``diagnoses``, ``environment``."""


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The run ended for a reason of its own: a ``RunError``, or a bug (``internal_error``)."""

    type: ClassVar[str] = "failed"
    code: str
    message: str


KINDS: dict[str, type[Event]] = {
    kind.type: kind
    for kind in (
        Fetching,
        Started,
        Progress,
        Aligned,
        Evaluated,
        Checkpointed,
        Troubled,
        Diagnosed,
        Finished,
        Failed,
    )
}


def from_json(raw: bytes | str) -> Event:
    """The event that ``to_json`` wrote."""
    data = json.loads(raw)
    kind = KINDS[data.pop("type")]
    if kind is Aligned:
        data["layers"] = [LayerAlignment(**layer) for layer in data["layers"]]
    if kind is Progress:
        data["intervals"] = [tuple(interval) for interval in data["intervals"]]
    return kind(**data)
