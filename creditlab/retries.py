"""When a request is sent again: what went wrong, whether it may pass, and how long to wait."""

import random
import time
from dataclasses import dataclass
from typing import Any

import httpx

JSON = dict[str, Any]

GONE = 404
PASSING = {409: "request_in_progress", 429: "", 503: ""}
"""Statuses that may pass, with the code that the problem must have."""


class ApiError(Exception):
    """The service answered with a problem (RFC 9457).

    Attributes:
        problem: the whole answer: ``status``, ``code``, ``title``, ``detail``, ``errors`` and what else it holds.
        retry_after: seconds after which the service wants to be asked again, where it says so.
    """

    def __init__(self, problem: JSON, retry_after: float | None = None) -> None:
        self.problem = problem
        self.retry_after = retry_after
        self.status: int = problem["status"]
        self.code: str = problem.get("code", "")
        said = filter(None, (problem.get("title"), problem.get("detail")))
        super().__init__(": ".join(said) or f"status {self.status}")


class Unreachable(Exception):  # noqa: N818  (the state of the service, as its user would say it)
    """No service answers at the base URL."""


Failure = ApiError | Unreachable


def refusal(answer: httpx.Response) -> ApiError:
    """The error that an answer, which has been read, tells of."""
    asked = answer.headers.get("Retry-After", "")
    return ApiError(problem(answer), float(asked) if asked.isascii() and asked.isdigit() else None)


def unreachable(base_url: str, error: httpx.TransportError) -> Unreachable:
    return Unreachable(f"no CreditLab service answers at {base_url} ({str(error) or type(error).__name__})")


def problem(answer: httpx.Response) -> JSON:
    """The problem of an answer; made from its status where something else than the service answered."""
    made: JSON = {"status": answer.status_code, "title": answer.reason_phrase, "code": ""}
    if "json" not in answer.headers.get("Content-Type", ""):
        return made
    try:
        told = answer.json()
    except ValueError:
        return made
    return {**made, **told} if isinstance(told, dict) else made


@dataclass(frozen=True)
class Retries:
    """How often a request that may be repeated is sent again, and how long each time is waited for at most.

    Args:
        times: 0 sends nothing again.
        longest: seconds; a service that wants to be left alone for longer is not waited for.
        first: seconds of the first pause where the service names none; each further one is twice as long.
    """

    times: int = 5
    longest: float = 60.0
    first: float = 0.25


class Tries:
    """One request and its failures so far.

    Attributes:
        lost: a try ended without an answer, so that it may have been done.
    """

    def __init__(self, retries: Retries, *, repeatable: bool = True) -> None:
        self.retries = retries
        self.left = retries.times if repeatable else 0
        self.lost = False
        self._next = retries.first

    def pause(self, failure: Failure) -> float:
        """Seconds until the next try. Raises the failure where there is none."""
        self.lost = self.lost or isinstance(failure, Unreachable)
        asked = failure.retry_after if isinstance(failure, ApiError) else None
        if self.left == 0 or not may_pass(failure) or (asked or 0) > self.retries.longest:
            raise failure
        self.left -= 1
        longest, self._next = min(self._next, self.retries.longest), 2 * self._next
        # Clients that lost the service at the same moment do not come back at the same moment.
        return longest * random.uniform(0.5, 1.0) if asked is None else asked  # noqa: S311

    def reset(self) -> None:
        """It goes well: failures count from nothing."""
        self.left, self._next = self.retries.times, self.retries.first


def may_pass(failure: Failure) -> bool:
    if isinstance(failure, Unreachable):
        return True
    return PASSING.get(failure.status) in {"", failure.code}


def is_done(error: ApiError, tries: Tries) -> bool:
    """Whether what was to be deleted is gone because a try did so whose answer was lost."""
    return error.status == GONE and tries.lost


class Deadline:
    """The end of a wait; None: never."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.end = None if seconds is None else time.monotonic() + seconds

    def left(self, most: float) -> float:
        """Seconds that are left, at most so many."""
        return most if self.end is None else max(0.0, min(most, self.end - time.monotonic()))

    def check(self, job: JSON) -> None:
        """Raises TimeoutError once it has passed."""
        if self.end is not None and time.monotonic() >= self.end:
            raise TimeoutError(f"{job['id']} is {job['status']} after {self.seconds:g} s")
