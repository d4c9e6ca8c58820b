"""JSON without its traps: whatever a database or a client could choke on is refused by name, with its place.

Python's own reader takes duplicate names, NaN, 1e400 and integers of any length, and gives up on depth with a
RecursionError; SQLite raises on integers from 2⁶³ on and on lone surrogates, PostgreSQL on NUL.
"""

import json
import math
import re
from collections import Counter
from typing import Any
from urllib.parse import quote

from lab.errors import BodyTooLarge, MalformedJSON

MAX_DEPTH = 32
INT64 = range(-(2**63), 2**63)
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)  # possessive: linear on any input
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class Fault(str):
    """Stands in the parsed tree where the text was wrong, so that the walk can say where that is."""

    __slots__ = ()


def loads(raw: bytes, *, max_bytes: int = 1 << 20) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        BodyTooLarge: more than ``max_bytes``.
        MalformedJSON: not JSON, or JSON with a trap in it.
    """
    if len(raw) > max_bytes:
        raise BodyTooLarge(max_bytes)
    if not raw.strip():
        raise MalformedJSON("the body is empty")
    refuse_depth(raw)
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique_object,
            parse_constant=lambda name: Fault(f"{name} is not JSON"),
            parse_float=finite_float,
            parse_int=small_int,
        )
    except UnicodeDecodeError as error:
        raise MalformedJSON(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise MalformedJSON(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    refuse_faults(value, ())
    return value


def pointer(path: tuple[str | int, ...]) -> str:
    """JSON pointer (RFC 6901) as a URI fragment: ``("a/b", 0)`` is ``#/a~1b/0``."""
    tokens = (str(token).replace("~", "~0").replace("/", "~1") for token in path)
    return "#" + "".join("/" + quote(token, safe="~!$&'()*+,;=:@?", errors="replace") for token in tokens)


def refuse_depth(raw: bytes) -> None:
    depth = 0
    for token in _TOKENS.finditer(raw):
        first = token[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > MAX_DEPTH:
            raise MalformedJSON(f"nested deeper than {MAX_DEPTH} levels")


def refuse_faults(value: Any, path: tuple[str | int, ...]) -> None:
    if isinstance(value, Fault):
        raise MalformedJSON(str(value), pointer(path))
    if isinstance(value, str) and (match := _UNSTORABLE.search(value)):
        kind = "a NUL character" if match[0] == "\0" else "half of a surrogate pair"
        raise MalformedJSON(f"the text holds {kind}", pointer(path))
    if isinstance(value, dict):
        for name, member in value.items():
            if _UNSTORABLE.search(name):
                raise MalformedJSON("a member's name holds a NUL character or half of a surrogate pair", pointer(path))
            refuse_faults(member, (*path, name))
    if isinstance(value, list):
        for index, item in enumerate(value):
            refuse_faults(item, (*path, index))


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Fault:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    return Fault(f"the name {twice[:100]!r} occurs more than once")


def finite_float(text: str) -> float | Fault:
    number = float(text)
    return number if math.isfinite(number) else Fault(f"{text[:100]} is beyond the range of a number")


def small_int(text: str) -> int | Fault:
    number = int(text) if len(text) <= 20 else 2**64
    return number if number in INT64 else Fault(f"{text[:100]} needs more than 64 bits")
