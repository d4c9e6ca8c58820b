"""What ticks goes on whatever a tick meets, and ends when it is told to."""

import logging
import queue

import pytest

from lab.errors import DatabaseUnavailable
from lab.ticker import Ticker

DEADLINE = 20.0


class Told(Ticker):
    """Meets one thing after the other, and says what it has met."""

    duty = "teller"

    def __init__(self, *troubles):
        super().__init__(0.001)
        self.troubles = list(troubles)
        self.ticks = queue.Queue()
        self.disturbances = 0

    def tick(self):
        trouble = self.troubles.pop(0) if self.troubles else None
        self.ticks.put(trouble)
        if trouble is not None:
            raise trouble

    def disturbed(self):
        self.disturbances += 1


def test_it_goes_on_after_a_bug_and_while_the_database_is_away(caplog: pytest.LogCaptureFixture) -> None:
    away, bug = DatabaseUnavailable(), ZeroDivisionError("a bug")
    ticker = Told(away, bug)
    with caplog.at_level(logging.WARNING):
        ticker.start()
        assert [ticker.ticks.get(timeout=DEADLINE) for _ in range(3)] == [away, bug, None]
        ticker.stop()
    assert ticker.disturbances == 1
    first, second = caplog.records
    assert (first.levelname, first.exc_info) == ("WARNING", None)
    assert "the database is away, says the teller" in first.getMessage()
    assert second.exc_info[1] is bug


def test_after_stop_there_is_no_tick_and_no_thread() -> None:
    ticker = Told()
    ticker.start()
    ticker.ticks.get(timeout=DEADLINE)
    ticker.stop()
    done = ticker.ticks.qsize()
    assert not ticker._thread.is_alive()
    assert ticker.ticks.qsize() == done


def test_one_that_was_never_started_can_be_stopped() -> None:
    Told().stop()
