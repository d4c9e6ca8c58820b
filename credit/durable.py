"""Files that are whole or not there, whatever dies in between."""

import hashlib
import os
from pathlib import Path


def publish(draft: Path, path: Path) -> None:
    """Give a complete file its name, durably: after a crash at any moment the old file is there or the new one."""
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def sync(place: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
