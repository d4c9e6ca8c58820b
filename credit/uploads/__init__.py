"""Data sets that users send: checked and decoded in a process of its own, within limits of memory and time."""

from typing import NamedTuple

MAX_SIDE = 1024
"""Pixels of an image's longer side."""
MAX_CLASSES = 1000
MAX_IMAGES = 10_000_000
MAX_RATIO = 200
"""Decoded over received bytes: no data set that can be learned from compresses better."""


class Refused(Exception):  # noqa: N818  (what happens to the file)
    """A file that is no data set; the message says why."""


class File(NamedTuple):
    """A received file: the name that its sender gave it, which is never a path here, and where it can be read."""

    name: str
    descriptor: int
