"""A thread that does its duty again and again, whatever happens to the database meanwhile."""

import logging
import threading
from abc import ABC, abstractmethod
from typing import ClassVar

from lab.errors import DatabaseUnavailable

log = logging.getLogger(__name__)


class Ticker(ABC):
    """Base of what runs beside the requests or the training of a process.

    Args:
        seconds: from the end of a tick to the next one.
    """

    duty: ClassVar[str]
    """Names the thread, and who it was in the log."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.duty, daemon=True)

    @abstractmethod
    def tick(self) -> object:
        """Do the duty once. May raise DatabaseUnavailable, which is waited out."""

    def disturbed(self) -> None:  # noqa: B027  (most have nothing to forget)
        """The database was away in a tick."""

    def start(self) -> None:
        """Tick in a thread, until ``stop``."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the tick that it is in."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self.tick()
            except DatabaseUnavailable as error:
                self.disturbed()
                log.warning("the database is away, says the %s: %s", self.duty, error.__cause__)
            except Exception:
                log.exception("the %s met a bug; it goes on", self.duty)
