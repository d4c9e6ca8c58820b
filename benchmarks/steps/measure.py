"""Turns in a round robin, and what ratios within a round say.

Neighbours and drift of a machine's speed hit all contenders of a round alike, so only times of one round are divided
by one another. Each round begins with another contender.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

TURN_SECONDS = 0.1
"""A turn is so many steps as the baseline takes for this long."""
FEWEST_ROUNDS = 6
"""Fewer would not carry an interval."""


@dataclass(frozen=True)
class Estimate:
    """A median, and the interval in which the median of all rounds there might be lies, at 95 %."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """By order statistics, with no assumption of a distribution: of fewer than six values, the extremes."""
        ordered, n = sorted(values), len(values)
        below, k = 0.0, 0
        while (below := below + math.comb(n, k) / 2**n) <= 0.025:
            k += 1
        k = max(k - 1, 0)
        return cls(statistics.median(ordered), ordered[k], ordered[n - 1 - k])

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def wait() -> None:
    """Until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clock(step: Callable[[], object], times: int) -> float:
    """Seconds per step. Short steps are preceded by one that counts not: the caches are the contender's own."""
    if times > 1:
        step()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        step()
    wait()
    return (time.perf_counter() - began) / times


Clock = Callable[[int], float]
"""So many steps of a contender -> seconds per step."""


def interleave(
    clocks: Mapping[str, Clock], rounds: int, seconds: float, turn: float = TURN_SECONDS
) -> tuple[dict[str, list[float]], int]:
    """Seconds per step of each contender in each round, and the steps of a turn; the first named sets its length.

    Ends after ``rounds``, or after ``seconds`` if there have been rounds enough for an interval.
    """
    names = list(clocks)
    for first in clocks.values():
        first(1)  # memory is found, caches and the optimizer's state are filled
    times = max(1, math.ceil(turn / clocks[names[0]](1)))
    took: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for k in range(rounds):
        if k >= FEWEST_ROUNDS and time.perf_counter() - began > seconds:
            break
        begin = k % len(names)
        for name in (*names[begin:], *names[:begin]):
            took[name].append(clocks[name](times))
    return took, times


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Of two contenders, round by round."""
    return Estimate.of([one / other for one, other in zip(mine, theirs, strict=True)])
