"""Logs of a process: one JSON object per line on stderr, with the request, the job and the attempt that it is about."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

CONTEXT = ("request_id", "trace_id", "key_id", "job_id", "attempt", "method", "path", "status", "duration_ms")
"""Fields beside the message, where there are some. Nothing else of a record is written: no header, no body."""

_bound: ContextVar[dict[str, Any]] = ContextVar("bound", default={})  # noqa: B039  (never changed in place)


class JSONLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = _bound.get() | {name: getattr(record, name) for name in CONTEXT if hasattr(record, name)}
        line |= {name: known[name] for name in CONTEXT if name in known}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Write these fields into every line of this task, and of the threads that work for it; None: not that field."""
    token = _bound.set(_bound.get() | {name: value for name, value in fields.items() if value is not None})
    try:
        yield
    finally:
        _bound.reset(token)


def configure(level: str = "INFO") -> None:
    """Send this process's logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for client in ("httpx", "httpcore"):
        logging.getLogger(client).setLevel(logging.WARNING)  # they would write whole addresses
