"""What routes ask for: the database, the parsed body, pages, preferences.

A route opens its transaction itself, in one line (``with db.read() as tx``), which commits where its block ends. A
dependency with ``yield`` would commit too, but it takes two more turns in the thread pool while it holds a connection:
with every thread waiting for a connection, none would be left to give one back.
"""

import math
import re
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Header, Query, Request
from pydantic import StringConstraints

from api.idempotent import replay
from api.problems import InvalidBody, InvalidParameter, NotFound, shorten
from api.stream import Watcher
from lab import idempotency, strict_json
from lab.db import Database
from lab.files import Store
from lab.projects import Caller
from lab.settings import Settings

MAX_WAIT_SECONDS = 60
PREFER_WAIT = re.compile(r"""(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])""", re.ASCII | re.IGNORECASE)
NO_BODY = object()
WITH_BODY = {"POST", "PUT", "PATCH"}


async def settings_of(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def whole_database_of(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def caller_of(request: Request) -> Caller:
    """Who asks; only the addresses behind the gate have a caller."""
    caller: Caller = request.state.caller
    return caller


async def database_of(request: Request) -> Database:
    """The database as the caller sees it: its own project."""
    return (await caller_of(request)).of(request.app.state.database)


async def watcher_of(request: Request) -> Watcher:
    watcher: Watcher = request.app.state.watcher
    return watcher


async def storable_path(request: Request) -> None:
    """Nothing of this service has a NUL character in its address, and PostgreSQL would not even look for it."""
    if "\0" in request.scope["path"]:
        raise NotFound(f"there is nothing at {shorten(request.scope['path'])}")


async def parsed_body(request: Request) -> Any:
    """The JSON value of the body; ``NO_BODY`` where there is none, or where the method gives it no meaning."""
    raw = await request.body() if request.method in WITH_BODY else b""
    return strict_json.loads(raw) if raw else NO_BODY


async def body_of(body: Annotated[Any, Depends(parsed_body)]) -> Any:
    """The JSON value of a body that has to be there."""
    return strict_json.loads(b"") if body is NO_BODY else body


async def no_body(body: Annotated[Any, Depends(parsed_body)]) -> None:
    """Commands take no body; an empty object is let pass, since some clients cannot send less."""
    if body is not NO_BODY and body != {}:
        raise InvalidBody("this command takes no body")


async def strict_query(request: Request) -> None:
    """Refuse parameters that the documentation does not name: a misspelt filter must not return everything."""
    declared = documented_parameters(request, "query")
    counts: dict[str, int] = {}
    faults = []
    for name, value in request.query_params.multi_items():
        counts[name] = counts.get(name, 0) + 1
        if name not in declared:
            known = f"; there are {', '.join(declared)}" if declared else "; there are none here"
            faults.append({"parameter": name[:100], "detail": f"{shorten(name)} is not a parameter{known}"})
        elif counts[name] == 2 and not declared[name]:
            faults.append({"parameter": name, "detail": "is given more than once"})
        elif "\0" in value:
            faults.append({"parameter": name, "detail": "holds a NUL character"})
    if faults:
        raise InvalidParameter(faults)


async def repeated_command(request: Request, body: Annotated[Any, Depends(parsed_body)]) -> None:
    """Commands that take an Idempotency-Key, by their documentation, are answered again where they were before."""
    if idempotency.HEADER in documented_parameters(request, "header"):
        await replay(request, {} if body is NO_BODY else body, await database_of(request))


def documented_parameters(request: Request, place: str) -> dict[str, bool]:
    """Parameters of the requested operation in the OpenAPI document; True where one may be repeated."""
    operations = request.app.openapi()["paths"].get(request.scope["route"].path_format, {})
    parameters = operations.get(request.method.lower(), {}).get("parameters", [])
    return {p["name"]: p["schema"].get("type") == "array" for p in parameters if p["in"] == place}


class Page(NamedTuple):
    limit: int
    after: str | None


async def page_of(
    limit: Annotated[int, Query(ge=1, le=100, description="Rows of a page")] = 20,
    after: Annotated[str | None, Query(max_length=1000, description="The value of `next` in the page before")] = None,
) -> Page:
    return Page(limit, after)


async def wait_of(
    request: Request,
    wait: Annotated[
        float | None,
        Query(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False, description="Seconds to wait for a change of status"),
    ] = None,
    _prefer: Annotated[str | None, Header(alias="Prefer", description="`wait=N`, as RFC 7240 has it")] = None,
) -> float:
    """Seconds to wait: the parameter is a request, the header ``Prefer: wait=N`` a preference; 0 where neither is."""
    if wait is not None:
        return wait
    preferred = PREFER_WAIT.search(",".join(request.headers.getlist("prefer")))
    return min(int(preferred[1]), MAX_WAIT_SECONDS) if preferred else 0


def seconds(number: float) -> str:
    """Seconds for a header: whole ones without a point."""
    return f"{number:g}" if number % 1 else str(math.floor(number))


SettingsOf = Annotated[Settings, Depends(settings_of)]
StoreOf = Annotated[Store, Depends(store_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]
Db = Annotated[Database, Depends(database_of)]
WholeDb = Annotated[Database, Depends(whole_database_of)]
"""For operators' questions alone: not confined to a project."""
WatcherOf = Annotated[Watcher, Depends(watcher_of)]
Body = Annotated[Any, Depends(body_of)]
PageOf = Annotated[Page, Depends(page_of)]
Wait = Annotated[float, Depends(wait_of)]
Names = list[Annotated[str, StringConstraints(max_length=400)]]
STRICT = [Depends(storable_path), Depends(parsed_body), Depends(repeated_command), Depends(strict_query)]
"""Of every router: the body is parsed (400), then a command that was answered before is answered again, and only then
is anything validated (422)."""
COMMAND = [Depends(no_body)]
