"""What the training steps of an interval came to: losses, hits and time, gathered on the device and read at once."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """The steps between two readings."""

    losses: list[float]
    """Of each step."""
    hits: int
    samples: int
    seconds: float
    """Of all steps; steps that could not be timed count as long as the others."""

    @property
    def loss(self) -> float:
        return statistics.fmean(self.losses)

    @property
    def accuracy(self) -> float:
        return self.hits / self.samples

    @property
    def first_bad(self) -> int | None:
        """The first step of the interval whose loss is not finite."""
        return next((k for k, loss in enumerate(self.losses) if not abs(loss) < float("inf")), None)


class Tally:
    """Adds up steps without a synchronisation; ``read`` is the only one.

    Args:
        size: the most steps between two readings.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.losses = torch.zeros(size, dtype=torch.float64, device=device)
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.clear()

    def clear(self) -> None:
        """Begin an interval, and its clock."""
        self.steps, self.samples, self.untimed_steps, self.untimed_seconds = 0, 0, 0, 0.0
        self.started = time.perf_counter()
        self.hits.zero_()

    def add(self, loss: Tensor, hits: Tensor, samples: int) -> None:
        self.losses[self.steps].copy_(loss)
        self.hits += hits.to(self.hits.dtype)
        self.steps += 1
        self.samples += samples

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The clock does not count the body."""
        began = time.perf_counter()
        yield
        self.started += time.perf_counter() - began

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """The body is a step that also prepares later ones: it counts as long as the others."""
        with self.paused():
            yield
        self.untimed_steps += 1

    @contextmanager
    def distorted(self) -> Iterator[None]:
        """The body is a step that takes longer than the others, since it is watched."""
        began = time.perf_counter()
        with self.untimed():
            yield
        self.untimed_seconds += time.perf_counter() - began

    def read(self) -> Interval:
        *losses, hits = torch.cat((self.losses[: self.steps], self.hits.double()[None])).tolist()
        return Interval(losses, int(hits), self.samples, self.seconds())

    def seconds(self) -> float:
        """What the steps since ``clear`` took."""
        clocked = time.perf_counter() - self.started
        timed = self.steps - self.untimed_steps
        return clocked * self.steps / timed if timed else clocked + self.untimed_seconds

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps of an interval that is not over, besides the losses."""
        return {
            "hits": int(self.hits),
            "samples": self.samples,
            "untimed": self.untimed_steps,
            "untimed_seconds": self.untimed_seconds,
            "seconds": time.perf_counter() - self.started,
        }

    def restore(self, plain: dict[str, Any], losses: Tensor) -> None:
        """Go on with the interval of a checkpoint."""
        self.steps, self.samples = len(losses), plain["samples"]
        self.losses[: self.steps].copy_(losses)
        self.hits.fill_(plain["hits"])
        self.untimed_steps, self.untimed_seconds = plain["untimed"], plain["untimed_seconds"]
        self.started = time.perf_counter() - plain["seconds"]
