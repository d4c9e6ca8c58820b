"""How often a caller may ask: one counter in the broker for each, which ends with its minute."""

import logging
import math
import re
import time
from typing import NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter
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
        self._counters = FixedWindowRateLimiter(storage)
        self._away_until = float("-inf")

    def count(self, caller: Caller) -> Standing | None:
        """Count one more request of the caller; None where the broker is away: then nobody is refused for it."""
        limit = RateLimitItemPerMinute(caller.quotas.requests_per_minute)
        who = caller.key_id or caller.project_id
        if time.monotonic() < self._away_until:
            return None
        try:
            allowed = self._counters.hit(limit, who)
            ends, left = self._counters.get_window_stats(limit, who)
        except (ValkeyError, OSError) as error:
            log.warning("requests are not counted: %s", error)
            self._away_until = time.monotonic() + AWAY_SECONDS
            return None
        seconds = min(WINDOW_SECONDS, max(1, math.ceil(ends - time.time())))
        return Standing(allowed, left, seconds)
