"""The span of a request, the first one of the trace of what it submits."""

from http import HTTPMethod, HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware import QUIET
from lab import logs, traces
from lab.errors import LabError

METHODS = {method.value for method in HTTPMethod}


class Traced:
    """Opens a span for every request but those of load balancers and Prometheus, in the caller's trace if it has one.

    It tells method, template of the route, status and request id; nothing that users send.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self.app(scope, receive, send)
            return
        span = traces.Span("request", Headers(scope=scope).get("traceparent"), serves=True)
        scope["state"]["trace_id"] = span.trace_id
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with span.current(), logs.bound(trace_id=span.trace_id):
                await self.app(scope, receive, watched)
        except Exception as error:
            status = status or (error.status if isinstance(error, LabError) else HTTPStatus.INTERNAL_SERVER_ERROR.value)
            raise
        finally:
            finish(span, scope, status)


def finish(span: traces.Span, scope: Scope, status: int | None) -> None:
    method = scope["method"] if scope["method"] in METHODS else "_OTHER"
    route = getattr(scope.get("route"), "path_format", None)
    span.rename(f"{method} {route}" if route else method)
    about = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "creditlab.request_id": scope["state"].get("request_id"),
    }
    span.end(failed=status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR, about=about)
