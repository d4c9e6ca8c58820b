"""Several seeds of one run: which ones are asked for, and what they come to. No torch."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from credit.spec.base import MAX_SEED
from creditlab import show

JSON = dict[str, Any]
MOST = 1_000
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t for a two-sided 95 % interval, by degrees of freedom from 1 on."""


def parse(text: str) -> tuple[int, ...]:
    """``16``: the seeds 0 to 15; ``3-7``: the seeds 3 to 7.

    Raises:
        ValueError: what was asked for is something else, or too much; the message says what is allowed.
    """
    first, dash, last = text.partition("-")
    parts = (first, last) if dash else (first,)
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise ValueError(f"{text!r} is neither a number of seeds, such as 16, nor a range of them, such as 0-15")
    low, high = (int(first), int(last)) if dash else (0, int(first) - 1)
    if not 1 <= high - low + 1 <= MOST:
        raise ValueError(f"{text!r} are {high - low + 1} seeds; 1 to {MOST} are allowed")
    if high > MAX_SEED:
        raise ValueError(f"the seed {high} is out of range; 0 to {MAX_SEED} are allowed")
    return tuple(range(low, high + 1))


def half_width(values: Sequence[float]) -> float:
    """Of the mean's 95 % interval by Student's t; NaN where there is but one value."""
    n = len(values)
    return student(n - 1) * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan


def student(degrees: int) -> float:
    """Student's t of the two-sided 95 % interval: tabled, from 10 degrees of freedom on by Fisher's expansion."""
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96)
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))


def table(results: Sequence[JSON]) -> Table:
    """A row per seed, those that failed with their reason, and the mean of the others with its 95 % interval."""
    done = [one for one in results if one["status"] == "succeeded"]
    columns: dict[str, Callable[[JSON], float | None]] = {
        "test accuracy": lambda one: one["test"]["accuracy"],
        "training accuracy": lambda one: one["train"]["accuracy"],
        "recovery": lambda one: one["pairing"].get("recovery"),
    }
    rows = [
        (one["seed"], *map(show.percent, (read(one) for read in columns.values())), "")
        if one["status"] == "succeeded"
        else (one["seed"], *("–" for _ in columns), f"{one['error']['code']}: {one['error']['message']}")
        for one in results
    ]
    means = (estimate([value for one in done if (value := read(one)) is not None]) for read in columns.values())
    method = results[0]["method"]
    title = f"{method}, {len(done)} of {len(results)} seeds"
    return show.table("seed", *columns, "", rows=[*rows, ("mean ± 95 %", *means, "")], title=title)


def estimate(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = show.percent(statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean.removesuffix(' %')} ± {show.percent(half_width(values))}"
