"""Conditional requests: a job's ETag is its version and its count of status changes."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from lab.db import Tx
from lab.errors import JobNotFound, PreconditionRequired
from lab.reads import statuses

HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Accept"}
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


class Position(NamedTuple):
    """Where a job is: its ETag, and what those who wait for it look at."""

    version: int
    status_changes: int
    status: str


def positions_of(tx: Tx, ids: Collection[str]) -> dict[str, Position]:
    """Where jobs are; ids without a job are missing."""
    return {job_id: Position(*place) for job_id, place in statuses(tx, ids).items()}


def position_of(tx: Tx, job_id: str) -> Position:
    """Where a job is.

    Raises:
        JobNotFound: there is none.
    """
    position = positions_of(tx, [job_id]).get(job_id)
    if position is None:
        raise JobNotFound(job_id)
    return position


def tag_of(position: Position) -> str:
    return f'W/"{position.version}-{position.status_changes}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names ``tag``."""
    return is_named(request, "if-none-match", tag)


def is_named(request: Request, name: str, tag: str) -> bool:
    """Whether a conditional header names ``tag``, compared weakly: a proxy that compresses weakens tags."""
    header = ",".join(request.headers.getlist(name))
    return header.strip() == "*" or tag.removeprefix("W/").strip('"') in _TAG.findall(header)


def known_changes(request: Request) -> set[int]:
    """The counts of status changes in ``If-None-Match``."""
    header = ",".join(request.headers.getlist("if-none-match"))
    return {int(count) for tag in _TAG.findall(header) for count in re.findall(r"^\d{1,18}-(\d{1,18})$", tag)}


def expected(request: Request) -> Callable[[str], bool]:
    """Whether a tag is one that a change expects, by its ``If-Match``.

    Raises:
        PreconditionRequired: there is none.
    """
    if "if-match" not in request.headers:
        raise PreconditionRequired
    return lambda tag: is_named(request, "if-match", tag)


def stamp(response: Response, tag: str) -> None:
    response.headers.update({"ETag": tag, **HEADERS})


def not_modified(tag: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status_code=304, headers={"ETag": tag, **HEADERS, **(headers or {})})
