"""What both clients do with answers of more than one piece: lists that come in pages, and files."""

import hashlib
from pathlib import Path
from typing import Any, BinaryIO, Self

from creditlab.calls import JSON

PAGE = 100


class Pages:
    """A list of which one page after the other is asked for; `limit` ends it early."""

    def __init__(self, limit: int | None = None, after: Any = None) -> None:
        self.left, self.after = limit, after
        self.more = limit is None or limit > 0

    @property
    def size(self) -> int:
        """Of the next page."""
        return PAGE if self.left is None else min(self.left, PAGE)

    def take(self, page: JSON) -> list[JSON]:
        rows: list[JSON] = page["data"]
        self.after = page["next"]
        self.left = None if self.left is None else self.left - len(rows)
        self.more = page["has_more"] and self.left != 0
        return rows


class Landing:
    """A file on its way: under another name until all of it is there and its sha256 is right."""

    def __init__(self, name: str, to: Path, artifacts: JSON) -> None:
        self.name = name
        self.target = to / Path(name).name if to.is_dir() else to
        self.partial = self.target.with_name(self.target.name + ".part")
        self.stated = {artifact["name"]: artifact["sha256"] for artifact in artifacts["data"]}.get(name)
        self.digest = hashlib.sha256()
        self._file: BinaryIO

    def __enter__(self) -> Self:
        """Begin, or begin anew."""
        self.digest = hashlib.sha256()
        self._file = self.partial.open("wb")
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def write(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self._file.write(chunk)

    def finish(self) -> Path:
        """Raises ValueError where it has arrived damaged."""
        if self.digest.hexdigest() != self.stated:
            self.partial.unlink()
            raise ValueError(f"{self.name} arrived damaged: its sha256 is not the one of the job's list")
        return self.partial.replace(self.target)
