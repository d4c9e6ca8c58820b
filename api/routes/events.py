"""The log of a job as a list, and the logs of one or many jobs as they grow (server-sent events)."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool

from api import sse
from api.deps import STRICT, CallerOf, Db, SettingsOf, WatcherOf
from api.openapi import problems
from api.problems import shorten
from api.schemas import EventPage
from lab import cursors, reads
from lab.db import Database
from lab.errors import BadHeader

MAX_SEQ = 2**63 - 1
MAX_JOBS = 100
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "A stream that is resumed where nothing is left to tell"},
}

router = APIRouter(tags=["events"], dependencies=STRICT)

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=4000, description="Of a stream: the last `id:` it has seen")
]
JobIds = Annotated[
    list[Annotated[str, StringConstraints(max_length=100)]],
    Query(min_length=1, max_length=MAX_JOBS, description=f"Repeatable: up to {MAX_JOBS} jobs"),
]


@router.get("/v1/jobs/{job_id}/events", response_model=EventPage, responses={**STREAM, **problems(400, 404)})
async def events(
    job_id: str,
    request: Request,
    response: Response,
    db: Db,
    caller: CallerOf,
    watcher: WatcherOf,
    after_seq: Annotated[int, Query(ge=0, le=MAX_SEQ, description="Events after this number")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Rows of a page; a stream has none")] = 100,
    last_event_id: LastEventId = None,
) -> Any:
    """The log of what happened, oldest first; with `Accept: text/event-stream` as a stream.

    A stream first replays the events after `Last-Event-ID` (or `after_seq`), whose `id:` is their `seq`, then tells
    new ones as they happen. Beside them it has `progress` and `metrics` without an `id:`: what is missed of these is
    read again by `/metrics?from_step=`. It ends with `end` when the job has.
    """
    if wants_stream(request):
        seen = seq_of(last_event_id) if last_event_id else after_seq
        return await sse.answer(watcher, caller, {job_id: seen}, lambda seqs: str(seqs[job_id]), resumed=seen > 0)
    response.headers["Vary"] = "Authorization, Accept"
    return await run_in_threadpool(page, db, job_id, after_seq, limit)


def page(db: Database, job_id: str, after_seq: int, limit: int) -> dict[str, Any]:
    with db.read() as tx:
        return reads.events(tx, job_id, after_seq, limit)


@router.get("/v1/events", response_class=Response, responses={**STREAM, **problems(400, 404)})
async def streamed(
    caller: CallerOf,
    watcher: WatcherOf,
    settings: SettingsOf,
    job: JobIds,
    after: Annotated[str | None, Query(max_length=4000, description="The last `id:` of the stream before")] = None,
    last_event_id: LastEventId = None,
) -> Any:
    """The events of many jobs as one stream, for browsers, which allow six connections to a host.

    As the stream of one job, but that an `id:` is an opaque token that holds the place in each of these jobs' logs, and
    that `end` follows when all of them have ended.
    """
    ids = sorted(set(job))
    same = {"jobs": ids}
    seen = last_event_id or after
    seqs = dict.fromkeys(ids, 0)
    if seen:
        numbers = cursors.read(settings.secret_key, seen, same).split(",")
        seqs = dict(zip(ids, map(int, numbers), strict=True))

    def identify(places: Any) -> str:
        return cursors.make(settings.secret_key, ",".join(str(places[job_id]) for job_id in ids), same)

    return await sse.answer(watcher, caller, seqs, identify, resumed=bool(seen))


def wants_stream(request: Request) -> bool:
    """Whether the client names the media type of streams; nobody gets one for ``*/*``."""
    for part in ",".join(request.headers.getlist("accept")).lower().split(","):
        essence, *parameters = (piece.strip() for piece in part.split(";"))
        if essence == "text/event-stream":
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False


def seq_of(last_event_id: str) -> int:
    if not re.fullmatch(r"\d{1,18}", last_event_id, re.ASCII):
        raise BadHeader("Last-Event-ID", f"{shorten(last_event_id)} is not the number of an event")
    return int(last_event_id)
