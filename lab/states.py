"""The states of a job and every way from one to another; ``docs/job-states.md`` is generated from this file."""

from enum import StrEnum


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


MEANING = {
    State.QUEUED: "waits for a worker",
    State.RUNNING: "a worker holds its lease and trains it",
    State.PAUSING: "is asked to store a checkpoint and stop",
    State.PAUSED: "rests until it is resumed",
    State.CANCELLING: "its training process is being ended",
    State.CANCELLED: "was ended by its user; what it measured until then is kept",
    State.SUCCEEDED: "trained to its end; its results are final",
    State.FAILED: "ended with an error that says why",
}

TERMINAL = frozenset({State.CANCELLED, State.SUCCEEDED, State.FAILED})
HELD = frozenset({State.RUNNING, State.PAUSING, State.CANCELLING})
"""States in which an attempt holds the lease."""


class Event(StrEnum):
    CLAIM = "claim"
    FINISH = "finish"
    FAIL = "fail"
    LOSE = "lose"
    PREEMPT = "preempt"
    PAUSE = "pause"
    PAUSE_DONE = "paused"
    RESUME = "resume"
    CANCEL = "cancel"
    STOPPED = "stopped"
    RETRY = "retry"


CAUSE = {
    Event.CLAIM: "a worker takes the job: new lease, new fence, next attempt",
    Event.FINISH: "the training came to its end",
    Event.FAIL: "the training failed for good",
    Event.LOSE: "the training process or its worker is gone, and an attempt is left",
    Event.PREEMPT: "the worker shuts down; this does not count as a failed attempt",
    Event.PAUSE: "command of the user",
    Event.PAUSE_DONE: "the checkpoint is stored and the process gone",
    Event.RESUME: "command of the user",
    Event.CANCEL: "command of the user",
    Event.STOPPED: "the training process is gone",
    Event.RETRY: "command of the user",
}

EDGES: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.CLAIM): State.RUNNING,
    (State.QUEUED, Event.PAUSE): State.PAUSED,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.FINISH): State.SUCCEEDED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.LOSE): State.QUEUED,
    (State.RUNNING, Event.PREEMPT): State.QUEUED,
    (State.RUNNING, Event.PAUSE): State.PAUSING,
    (State.RUNNING, Event.CANCEL): State.CANCELLING,
    (State.PAUSING, Event.FINISH): State.SUCCEEDED,
    (State.PAUSING, Event.FAIL): State.FAILED,
    (State.PAUSING, Event.LOSE): State.PAUSED,
    (State.PAUSING, Event.PREEMPT): State.PAUSED,
    (State.PAUSING, Event.PAUSE_DONE): State.PAUSED,
    (State.PAUSING, Event.CANCEL): State.CANCELLING,
    (State.PAUSED, Event.RESUME): State.QUEUED,
    (State.PAUSED, Event.CANCEL): State.CANCELLED,
    (State.CANCELLING, Event.FINISH): State.CANCELLED,
    (State.CANCELLING, Event.FAIL): State.CANCELLED,
    (State.CANCELLING, Event.LOSE): State.CANCELLED,
    (State.CANCELLING, Event.PREEMPT): State.CANCELLED,
    (State.CANCELLING, Event.STOPPED): State.CANCELLED,
    (State.CANCELLED, Event.RETRY): State.QUEUED,
    (State.FAILED, Event.RETRY): State.QUEUED,
}


def targets(event: Event) -> dict[State, State]:
    """Where ``event`` leads, by the state it finds; states that refuse it are missing."""
    return {source: target for (source, cause), target in EDGES.items() if cause == event}


def document() -> str:
    """``docs/job-states.md``."""
    lines = ["# States of a job", "", "Generated from `lab/states.py`; a test compares the two.", "", "```mermaid"]
    lines += ["stateDiagram-v2", "    [*] --> queued"]
    lines += [f"    {source} --> {target}: {event}" for (source, event), target in EDGES.items()]
    lines += [f"    {state} --> [*]" for state in State if state in TERMINAL]
    lines += ["```", "", "| state | meaning |", "| --- | --- |"]
    lines += [f"| `{state}` | {MEANING[state]} |" for state in State]
    lines += ["", "| event | cause | edges |", "| --- | --- | --- |"]
    for event in Event:
        edges = ", ".join(f"{source} → {target}" for source, target in targets(event).items())
        lines.append(f"| `{event}` | {CAUSE[event]} | {edges} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
