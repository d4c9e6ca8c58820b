"""What happens to every request before and after its route: id, crash, HEAD, host, media type, size."""

import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import internal_error, problem
from lab import logs
from lab.errors import BodyTooLarge, LabError
from lab.settings import Settings

MAX_BODY_BYTES = 1 << 20
JSON, FORM = "application/json", "multipart/form-data"
WITH_BODY = {"POST", "PUT", "PATCH"}
"""Methods whose body means something; others are answered as if they had none."""
QUIET = {"/livez", "/readyz", "/metrics"}
"""Asked again and again by load balancers and by Prometheus: not in the access log."""
MAX_PATH = 500
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")

log = logging.getLogger("creditlab.api")


class Envelope:
    """The outermost layer: every answer has a request id and a line in the log, every exception becomes a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = Headers(scope=scope).get("x-request-id", "")
        request_id = wanted if REQUEST_ID.fullmatch(wanted) else f"req_{secrets.token_hex(13)}"
        stamps = {"X-Request-ID": request_id, "X-Content-Type-Options": "nosniff"}
        scope.setdefault("state", {}).update(request_id=request_id, stamps=stamps)
        with logs.bound(request_id=request_id):
            await self.answer(stamps, scope, receive, send)

    async def answer(self, stamps: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        began, started = time.perf_counter(), None

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message["status"]
                MutableHeaders(scope=message).update(stamps)
            await send(message)

        try:
            await self.app(scope, receive, stamped)
        except LabError as error:
            if started:
                raise
            await problem(scope, error)(scope, receive, stamped)
        except Exception:
            known = {"request_id": stamps["X-Request-ID"]}
            log.exception("%s %s failed", scope["method"], scope["path"][:MAX_PATH], extra=known)
            if started:
                raise
            await problem(scope, internal_error())(scope, receive, stamped)
        finally:
            if scope["path"] not in QUIET:
                write(scope, started, time.perf_counter() - began)


def write(scope: Scope, status: int | None, seconds: float) -> None:
    """The access log's line for a request, at its end: never a query, a header or a body."""
    method, path = scope["method"], scope["path"][:MAX_PATH]
    fields = {"method": method, "path": path, "status": status, "duration_ms": round(1000 * seconds, 3)}
    ids = {"job_id": scope.get("path_params", {}).get("job_id")}
    ids |= {name: scope["state"].get(name) for name in ("key_id", "trace_id")}
    known = {name: value[:MAX_PATH] for name, value in ids.items() if value}
    log.info("%s %s %s", method, path, status or "not answered", extra=fields | known)


class Head:
    """Answers HEAD as GET without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET", "head": True}, receive, without_body)


class LoopbackOnly:
    """Refuses every ``Host`` but loopback names: without keys, DNS rebinding would open the service to web pages."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not is_loopback(hostname(hosts[0])):
                detail = "without keys the service answers to localhost and loopback addresses alone"
                raise LabError(403, "bad_host", "The host is not served", detail)
        await self.app(scope, receive, send)


def hostname(host: str) -> str:
    """The name in a ``Host`` header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(name: str) -> bool:
    """Whether a host name means this machine whatever a name server says."""
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refuse_open(host: str, settings: Settings) -> None:
    """Raises ValueError where a service without keys would listen on more than this machine."""
    if settings.auth == "off" and not is_loopback(host):
        raise ValueError(
            f"--host {host}: without keys (CREDITLAB_AUTH=off) only loopback addresses are served; "
            "set CREDITLAB_AUTH=required to serve others"
        )


class Bodies:
    """Bodies are JSON of at most 1 MiB, but for the paths that take forms; either is counted while it is read.

    Args:
        app: what comes next.
        forms: of each path that takes a form with files, the most bytes of its body.
    """

    def __init__(self, app: ASGIApp, forms: Mapping[str, int]) -> None:
        self.app, self.forms = app, forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in WITH_BODY:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        form = scope["path"] in self.forms
        most = self.forms[scope["path"]] if form else MAX_BODY_BYTES
        length = headers.get("content-length", "0")
        if form or length != "0" or "transfer-encoding" in headers:
            refuse_media(headers, FORM if form else JSON)
        if length.isascii() and length.isdigit() and int(length[:20]) > most:
            raise BodyTooLarge(most)
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > most:
                raise BodyTooLarge(most)
            return message

        await self.app(scope, counted, send)


def refuse_media(headers: Headers, wanted: str) -> None:
    """Raise unless the body is announced as what is wanted, plainly and in UTF-8."""
    essence, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    charsets = {part.partition("=")[2].strip('"') for part in parameters if part.startswith("charset=")}
    encoding = headers.get("content-encoding", "identity").lower()
    if essence != wanted or charsets - {"utf-8"} or encoding != "identity":
        detail = f"a body must come with Content-Type: {wanted}, in UTF-8 and without a content encoding"
        raise LabError(415, "unsupported_media_type", "The body is of another type", detail)
