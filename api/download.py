"""Artifacts on their way out: streamed from the store, in ranges, and harmless in a browser."""

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.problems import NotFound, problem
from lab import tables
from lab.errors import LabError
from lab.files import Store

ONE_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")
PIECE_BYTES = 2**20
"""That are asked of the store at once, and held in memory by a download."""
READERS = 16
"""Threads that wait for the store; where it is slow, downloads wait for each other and nothing else does."""

readers = CapacityLimiter(READERS)


async def download(store: Store, row: tables.Artifact, request: Request) -> Response:
    """A file under its SHA-256 as strong ETag, whole or one range of its bytes.

    A range that is not understood is ignored, as RFC 9110 wants it, and so are several at once.

    Raises:
        NotFound: the file is gone.
        StoreUnavailable: the store does not answer.
    """
    try:
        size = await to_thread.run_sync(store.size, row.location, limiter=readers)
        status, headers, part = 200, headers_of(row), range(size)
        if wanted := wanted_range(request, headers["ETag"]):
            status, part = 206, part_of(wanted, size)
            if not part:
                refusal = LabError(416, "range_not_satisfiable", "The range is empty", f"the file has {size} bytes")
                return problem(request.scope, refusal, {"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        headers["Content-Length"] = str(len(part))
        if request.scope.get("head"):
            return Response(None, status, headers, media_type=row.media_type)
        pieces = pieces_of(store, row.location, part)
        first = await anext(pieces, b"")  # what goes wrong at once is told by the status
    except FileNotFoundError:
        raise NotFound(f"the file of {row.name!r} is gone from the store") from None
    return StreamingResponse(chained(first, pieces), status, headers, media_type=row.media_type)


def headers_of(row: tables.Artifact) -> dict[str, str]:
    """What is told of a file, whatever part of it is sent."""
    how = "inline" if row.media_type.startswith(("text/", "image/")) else "attachment"
    headers = {
        "ETag": f'"{row.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'{how}; filename="{quote(row.name)}"',
    }
    if row.media_type.startswith("text/html"):  # a report shows names that users chose
        headers["Content-Security-Policy"] = "sandbox"
    return headers


def wanted_range(request: Request, tag: str) -> re.Match[str] | None:
    """The range that is asked for, if it is one, and of this very file where ``If-Range`` names one."""
    wanted = ONE_RANGE.fullmatch(request.headers.get("range", ""))
    if not wanted or request.headers.get("if-range", tag) != tag:
        return None
    first, last, _ = wanted.groups()
    return None if first and last and int(last) < int(first) else wanted


def part_of(wanted: re.Match[str], size: int) -> range:
    """The bytes of the file that lie in the range."""
    first, last, suffix = wanted.groups()
    if suffix:
        return range(max(0, size - int(suffix)), size)
    return range(int(first), min(int(last) + 1, size) if last else size)


async def pieces_of(store: Store, location: str, part: range) -> AsyncIterator[bytes]:
    """The bytes of a part of a file, a piece at a time. Raises FileNotFoundError, StoreUnavailable."""
    for start in part[::PIECE_BYTES]:
        stop = min(start + PIECE_BYTES, part.stop)
        yield await to_thread.run_sync(store.read, location, start, stop, limiter=readers)


async def chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
