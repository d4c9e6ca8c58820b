"""The client for asyncio: the methods of ``Client``, to be awaited or iterated over by ``async for``."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

import httpx

from creditlab.calls import ENDED, JSON, LONGEST_WAIT, Call, Calls, Filter, following, get, watching
from creditlab.client import connection
from creditlab.job import AsyncJob
from creditlab.retries import ApiError, Deadline, Retries, Tries, Unreachable, is_done, refusal, unreachable
from creditlab.sse import NOTHING_LEFT, Place
from creditlab.transfer import Landing, Pages

T = TypeVar("T")


class AsyncClient(Calls[Awaitable[JSON], Awaitable[None]]):
    """One connection to a CreditLab service; arguments and errors are those of ``Client``."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        retries: Retries = Retries(),  # noqa: B008  (it is frozen)
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.retries = retries
        self._http = httpx.AsyncClient(**connection(base_url, api_key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    # ---- jobs --------------------------------------------------------------------------------------------------------

    async def create(self, spec: Mapping[str, object]) -> AsyncJob:
        return AsyncJob(self, await self.submit(spec))

    async def job(self, job_id: str) -> AsyncJob:
        return AsyncJob(self, await self.get(job_id))

    async def list(self, *, limit: int | None = None, **filters: Filter) -> AsyncIterator[JSON]:
        pages = Pages(limit)
        while pages.more:
            for row in pages.take(await self.page(limit=pages.size, after=pages.after, **filters)):
                yield row

    async def wait(self, job_id: str, timeout: float | None = None) -> JSON:  # noqa: ASYNC109  (the wait is the service's)
        deadline = Deadline(timeout)
        while (job := await self.get(job_id, wait=deadline.left(LONGEST_WAIT)))["status"] not in ENDED:
            deadline.check(job)
        return job

    # ---- what a job said ---------------------------------------------------------------------------------------------

    async def events(self, job_id: str, after_seq: int = 0) -> AsyncIterator[JSON]:
        pages = Pages(after=after_seq)
        while pages.more:
            page = await self._json(get("jobs", job_id, "events", after_seq=pages.after, limit=pages.size))
            for event in pages.take(page):
                yield event

    def stream(self, job_id: str, after_seq: int = 0, *, live: bool = False) -> AsyncIterator[JSON]:
        return self._stream(following(job_id), Place(str(after_seq), live))

    def stream_many(self, job_ids: Sequence[str], *, live: bool = False) -> AsyncIterator[JSON]:
        return self._stream(watching(job_ids), Place(None, live))

    async def record(self, job_id: str) -> JSON:
        job, results, metrics = await asyncio.gather(self.get(job_id), self.results(job_id), self.metrics(job_id))
        return {"results": results, "series": metrics["series"], "spec": job["spec"], "status": job["status"]}

    async def download(self, job_id: str, name: str, to: Path) -> Path:
        landing = Landing(name, to, await self.artifacts(job_id))

        async def land(answer: httpx.Response) -> Path:
            with landing:
                async for chunk in answer.aiter_bytes():
                    landing.write(chunk)
            return landing.finish()

        return await self._send(get("jobs", job_id, "artifacts", name), land)

    # ---- HTTP --------------------------------------------------------------------------------------------------------

    async def _json(self, call: Call) -> JSON:
        body: JSON = json.loads(await self._send(call, httpx.Response.aread))
        return body

    async def _done(self, call: Call) -> None:
        tries = Tries(self.retries)
        try:
            await self._send(call, httpx.Response.aread, tries)
        except ApiError as error:
            if not is_done(error, tries):
                raise

    async def _send(self, call: Call, take: Callable[[httpx.Response], Awaitable[T]], tries: Tries | None = None) -> T:
        tries = tries or Tries(self.retries, repeatable=call.repeatable)
        while True:
            try:
                async with self._answered(call) as answer:
                    return await take(answer)
            except (ApiError, Unreachable) as failure:
                await asyncio.sleep(tries.pause(failure))

    async def _stream(self, call: Call, place: Place) -> AsyncIterator[JSON]:
        tries = Tries(self.retries)
        while not place.over:
            try:
                async with self._answered(place.call(call)) as answer:
                    place.over = answer.status_code == NOTHING_LEFT
                    async for chunk in answer.aiter_bytes():
                        tries.reset()
                        for event in place.read(chunk):
                            yield event
                    place.check()
            except (ApiError, Unreachable) as failure:
                await asyncio.sleep(tries.pause(failure))

    @asynccontextmanager
    async def _answered(self, call: Call) -> AsyncIterator[httpx.Response]:
        try:
            with call.options() as options:
                async with self._http.stream(call.method, call.path, **options) as answer:
                    if answer.is_error:
                        await answer.aread()
                        raise refusal(answer)
                    yield answer
        except httpx.TransportError as error:
            raise unreachable(self.base_url, error) from error
