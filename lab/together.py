"""Which jobs may train as one computation, and how many of them do (docs/members.md)."""

import math

from credit import spec
from credit.spec.together import alone, kind
from lab import specs

MOST = 16


def key(run: spec.Run) -> str | None:
    """What a run has in common with those that it may train together with; None: it trains alone."""
    return specs.sha256(kind(run)) if run.training.together and alone(run) is None else None


def share(jobs: int, free: int) -> int:
    """Of so many jobs that may train together, how many do; slots that are ``free`` beside take the others."""
    return min(MOST, math.ceil(jobs / (1 + free)))
