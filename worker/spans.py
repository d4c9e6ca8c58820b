"""An attempt as spans of its job's trace, made from what its training process says: that process traces nothing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from credit.events import Checkpointed, Evaluated, Event, Finished, Started
from lab import traces
from lab.attempts import Attempt

MOST_PARTS = 1000
"""Spans of an attempt: a run of a hundred thousand epochs is not told epoch by epoch."""
GOOD = {"finish", "paused", "preempted", "stopped"}
"""Outcomes of attempts in which nothing went wrong."""


def about(attempt: Attempt) -> dict[str, Any]:
    return {
        "creditlab.job_id": attempt.job_id,
        "creditlab.attempt": attempt.number,
        "creditlab.method": attempt.spec["method"]["name"],
        "creditlab.model": attempt.spec["model"]["name"],
        "creditlab.dataset": attempt.spec["dataset"]["name"],
    }


class AttemptSpans:
    """The span of an attempt, and below it one for each stretch between two things that its process says.

    Args:
        attempt: as it was claimed.
        began: when the claim was begun, in nanoseconds since 1970.
    """

    def __init__(self, attempt: Attempt, began: int | None = None) -> None:
        known = about(attempt)
        traces.Span("claim", attempt.traceparent, began=began, about=known).end()
        self.attempt = traces.Span("attempt", attempt.traceparent, about=known)
        self.since = time.time_ns()
        self.parts = 0

    def hear(self, event: Event) -> None:
        """Close the stretch that an event is the end of."""
        match event:
            case Started():
                self._part("startup", step=event.step, device=event.environment.get("device"))
            case Evaluated():
                self._part("epoch", epoch=event.epoch, step=event.step, split=event.split)
            case Checkpointed():
                self._part("checkpoint", step=event.step, bytes=event.size, seconds=event.seconds)
            case Finished():
                self._part("write artifacts", step=event.step)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What the worker itself does in this block."""
        self.since = time.time_ns()
        try:
            yield
        finally:
            self._part(name)

    def end(self, outcome: str | None) -> None:
        """The attempt is over; ``outcome`` as its row has it, or why nobody could write one."""
        self.attempt.end(failed=outcome not in GOOD, about={"creditlab.outcome": outcome})

    def _part(self, name: str, **facts: Any) -> None:
        began, self.since = self.since, time.time_ns()
        if self.parts < MOST_PARTS:
            self.parts += 1
            known = {f"creditlab.{fact}": value for fact, value in facts.items()}
            traces.Span(name, self.attempt, began=began, about=known).end()
