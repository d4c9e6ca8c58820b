"""Files from their official addresses: size and checksum verified, complete or not there at all."""

import hashlib
import http.client
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from credit.data.source import Remote, algorithm

TIMEOUT_SECONDS = 30
CHUNK = 2**18
MAX_BYTES = 2**28
"""No official file is larger."""
STALE_SECONDS = 86_400

Progress = Callable[[int, int], None]
"""(bytes so far, bytes in all or 0 where nobody says)."""


class DownloadError(Exception):
    """A download that failed; the message names the address."""


def fetch(remote: Remote, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch a file into a folder (made if need be) under its own name.

    Raises:
        DownloadError: the server does not answer, or what it sends is not the official file.
        OSError: the folder cannot be written.
    """
    path = folder / remote.name
    with replacing(path) as part, part.open("xb") as file:
        try:
            _receive(remote, file, progress)
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadError(f"{remote.url}: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise DownloadError(f"{remote.url}: {reason or type(error).__name__}") from error
    return path


def _receive(remote: Remote, file: BinaryIO, progress: Progress | None) -> None:
    """Copy a file from its address, chunk by chunk, never more than it should have."""
    request = urllib.request.Request(remote.url, headers={"User-Agent": "creditlab"})  # noqa: S310  (addresses are constants)
    digest, done = hashlib.new(algorithm(remote.checksum), usedforsecurity=False), 0
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        size = _announced(remote, response.headers.get("Content-Length"))
        while chunk := response.read(CHUNK):
            done += len(chunk)
            if done > (size or MAX_BYTES):
                raise DownloadError(f"{remote.url}: sent more than {size or MAX_BYTES} bytes")
            digest.update(chunk)
            file.write(chunk)
            if progress:
                progress(done, size or 0)
    if size and done < size:
        raise DownloadError(f"{remote.url}: ended after {done} of {size} bytes")
    if digest.hexdigest() != remote.checksum:
        found = f"the checksum ({digest.name}) {digest.hexdigest()}"
        raise DownloadError(f"{remote.url}: has {found}, not the official {remote.checksum}")


def _announced(remote: Remote, length: str | None) -> int | None:
    """Bytes that a download has: the official number, else what the server says."""
    if length is None or not length.isdecimal():
        return remote.size
    if remote.size is not None and int(length) != remote.size:
        raise DownloadError(f"{remote.url}: has {length} bytes, not the official {remote.size}")
    if int(length) > MAX_BYTES:
        raise DownloadError(f"{remote.url}: has {length} bytes, more than any data set")
    return int(length)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` for the body to write, which takes its place if the body succeeds.

    Each caller has a temporary file of its own, so that processes that make the same file do not meet; readers see
    the old file, the new one, or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what processes that were killed in the middle left behind."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with suppress(FileNotFoundError):  # another process sweeps too
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()
