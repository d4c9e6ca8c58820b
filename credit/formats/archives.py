"""Bytes out of compressed files, archives and folders, in memory and within limits; nothing is unpacked to disk."""

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from credit.formats import Content

MAX_BYTES = 2**28
"""No part of any data set is larger once unpacked; guards against a file that unpacks without end."""
MAX_TOTAL_BYTES = 2**30
"""Nor all that is wanted of an archive."""

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
BROKEN = (
    EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
    RuntimeError,  # zipfile's word for encryption and for compression that it does not know
)  # fmt: skip
ZIP = b"PK\x03\x04"

Wanted = Callable[[str], bool]
Members = Iterator[tuple[str, IO[bytes]]]


class BadFile(ValueError):  # noqa: N818  (it names the file that is bad)
    """A file that is not what it should be; the message names it."""

    def __init__(self, origin: str, problem: str) -> None:
        super().__init__(f"{origin} {problem}")


def unpack(path: Path) -> Content:
    """The content of a file, gzipped (``.gz``), xz-compressed (``.xz``) or as it is.

    Raises:
        BadFile: it does not unpack, or not within ``MAX_BYTES``.
        OSError: it cannot be read.
    """
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            return Content(str(path), _bounded(str(path), file, MAX_BYTES))
    except BROKEN as error:
        raise BadFile(str(path), f"is damaged: {error}") from error


def extract(path: Path, names: Sequence[str]) -> list[Content]:
    """The named members of a tar or zip archive, in the order of the names.

    Raises:
        BadFile: the archive is damaged, or a member is missing or too large.
        OSError: it cannot be read.
    """
    found = gather(path, frozenset(names).__contains__)
    missing = [name for name in names if name not in found]
    if missing:
        raise BadFile(str(path), f"lacks {', '.join(missing)}")
    return [found[name] for name in names]


def gather(path: Path, wanted: Wanted) -> dict[str, Content]:
    """The files among the wanted members of a tar archive, a zip archive or a folder, by name, read in one pass.

    Names in a folder begin with the folder's own, as they would in an archive of it.

    Raises:
        BadFile: it is damaged, or what is wanted is too large.
        OSError: it cannot be read.
    """
    found: dict[str, Content] = {}
    total = 0
    try:
        for name, file in _members(path, wanted):
            origin = f"{name} in {path}"
            found[name] = Content(origin, _bounded(origin, file, MAX_BYTES))
            total += len(found[name].raw)
            if total > MAX_TOTAL_BYTES:
                raise BadFile(str(path), f"is larger than {MAX_TOTAL_BYTES} bytes once unpacked")
    except BROKEN as error:
        raise BadFile(str(path), f"is damaged: {error}") from error
    return found


def _members(path: Path, wanted: Wanted) -> Members:
    if path.is_dir():
        return _in_folder(path, wanted)
    with path.open("rb") as file:
        return _in_zip(path, wanted) if file.read(len(ZIP)) == ZIP else _in_tar(path, wanted)


def _in_folder(folder: Path, wanted: Wanted) -> Members:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder.parent).as_posix()
        if wanted(name) and path.is_file():
            with path.open("rb") as file:
                yield name, file


def _in_tar(path: Path, wanted: Wanted) -> Members:
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() and wanted(member.name) else None
            if file:
                yield member.name, file


def _in_zip(path: Path, wanted: Wanted) -> Members:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if wanted(member.filename):
                with archive.open(member) as file:
                    yield member.filename, file


def _bounded(origin: str, file: IO[bytes], limit: int) -> bytes:
    raw = file.read(limit + 1)
    if len(raw) > limit:
        raise BadFile(origin, f"is larger than {limit} bytes once unpacked")
    return raw
