"""The gate before ``/v1``: whose key it is (401), whether it may do this (403), how often it has asked (429)."""

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from lab import keys
from lab.db import Database
from lab.errors import InvalidKey, MissingKey, RateLimited
from lab.projects import Caller
from lab.rates import WINDOW_SECONDS, RateLimiter, Standing
from lab.settings import Settings

GATED = "/v1"
READING = {"GET", "HEAD", "OPTIONS"}
COMPUTING = {f"{GATED}/comparisons"}
"""What is posted there is computed and answered; nothing is stored."""


def scope_for(method: str, path: str) -> str:
    """The scope that a request needs, whether or not anything is at its address."""
    if path == f"{GATED}/keys" or path.startswith(f"{GATED}/keys/"):
        return "admin"
    return "read" if method in READING or path in COMPUTING else "write"


class Gate:
    """Lets requests to ``/v1`` pass with their caller in ``scope["state"]``; everything else passes without one."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.limiter = RateLimiter(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["path"] == GATED or scope["path"].startswith(f"{GATED}/")):
            database, given = scope["app"].state.database, Headers(scope=scope).getlist("authorization")
            needed = scope_for(scope["method"], scope["path"])
            caller, standing = await run_in_threadpool(self.admit, database, given, needed)
            scope["state"].update(caller=caller, key_id=caller.key_id)
            scope["state"]["stamps"].update(standing_headers(caller, standing))
            if standing is not None and not standing.allowed:
                raise RateLimited(caller.quotas.requests_per_minute, standing.seconds)
        await self.app(scope, receive, send)

    def admit(self, database: Database, given: list[str], needed: str) -> tuple[Caller, Standing | None]:
        """Who asks, and where it is in its minute. Raises MissingKey, InvalidKey, MissingScope."""
        caller = self.caller(database, given)
        keys.require(caller, needed)
        return caller, self.limiter.count(caller)

    def caller(self, database: Database, given: list[str]) -> Caller:
        """Who asks.

        Raises:
            MissingKey: a key is required and none was sent.
            InvalidKey: what was sent opens nothing.
        """
        if self.settings.auth == "off":
            return keys.caller_without(database, self.settings)
        if not given:
            raise MissingKey
        scheme, _, secret = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer":
            raise InvalidKey("one header is expected: Authorization: Bearer clk_…")
        return keys.caller_with(database, secret.strip(), self.settings)


def also_left(request: Request, policy: str, left: int | None) -> None:
    """Tell in the answer's ``RateLimit`` how much is left of a quota that the request has drawn on."""
    if left is not None:
        stamps = request.state.stamps
        stamps["RateLimit"] = ", ".join(filter(None, (stamps.get("RateLimit"), f'"{policy}";r={left}')))


def standing_headers(caller: Caller, standing: Standing | None) -> Mapping[str, str]:
    """The limits of a caller and where it stands (draft-ietf-httpapi-ratelimit-headers-10; X- for older clients)."""
    quotas = caller.quotas
    policies = {
        "burst": f"q={quotas.requests_per_minute};w={WINDOW_SECONDS}",
        "queued-jobs": f"q={quotas.queued_jobs}",
        "stored-bytes": quotas.stored_bytes and f'q={quotas.stored_bytes};qu="content-bytes"',
    }
    headers: dict[str, Any] = {
        "RateLimit-Policy": ", ".join(f'"{name}";{values}' for name, values in policies.items() if values)
    }
    if standing is not None:
        headers |= {
            "RateLimit": f'"burst";r={standing.left};t={standing.seconds}',
            "X-RateLimit-Limit": str(quotas.requests_per_minute),
            "X-RateLimit-Remaining": str(standing.left),
            "X-RateLimit-Reset": str(standing.seconds),
        }
    return headers
