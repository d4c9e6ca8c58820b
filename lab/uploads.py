"""Received files on their way to a data set: checked by a process of their own, which this one only waits for.

Whatever is in them, nobody but that process reads it, within limits of memory and time; its end, of whatever kind, is
an answer. What it writes is one canonical file, in a temporary place until a row of the database has it.
"""

import json
import logging
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from credit.uploads import File
from lab.errors import InvalidDataset
from lab.settings import Settings

MEMORY_BASE = 2**30
"""Bytes that the check may take besides three times what is decoded: its own libraries."""
STALE_SECONDS = 86_400

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """A data set that can be trained on, and where it lies for the moment."""

    path: Path
    format: str
    sha256: str
    shape: tuple[int, int, int]
    classes: int
    class_names: list[str] | None
    train_images: int
    test_images: int
    bytes: int


@contextmanager
def checked(files: Sequence[File], settings: Settings) -> Iterator[Checked]:
    """Check received files; the canonical file is there for the body to take away, and gone after it.

    Raises:
        InvalidDataset: with the reason.
    """
    folder = settings.uploads_dir
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    out = folder / f".{secrets.token_hex(8)}.part"
    try:
        told = _run(files, out, settings)
        if "refused" in told:
            raise InvalidDataset("file", told["refused"])
        yield Checked(out, **told | {"shape": tuple(told["shape"])})
    finally:
        out.unlink(missing_ok=True)


def _run(files: Sequence[File], out: Path, settings: Settings) -> dict[str, Any]:
    """What the process says of the files."""
    order = {
        "files": files,
        "out": str(out),
        "decoded_bytes": settings.upload_decoded_bytes,
        "memory_bytes": MEMORY_BASE + 3 * settings.upload_decoded_bytes,
        "seconds": settings.upload_seconds,
    }
    command = [sys.executable, "-m", "credit.uploads", json.dumps(order)]
    try:
        done = subprocess.run(  # noqa: S603  (our own module; the order is JSON, and no name in it is opened)
            command,
            pass_fds=[file.descriptor for file in files],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=settings.upload_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidDataset("file", f"could not be checked within {settings.upload_seconds:g} s") from None
    if done.returncode:
        said = done.stderr[-2000:].decode("utf-8", "replace")
        log.warning("the check of an upload ended with %d: %s", done.returncode, said)
        raise InvalidDataset("file", "could not be read: it takes more than a check may take, or is no data set at all")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _sweep(folder: Path) -> None:
    """Remove what services that were killed in the middle left behind."""
    for part in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()
