"""Waiting for jobs without holding a connection or a thread: one watcher per process asks for all that are watched."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.types import Receive

from api.etags import Position, positions_of
from api.metrics import Metrics
from lab.db import Database, Tx
from lab.errors import LabError
from lab.projects import Caller
from lab.states import TERMINAL

INTERVAL_SECONDS = 0.1
QUESTIONS = 2
"""Threads, and so connections, that all who wait have together."""
IDS_PER_QUESTION = 1000

log = logging.getLogger("creditlab.api")

T = TypeVar("T")
Test = Callable[[Position | None], bool]
"""Whether a job's position (None: there is no such job any more) is news to somebody."""


@dataclass(eq=False)
class Waiter:
    tests: Mapping[str, Test]
    """By the id of the job."""
    moved: set[str] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Watcher:
    """Asks the database once per interval where all watched jobs are, and wakes whom it concerns."""

    def __init__(self, db: Database, metrics: Metrics) -> None:
        self.db = db
        self.metrics = metrics
        self.waiters: set[Waiter] = set()
        self.wanted = asyncio.Event()
        self.closing = asyncio.Event()
        self.limiter = anyio.CapacityLimiter(QUESTIONS)
        self.streams = 0
        """Open ones."""

    async def run(self) -> None:
        """Watch until cancelled; while nobody waits, nothing is asked."""
        while True:
            await self.wanted.wait()
            try:
                await self.look()
            except LabError as error:
                log.warning("cannot look after those who wait: %s", error)
            except Exception:
                log.exception("looking after those who wait failed; they are answered at their limit")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def look(self) -> None:
        ids = {job_id for waiter in self.waiters for job_id in waiter.tests}
        positions = await self.ask(lambda tx: self.positions(tx, list(ids)))
        for waiter in self.waiters:
            known = waiter.tests.keys() & ids
            waiter.moved |= {job_id for job_id in known if waiter.tests[job_id](positions.get(job_id))}
            if waiter.moved:
                waiter.news.set()

    def positions(self, tx: Tx, ids: list[str]) -> dict[str, Position]:
        found: dict[str, Position] = {}
        for start in range(0, len(ids), IDS_PER_QUESTION):
            found |= positions_of(tx, ids[start : start + IDS_PER_QUESTION])
        return found

    async def ask(self, question: Callable[[Tx], T], caller: Caller | None = None) -> T:
        """The answer of a short transaction, as a caller sees it, in one of the few threads for those who wait."""
        db = caller.of(self.db) if caller else self.db

        def answer() -> T:
            with db.read() as tx:
                return question(tx)

        return await anyio.to_thread.run_sync(answer, limiter=self.limiter)

    async def until_moved(self, tests: Mapping[str, Test], seconds: float) -> set[str]:
        """The jobs that are news; none after ``seconds``, or when the service stops."""
        waiter = Waiter(tests)
        if self.closing.is_set():
            return set()
        self.waiters.add(waiter)
        self.metrics.waiters.inc()
        self.wanted.set()
        try:
            async with asyncio.timeout(seconds):
                await waiter.news.wait()
        except TimeoutError:
            return set()
        finally:
            self.waiters.discard(waiter)
            self.metrics.waiters.dec()
            if not self.waiters:
                self.wanted.clear()
        return waiter.moved

    async def until_news(self, job_id: str, seen: Collection[int], seconds: float, request: Request) -> None:
        """Return when the job's status is news, after ``seconds``, when the client hangs up or the service stops."""
        waiting = asyncio.create_task(self.until_moved({job_id: lambda place: is_news(place, seen)}, seconds))
        gone = asyncio.create_task(hung_up(request.receive))
        try:
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            gone.cancel()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Inside, one stream more is open."""
        self.streams += 1
        self.metrics.streams.inc()
        try:
            yield
        finally:
            self.streams -= 1
            self.metrics.streams.dec()

    def close(self) -> None:
        """Answer everybody who waits, now and from now on: the service is about to stop."""
        self.closing.set()
        for waiter in self.waiters:
            waiter.news.set()


def is_news(position: Position | None, seen: Collection[int]) -> bool:
    """Whether a client that knows ``seen`` is to be told: another status, an ended job, or no job any more."""
    return position is None or position.status in TERMINAL or position.status_changes not in seen


async def hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
