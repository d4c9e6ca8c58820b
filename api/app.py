"""The application: routes, middleware, error handlers, and what runs beside the requests."""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from api import openapi
from api.gate import Gate
from api.idempotent import Replay, replayed
from api.metrics import Measured, Metrics
from api.middleware import Bodies, Envelope, Head, LoopbackOnly
from api.problems import refused_by_router, refused_by_validation
from api.routes import catalog, datasets, events, fleet, jobs, keys, ops, series, webhooks
from api.stream import Watcher
from api.traced import Traced
from lab import bell, traces
from lab.db import Database
from lab.files import open_store
from lab.reconciler import Reconciler
from lab.settings import Settings

POOL_SIZE = 10
"""Connections of the database, and threads for requests that ask it: of more threads, some would wait for a connection
and all for the interpreter, and a queue that has once built up would not go away."""
NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)
"""FastAPI's own would tell paths and queries; see ``api.traced``."""
DESCRIPTION = (
    "Trains networks by direct feedback alignment and its relatives, beside their backprop twins, "
    "and measures how well they align. Errors are problem documents (RFC 9457)."
)


def create_app(settings: Settings) -> FastAPI:
    """The API as an ASGI application; its database has to be migrated already. Raises ValueError for wrong settings."""
    database = Database(settings.database_url, pool_size=POOL_SIZE)
    metrics = Metrics(database, lease_seconds=settings.lease_seconds)
    watcher = Watcher(database, metrics)
    hosts = [Middleware(LoopbackOnly)] if settings.auth == "off" else []
    spans = [Middleware(Traced)] if settings.traces_endpoint else []
    app = FastAPI(
        title="CreditLab",
        version=version("creditlab"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        telemetry=NO_TELEMETRY,
        middleware=[
            Middleware(Envelope),
            Middleware(Head),
            Middleware(Measured, metrics),
            *spans,
            *hosts,
            Middleware(Gate, settings=settings),
            Middleware(Bodies, forms={"/v1/datasets": settings.upload_limit_bytes}),
        ],
        exception_handlers={
            HTTPException: refused_by_router,
            Replay: replayed,
            RequestValidationError: refused_by_validation,
        },
    )
    app.state.settings, app.state.store = settings, open_store(settings)
    app.state.database, app.state.watcher, app.state.metrics = database, watcher, metrics
    for routes in (jobs, series, events, webhooks, catalog, datasets, fleet, keys, ops):
        app.include_router(routes.router)
    app.openapi = functools.partial(openapi.document, app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Beside the requests: one watcher for all that wait, the reconciler's thread, and what sends traces."""
    database, settings = app.state.database, app.state.settings
    to_thread.current_default_thread_limiter().total_tokens = POOL_SIZE
    traces.configure(settings, "creditlab-api")
    bell.configure(settings)
    watching = asyncio.create_task(app.state.watcher.run())
    reconciler = Reconciler(database, settings, app.state.store)
    reconciler.start()
    try:
        yield
    finally:
        watching.cancel()
        await run_in_threadpool(reconciler.stop)
        database.dispose()
        await run_in_threadpool(traces.stop)
