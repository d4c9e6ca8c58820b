"""Is it alive, is it ready, and what it says about itself."""

import shutil
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client.exposition import choose_encoder

from api import docs
from api.deps import STRICT, SettingsOf, WholeDb
from api.openapi import problems
from api.problems import MEANING, NotFound, page_of, shorten
from api.schemas import Alive, ProblemType, Ready
from lab import bell
from lab.db import Database, ping
from lab.errors import LabError
from lab.settings import Settings

CHECK_SECONDS = 1.0
MIN_FREE_BYTES = 100 * 1024 * 1024

router = APIRouter(tags=["operations"], dependencies=STRICT)


@router.get("/livez", response_model=Alive)
async def livez() -> Any:
    """The process answers; nothing else is asked."""
    return {"status": "alive"}


@router.get("/readyz", response_model=Ready)
async def readyz(db: WholeDb, settings: SettingsOf) -> Any:
    """Whether all that the service needs is there: database, migrations, broker and disk, by name."""
    checks: dict[str, Any] = {}
    async with anyio.create_task_group() as group:
        for name, check in checks_of(db, settings).items():
            group.start_soon(run_check, checks, name, check)
    failed = sorted(name for name, outcome in checks.items() if not outcome["ok"])
    if failed:
        detail = "; ".join(f"{name}: {checks[name]['detail']}" for name in failed)
        raise LabError(503, "not_ready", "The service is not ready", detail, checks=checks)
    return {"status": "ready", "checks": checks}


async def run_check(outcomes: dict[str, Any], name: str, check: Callable[[], str | None]) -> None:
    """Run a check in a thread that is left behind if it takes too long."""
    outcomes[name] = {"ok": False, "detail": f"no answer within {CHECK_SECONDS:g} s"}
    with anyio.move_on_after(CHECK_SECONDS):
        fault = await anyio.to_thread.run_sync(check, abandon_on_cancel=True)
        outcomes[name] = {"ok": fault is None, "detail": fault or "ok"}


def checks_of(db: Database, settings: Settings) -> dict[str, Callable[[], str | None]]:
    """What is asked; each check answers with what is wrong, or with None."""

    def database() -> str | None:
        try:
            ping(db)
        except LabError as error:
            return error.detail
        return None

    def migrations() -> str | None:
        try:
            current = db.is_current()
        except LabError as error:
            return error.detail
        return None if current else "the tables are not those of this version; run creditlab migrate"

    def broker() -> str | None:
        return None if bell.alive() else "the broker does not answer"

    def disk() -> str | None:
        free = shutil.disk_usage(settings.data_dir).free
        return None if free >= MIN_FREE_BYTES else f"{free} bytes are free"

    return {"database": database, "migrations": migrations, "broker": broker, "disk": disk}


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """What Prometheus reads: requests, queue, leases, streams. Gauges are at most five seconds old."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(request.app.state.metrics.registry), media_type=media_type)


@router.get("/problems/{name}", response_model=ProblemType, responses=problems(404))
async def problem_type(name: str) -> Any:
    """What a kind of problem means: where the `type` of a problem leads to."""
    code = name.replace("-", "_")
    if code not in MEANING or page_of(code) != f"/problems/{name}":
        raise NotFound(f"{shorten(name)} is not a problem of this service")
    return {"type": page_of(code), "code": code, "meaning": MEANING[code]}


@router.get("/docs", include_in_schema=False)
async def documentation(request: Request) -> Response:
    """Every operation on one page."""
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
    return HTMLResponse(docs.page(request.app.openapi()), headers=headers)
