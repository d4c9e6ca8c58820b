"""Ids that sort by time: ``job_`` and a ULID (48 bits of milliseconds, 80 random bits) in lower case."""

import secrets
import threading
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """A new id. Those made by one process rise strictly, those of several sort by millisecond."""
    global _last  # noqa: PLW0603
    with _lock:
        _last = max(_last + 1, time.time_ns() // 1_000_000 << 80 | secrets.randbits(80))
        value = _last
    return f"{prefix}_" + "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
