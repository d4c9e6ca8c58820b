"""Waiting for a job without holding a connection or a thread: one watcher per process asks for all that are watched."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.etags import Position, positions_of
from lab.db import Database
from lab.errors import LabError
from lab.states import TERMINAL

INTERVAL_SECONDS = 0.1

log = logging.getLogger("creditlab.api")


@dataclass(eq=False)
class Waiter:
    job_id: str
    seen: Collection[int]
    """Counts of status changes that are no news to the client."""
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Watcher:
    """Asks the database once per interval where all watched jobs are, and wakes whom it concerns."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.waiters: set[Waiter] = set()
        self.wanted = asyncio.Event()
        self.closing = False

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
        ids = {waiter.job_id for waiter in self.waiters}
        positions = await run_in_threadpool(self.positions, ids)
        for waiter in self.waiters:
            if waiter.job_id in ids and is_news(positions.get(waiter.job_id), waiter.seen):
                waiter.news.set()

    def positions(self, ids: Collection[str]) -> dict[str, Position]:
        with self.db.read() as tx:
            return positions_of(tx, ids)

    async def until_news(self, job_id: str, seen: Collection[int], seconds: float, request: Request) -> None:
        """Return when the job's status is news, after ``seconds``, when the client hangs up or the service stops."""
        waiter = Waiter(job_id, seen)
        if self.closing:
            waiter.news.set()
        self.waiters.add(waiter)
        self.wanted.set()
        news, gone = asyncio.create_task(waiter.news.wait()), asyncio.create_task(hung_up(request))
        try:
            await asyncio.wait({news, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
            gone.cancel()
            self.waiters.discard(waiter)
            if not self.waiters:
                self.wanted.clear()

    def close(self) -> None:
        """Answer everybody who waits, now and from now on: the service is about to stop."""
        self.closing = True
        for waiter in self.waiters:
            waiter.news.set()


def is_news(position: Position | None, seen: Collection[int]) -> bool:
    """Whether a client that knows ``seen`` is to be told: another status, an ended job, or no job any more."""
    return position is None or position.status in TERMINAL or position.status_changes not in seen


async def hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
