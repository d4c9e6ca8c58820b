"""``Idempotency-Key``: a command that is sent again is answered again, and done once."""

from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lab import idempotency
from lab.db import Database, Tx
from lab.idempotency import HEADER, Answer

KEPT_HEADERS = ("location",)


class Replay(Exception):  # noqa: N818  (it is an answer)
    """The request was answered before."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


async def replayed(_request: Request, replay: Exception) -> Response:
    """The answer to a request that was answered before."""
    assert isinstance(replay, Replay)
    answer = replay.answer
    headers = {**answer.headers, "Idempotent-Replayed": "true"}
    return Response(answer.body, answer.status, headers, media_type="application/json")


class Once:
    """A command, by the key that it came with. Without a key nothing is looked up or kept."""

    def __init__(self, request: idempotency.Request | None) -> None:
        self.request = request

    def look_up(self, database: Database) -> None:
        """Raises Replay, IdempotencyMismatch."""
        if self.request:
            self._replay(self.request.find(database))

    def begin(self, tx: Tx) -> None:
        """First in the command's transaction. Raises Replay, IdempotencyMismatch, RequestInProgress."""
        if self.request:
            self._replay(self.request.begin(tx))

    def answer(self, tx: Tx, status: int, body: BaseModel, headers: dict[str, str] | None = None) -> Response:
        """The command's answer, kept in its transaction."""
        made = Response(body.model_dump_json(), status, headers, media_type="application/json")
        if self.request:
            kept = {name: made.headers[name] for name in KEPT_HEADERS if name in made.headers}
            self.request.keep(tx, Answer(status, kept, bytes(made.body).decode()))
        return made

    def _replay(self, answer: Answer | None) -> None:
        if answer is not None:
            raise Replay(answer)


async def replay(request: Request, body: Any, database: Database) -> None:
    """Answer a command that was answered before; nothing is checked that may have changed since. Raises Replay."""
    key = idempotency.key_of(request.headers.getlist(HEADER))
    once = Once(None)
    if key is not None:
        fingerprint = idempotency.fingerprint(request.query_params.multi_items(), body)
        once = Once(idempotency.Request(request.method, request.scope["path"], key, fingerprint))
        await run_in_threadpool(once.look_up, database)
    request.state.once = once


async def once_of(
    request: Request,
    _key: Annotated[
        str | None,
        Header(
            alias=HEADER,
            description="1 to 255 printable ASCII characters: for a day, the same key has the same answer",
            json_schema_extra={"pattern": idempotency.PATTERN},
        ),
    ] = None,
) -> Once:
    """The command of a route; that a route asks for it makes ``api.deps`` look for answers that were given before."""
    once: Once = request.state.once
    return once


OnceOf = Annotated[Once, Depends(once_of)]
