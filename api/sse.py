"""Server-sent events: the log of jobs as it grows, each event once and in order, and live values beside it.

A stream is a coroutine that asks for a page, sends it and sleeps until the watcher wakes it. Why neither sse-starlette
nor FastAPI's own: the first replaces uvicorn's signal handler and asks twice a second whether to stop, which the
watcher knows; the second has no limit for a client that does not read.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.stream import Test, Watcher, hung_up
from lab import feed
from lab.errors import LabError
from lab.projects import Caller

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "Vary": "Authorization, Accept",
    "X-Accel-Buffering": "no",
}
RETRY = b"retry: 3000\n\n"
COMMENT = b": still here\n\n"
COMMENT_SECONDS = 15.0
SEND_SECONDS = 30.0
"""A client that takes a page no faster is cut off, and resumes when it likes."""
LAST_SECONDS = 0.5
"""For the end of a stream to be sent: a client that does not read must not hold up a service that stops."""
AGAIN_SECONDS = 1.0

log = logging.getLogger("creditlab.api")

Identify = Callable[[Mapping[str, int]], str]
"""The ``id:`` of an event, made of the number of the last event of each job."""


async def answer(
    watcher: Watcher, caller: Caller, seqs: Mapping[str, int], identify: Identify, *, resumed: bool
) -> Response:
    """The stream of these jobs after these events; 204, which ends an EventSource, where a client knows them all.

    Raises:
        JobNotFound: the caller has no such job.
    """
    if await watcher.ask(lambda tx: feed.is_over(tx, seqs), caller) and resumed:
        return Response(status_code=204, headers={"Cache-Control": "no-cache", "Vary": HEADERS["Vary"]})
    return EventStream(watcher, frames(watcher, seqs, identify))


class EventStream(Response):
    """Sends chunks until there are no more, the client has gone or reads too slowly, or the service stops."""

    def __init__(self, watcher: Watcher, chunks: AsyncIterator[bytes]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["Content-Length"]
        self.watcher, self.chunks = watcher, chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope.get("head") or await self.stream(receive, send):
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def stream(self, receive: Receive, send: Send) -> bool:
        """False where the client does not read, so that no more can be sent."""
        sending = asyncio.create_task(self.send_all(send))
        ends = [asyncio.create_task(hung_up(receive)), asyncio.create_task(self.watcher.closing.wait())]
        try:
            with self.watcher.streaming():
                await asyncio.wait({sending, *ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, *ends):
                task.cancel()
            told, *_ = await asyncio.gather(sending, *ends, return_exceptions=True)
        if isinstance(told, TimeoutError):
            log.info("a client has not read its events for %g s and is cut off", SEND_SECONDS)
        elif isinstance(told, Exception):
            log.error("a stream of events ended with a fault", exc_info=told)
        return not isinstance(told, TimeoutError)

    async def send_all(self, send: Send) -> None:
        async for chunk in self.chunks:
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def frames(watcher: Watcher, seqs: Mapping[str, int], identify: Identify) -> AsyncIterator[bytes]:
    """What a client is sent, page by page."""
    places = {job_id: feed.Place(job_id, seq) for job_id, seq in seqs.items()}
    ended: dict[str, str | None] = {}
    due = set(places)
    yield RETRY
    while len(ended) < len(places) and not watcher.closing.is_set():
        for job_id in sorted(due):
            more = True
            while more:
                news, places[job_id] = await look(watcher, places[job_id])
                if page := "".join(told(news, job_id, {key: place.seq for key, place in places.items()}, identify)):
                    yield page.encode()
                more = news.more
            if news.last:
                ended[job_id] = news.status
        tests = {job_id: moved_from(place) for job_id, place in places.items() if job_id not in ended}
        if tests and not (due := await watcher.until_moved(tests, COMMENT_SECONDS)):
            yield COMMENT
    if not watcher.closing.is_set():
        yield frame("end", {"jobs": [{"job_id": job_id, "status": ended[job_id]} for job_id in places]}).encode()


async def look(watcher: Watcher, place: feed.Place) -> tuple[feed.News, feed.Place]:
    """The next look at a job, tried again while the database is away: a stream survives that."""
    while True:
        try:
            return await watcher.ask(lambda tx: feed.look(tx, place))
        except LabError:
            await asyncio.sleep(AGAIN_SECONDS)


def moved_from(place: feed.Place) -> Test:
    return lambda position: position is None or position.version != place.version


def told(news: feed.News, job_id: str, seqs: dict[str, int], identify: Identify) -> Iterator[str]:
    """A look as frames. Live values have no id: they do not move the place from which a client resumes."""
    for event in news.events:
        seqs[job_id] = event["seq"]
        yield frame(event["type"], event, identify(seqs))
    if news.progress:
        yield frame("progress", {"job_id": job_id, "status": news.status, "progress": news.progress})
    if news.series:
        yield frame("metrics", {"job_id": job_id, "series": news.series})


def frame(event: str, data: Any, identity: str | None = None) -> str:
    head = "" if identity is None else f"id: {identity}\n"
    return f"{head}event: {event}\ndata: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n"
