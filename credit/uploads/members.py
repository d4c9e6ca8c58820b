"""What is inside a received archive: every name looked at before a byte is read, and no more read than allowed."""

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote

from credit.formats.archives import BROKEN
from credit.uploads import MAX_RATIO, Refused

Opened = Callable[[], bytes]
CHUNK = 1 << 20


class Budget:
    """How many bytes may still come out of a file."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Refused(f"is larger than {self.most} bytes once unpacked")


class Metered:
    """A stream whose bytes are counted against a budget as they come out."""

    def __init__(self, file: Any, budget: Budget) -> None:
        self.file, self.budget = file, budget

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; everything where it is negative."""
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        chunk: bytes = self.file.read(size)
        self.budget.spend(len(chunk))
        return chunk


def unzipped(file: IO[bytes], size: int, budget: Budget) -> Iterator[tuple[str, Opened]]:
    """The files of a zip archive by name, each with what reads it.

    Raises:
        Refused: an entry is no plain file, leads out of the archive, or the archive unpacks to far more than it is.
    """
    try:
        archive = zipfile.ZipFile(file)
        entries = archive.infolist()
    except BROKEN as error:
        raise Refused(f"is no zip archive that can be read: {error}") from error
    check_ratio(sum(entry.file_size for entry in entries), size)
    names = set()
    for entry in entries:
        name = safe(entry.filename)
        mode = entry.external_attr >> 16
        if stat.S_ISLNK(mode) or (mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or not stat.S_IFMT(mode))):
            raise Refused(f"holds {shown(name)}, which is a link or no plain file")
        if name in names:
            raise Refused(f"holds {shown(name)} twice")
        names.add(name)
        if not entry.is_dir() and not hidden(name):
            yield name, partial(_read, partial(archive.open, entry), name, budget)


def untarred(file: IO[bytes], budget: Budget) -> Iterator[tuple[str, Opened]]:
    """Likewise of a gzipped tar archive; each has to be read before the next is asked for."""
    stream = Metered(gzip.GzipFile(fileobj=file), budget)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]  # all it needs is read
            for member in archive:
                name = safe(member.name)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise Refused(f"holds {shown(name)}, which is a link or no plain file")
                if not hidden(name):
                    yield name, partial(_read, partial(archive.extractfile, member), name, None)
    except BROKEN as error:
        raise Refused(f"is no tar archive that can be read: {error}") from error
    except OSError as error:  # gzip's word for a wrong header or checksum
        raise Refused(f"is damaged: {error}") from error


def gunzipped(file: IO[bytes], budget: Budget) -> bytes:
    """The content of a file, gzipped or as it is."""
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return _read(lambda: gzip.GzipFile(fileobj=file) if packed else file, "it", budget)


def _read(open_: Callable[[], Any], name: str, budget: Budget | None) -> bytes:
    try:
        source = open_()
        return Metered(source, budget).read() if budget else source.read()
    except (*BROKEN, OSError) as error:
        raise Refused(f"is damaged: {shown(name)}: {error}") from error


def check_ratio(decoded: int, received: int) -> None:
    """Refuse what announces to become far larger than it is."""
    if decoded > MAX_RATIO * max(received, CHUNK):
        raise Refused(f"unpacks to {decoded} bytes, more than {MAX_RATIO} times its own {received}")


def safe(name: str) -> str:
    """The name, if it stays inside the archive however it is read: as it is, percent-decoded, with backslashes."""
    for form in (name, unquote(name)):
        parts = form.replace("\\", "/").split("/")
        outside = form.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]
        if outside or not form.strip("/") or any(not character.isprintable() for character in form):
            raise Refused(f"holds the name {shown(name)}, which leads out of the archive or is none")
    return name


def hidden(name: str) -> bool:
    """What systems put beside the files of their users."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def shown(name: str) -> str:
    """A received name as it may be told again."""
    text = ascii(name)
    return text if len(text) <= 100 else f"{text[:99]}…"
