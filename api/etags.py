"""Conditional requests: a job's ETag is its version and its count of status changes."""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from lab.db import Tx
from lab.errors import JobNotFound, LabError, VersionMismatch
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
    """Whether ``If-None-Match`` names ``tag``, compared weakly."""
    header = ",".join(request.headers.getlist("if-none-match"))
    return header.strip() == "*" or tag.removeprefix("W/").strip('"') in _TAG.findall(header)


def known_changes(request: Request) -> set[int]:
    """The counts of status changes in ``If-None-Match``."""
    header = ",".join(request.headers.getlist("if-none-match"))
    return {int(count) for tag in _TAG.findall(header) for count in re.findall(r"^\d{1,18}-(\d{1,18})$", tag)}


def expected_version(request: Request) -> int | None:
    """The version that a change expects, of an ETag that is a version alone; None for ``*``.

    Raises:
        LabError: there is no ``If-Match``, or it names no such version.
    """
    header = ",".join(request.headers.getlist("if-match")).strip()
    if not header:
        raise LabError(
            428, "precondition_required", "If-Match is required", "send If-Match with the ETag that you read"
        )
    if header == "*":
        return None
    if not (version := re.fullmatch(r'"(\d{1,18})"', header, re.ASCII)):
        raise VersionMismatch("the ETag in If-Match is not one of this address")
    return int(version[1])


def stamp(response: Response, tag: str) -> None:
    response.headers.update({"ETag": tag, **HEADERS})


def not_modified(tag: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status_code=304, headers={"ETag": tag, **HEADERS, **(headers or {})})
