"""How often a caller may ask: one counter in the broker for each, which ends with its minute."""

import logging
import math
import re
import time
from typing import Any, NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import storage_from_string
from valkey.exceptions import ValkeyError

from lab.projects import Caller
from lab.settings import Settings

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60
QUICK = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}
AWAY_SECONDS = 5.0
"""So long a broker that did not answer is not asked again: nobody's request waits for its return."""
PREFIX = "creditlab:rates"
"""Of the counters' names in the broker, which the bell's messages share with them."""


class Standing(NamedTuple):
    """Where a caller is in its minute."""

    allowed: bool
    left: int
    seconds: int
    """Until the minute is over."""


class RateLimiter:
    """Counts requests. With a broker of files, the counters are this process's own."""

    def __init__(self, settings: Settings) -> None:
        url = settings.broker_url or ""
        served = re.match("(redis|valkey)(?=s?:|[+])", url)
        if served:
            storage = storage_from_string(url.replace(served[0], "valkey", 1), key_prefix=PREFIX, **QUICK)
        else:
            storage = storage_from_string("memory://")
        self._storage: Any = storage
        self._ends: dict[str, float] = {}
        """When the windows end that this process has asked about."""
        self._away_until = float("-inf")

    def count(self, caller: Caller) -> Standing | None:
        """Count one more request of the caller; None where the broker is away: then nobody is refused for it."""
        limit = caller.quotas.requests_per_minute
        key = RateLimitItemPerMinute(limit).key_for(caller.key_id or caller.project_id)
        if time.monotonic() < self._away_until:
            return None
        try:
            count = int(self._storage.incr(key, WINDOW_SECONDS))
            ends = self._end(key, count)
        except (ValkeyError, OSError) as error:
            log.warning("requests are not counted: %s", error)
            self._away_until = time.monotonic() + AWAY_SECONDS
            return None
        seconds = min(WINDOW_SECONDS, max(1, math.ceil(ends - time.time())))
        return Standing(count <= limit, max(0, limit - count), seconds)

    def _end(self, key: str, count: int) -> float:
        """When the window of a counter ends. Its first request begins it; otherwise the broker is asked, once."""
        if count == 1:
            self._ends = {known: end for known, end in self._ends.items() if end > time.time()}
            self._ends[key] = time.time() + WINDOW_SECONDS
        elif self._ends.get(key, 0.0) <= time.time():
            self._ends[key] = float(self._storage.get_expiry(key))
        return self._ends[key]
