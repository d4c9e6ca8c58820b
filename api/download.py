"""Artifacts on their way out: streamed, in ranges, and harmless in a browser."""

import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from api.problems import NotFound, problem
from lab.errors import LabError

ONE_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


class Download(FileResponse):
    """A file under its SHA-256 as strong ETag, whole or one range of its bytes.

    A range that is not understood is ignored, as RFC 9110 wants it, and so are several at once.

    Raises:
        NotFound: the file is gone.
    """

    def __init__(self, path: Path, *, name: str, sha256: str, media_type: str) -> None:
        if not path.is_file():
            raise NotFound(f"the file of {name!r} is gone from the store")
        headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, no-cache"}
        if media_type.startswith("text/html"):  # a report shows names that users chose
            headers["Content-Security-Policy"] = "sandbox"
        stat = path.stat()
        self.size = stat.st_size
        super().__init__(
            path,
            headers=headers,
            media_type=media_type,
            filename=name,
            stat_result=stat,
            content_disposition_type="inline" if media_type.startswith(("text/", "image/")) else "attachment",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        wanted = ONE_RANGE.fullmatch(headers.get("range", ""))
        if not wanted or not self.is_current(headers) or is_backward(wanted):
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}
        elif self.is_beyond(wanted):
            refusal = LabError(416, "range_not_satisfiable", "The range is empty", f"the file has {self.size} bytes")
            await problem(scope, refusal, {"Content-Range": f"bytes */{self.size}"})(scope, receive, send)
            return
        await super().__call__({**scope, "method": "HEAD"} if scope.get("head") else scope, receive, send)

    def is_current(self, headers: Headers) -> bool:
        """Whether the client's ``If-Range``, where it has one, names this very file."""
        return headers.get("if-range", self.headers["etag"]) == self.headers["etag"]

    def is_beyond(self, wanted: re.Match[str]) -> bool:
        """Whether no byte of the file lies in the range."""
        first, _, suffix = wanted.groups()
        return int(first) >= self.size if first else 0 in {int(suffix), self.size}


def is_backward(wanted: re.Match[str]) -> bool:
    """Whether the range ends before it begins."""
    first, last, _ = wanted.groups()
    return bool(first and last and int(last) < int(first))
