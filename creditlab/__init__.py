"""What users import and type: the client, the command line and the service in one command."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from creditlab.async_client import AsyncClient
    from creditlab.client import ApiError, Client, Retries, Unreachable
    from creditlab.job import AsyncJob, Job

__all__ = ["ApiError", "AsyncClient", "AsyncJob", "Client", "Job", "Retries", "Unreachable"]

HOMES = {"AsyncClient": "async_client", "AsyncJob": "job", "Job": "job"}


def __getattr__(name: str) -> Any:
    """The client, imported when it is asked for: the command line starts without httpx."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"creditlab.{HOMES.get(name, 'client')}"), name)
