"""Attempts that train as one computation: one process, and for each attempt a seat in it.

To its supervisor a seat is the process: it hears what is said of its attempt alone, and whoever leaves disturbs nobody.
"""

import json
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

from lab.attempts import Attempt
from worker import launch

PLACE = struct.Struct(">H")
"""What the process says begins with the place of a seat; the place alone says that it has said everything there."""
Take = Callable[[dict[str, Any]], "Seat"]
LOOK_SECONDS = 0.1
MOST_UNHEARD = 10_000
"""Words for one seat that nobody has heard yet; the process has to wait then, as it has with a full pipe."""


def train(attempts: Sequence[Attempt], supervise: Callable[[Attempt, Take], None]) -> None:
    """Supervise attempts, each in a thread of its own, until all have ended."""
    company = Company(len(attempts), attempts[0].lease_seconds)

    def sit(attempt: Attempt, seat: Seat) -> None:
        try:
            supervise(attempt, seat.take)
        finally:
            seat.stop()

    try:
        with ThreadPoolExecutor(len(attempts), thread_name_prefix="member") as pool:
            list(pool.map(sit, attempts, company.seats))
    finally:
        company.close()


class Company:
    """The one process of so many attempts. It starts when the first seat is taken."""

    def __init__(self, size: int, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self.changed = threading.Condition()
        self.seats = [Seat(self, place) for place in range(size)]
        self.runner: launch.Runner | None = None
        self.over = False
        """The process has ended, and all that it said is at the seats."""
        self.status = 0
        self._speaking = threading.Lock()
        self._listener: threading.Thread | None = None

    def started(self) -> launch.Runner:
        """The process. Raises OSError, EOFError where it cannot be started."""
        with self.changed:
            if self.runner is None:
                order = {"size": len(self.seats), "lease_seconds": self.lease_seconds}
                self.runner = launch.start("company_runner.main", order)
                self._listener = threading.Thread(target=self._listen, args=(self.runner,), name="company", daemon=True)
                self._listener.start()
                for seat in self.seats:
                    if seat.left:
                        self.say(seat.place, "leave")
            return self.runner

    def say(self, place: int, word: str, **more: Any) -> None:
        """Say something to the process, if there is one; it may have ended."""
        if self.runner:
            with self._speaking, suppress(OSError):
                self.runner.pipe.send_bytes(json.dumps({"place": place, "word": word, **more}).encode())

    def _listen(self, runner: launch.Runner) -> None:
        """Hear the process until it has ended, or nobody is left to hear it; then it is ended."""
        ended = False
        while not ended and not all(seat.left for seat in self.seats):
            runner.wait(LOOK_SECONDS)
            ended = runner.ended()
            while said := runner.hear():
                self._deliver(said)
        runner.stop()
        with self._speaking:
            self.status = runner.exit_status()
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def _deliver(self, said: bytes) -> None:
        (place,), word = PLACE.unpack_from(said), said[PLACE.size :]
        seat = self.seats[place]
        with self.changed:
            self.changed.wait_for(lambda: seat.left or len(seat.unheard) < MOST_UNHEARD)
            if not word:
                seat.over = True
            elif not seat.left:
                seat.unheard.append(word)
            self.changed.notify_all()

    def close(self) -> None:
        """Wait until the process is gone; everybody has left."""
        if self._listener:
            self._listener.join()


class Seat:
    """The process of a company, as the supervisor of one attempt sees it; like ``worker.launch.Runner``."""

    def __init__(self, company: Company, place: int) -> None:
        self.company, self.place = company, place
        self.unheard: deque[bytes] = deque()
        self.left = self.over = False

    def take(self, order: dict[str, Any]) -> Self:
        """Have the process train as ordered; it begins when every seat is taken or left. Raises OSError, EOFError."""
        self.company.started()
        self.company.say(self.place, "order", order=order)
        return self

    @property
    def pid(self) -> int:
        return self.company.started().pid

    def hear(self) -> bytes | None:
        """What was said next of this attempt; None where that has not come yet, or never will."""
        with self.company.changed:
            word = self.unheard.popleft() if self.unheard else None
            self.company.changed.notify_all()
            return word

    def wait(self, seconds: float) -> None:
        """Wait until there is something to hear, nothing more will come, or the time is over."""
        with self.company.changed:
            self.company.changed.wait_for(lambda: self.unheard or self.ended(), seconds)

    def tell(self, word: str) -> None:
        """Say that its supervisor is ``alive``, or that a checkpoint shall be stored and this attempt ``stop``."""
        self.company.say(self.place, word)

    def ended(self) -> bool:
        """Whether the process has ended, or has done with this attempt; what it said may still be unheard."""
        return self.over or self.company.over

    def stop(self) -> None:
        """Leave. The others go on; with the last one the process ends."""
        with self.company.changed:
            if self.left:
                return
            self.left = True
            self.unheard.clear()
            self.company.changed.notify_all()
        self.company.say(self.place, "leave")

    def exit_status(self) -> int:
        """Of the process, if it has ended: its exit code, or minus the number of the signal that ended it."""
        return self.company.status
