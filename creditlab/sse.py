"""Server-sent events: the parser, and the place in a stream from which it is taken up again.

httpx splits lines where str.splitlines does, also at U+2028, which JSON may hold; these end at CR, LF or CRLF alone.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from creditlab.calls import JSON, Call
from creditlab.retries import Unreachable

LINE_END = re.compile(rb"\r\n|\n|\r")
NOTHING_LEFT = 204
LIVE = frozenset({"progress", "metrics"})
"""Values beside the log. They have no number, and a stream that is taken up again does not repeat them."""


@dataclass(frozen=True)
class Frame:
    event: str
    data: str
    last_id: str | None


class Parser:
    """Frames out of the bytes of a stream, as the HTML standard has it. What the stream breaks off is dropped."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._fields: dict[str, list[str]] = {}

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        self._rest += chunk
        start = 0
        for end in LINE_END.finditer(self._rest):
            if end[0] == b"\r" and end.end() == len(self._rest):
                break  # its LF may be in the next chunk
            line, start = self._rest[start : end.start()].decode(errors="replace"), end.end()
            if line:
                name, _, value = line.partition(":")
                self._fields.setdefault(name, []).append(value.removeprefix(" "))
            elif frame := self._take():
                yield frame
        del self._rest[:start]

    def _take(self) -> Frame | None:
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        return Frame(fields.get("event", ["message"])[-1], "\n".join(fields["data"]), fields.get("id", [None])[-1])


@dataclass
class Place:
    """Where the reader of a stream is: each event is told once, over as many connections as it takes.

    Attributes:
        last_id: of the last event that was told.
        live: whether to tell of the values beside the log.
        over: the stream has said that nothing follows.
    """

    last_id: str | None = None
    live: bool = False
    over: bool = False
    _parser: Parser = field(default_factory=Parser)

    def call(self, call: Call) -> Call:
        """The call of the next connection."""
        self._parser = Parser()
        resumed = {} if self.last_id is None else {"Last-Event-ID": self.last_id}
        return replace(call, headers={"Accept": "text/event-stream", **resumed})

    def read(self, chunk: bytes) -> Iterator[JSON]:
        """The events that a chunk completes."""
        for frame in self._parser.feed(chunk):
            if frame.event == "end":
                self.over = True
                return
            if frame.last_id is not None:
                self.last_id = frame.last_id
                yield json.loads(frame.data)
            elif self.live and frame.event in LIVE:
                yield {"type": frame.event, **json.loads(frame.data)}

    def check(self) -> None:
        """Raises Unreachable where the connection has ended before the stream."""
        if not self.over:
            raise Unreachable("the stream of events broke off")
