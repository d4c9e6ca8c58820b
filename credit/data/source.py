"""What a data set is made of: its official files, how they may lie in a folder, and what must be in them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from credit import spec
from credit.formats import Content, Samples


class Decoded(NamedTuple):
    """The splits of a data set."""

    train: Samples
    test: Samples
    validation: Samples | None = None


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file at its official address."""

    url: str
    checksum: str
    size: int | None = None
    """Bytes, where known."""

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which the parts of a data set may lie: a file each, or all inside one archive."""

    files: tuple[str, ...]
    """Paths without compression suffix; each may lie there as it is, as ``.gz`` or as ``.xz``."""
    members: tuple[str, ...] = ()
    """Where ``files`` is a single archive: the parts inside it."""
    archive: str | None = None
    """Checksum of that archive, where those of its parts are not known."""
    parts: tuple[str, ...] = ()
    """Checksums of the parts as they lie here, where those of the official content are not known to hold."""
    convert: Callable[[Content], Content] | None = None
    """Turns a part into the official content."""
    remotes: tuple[Remote, ...] = ()
    """The official address of each file, in the order of ``files``."""


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Everything CreditLab knows about a data set besides its spec class."""

    name: str
    """As in a spec; also its folder among the pre-placed data sets and in the cache."""
    layouts: tuple[Layout, ...]
    """In the order in which they are looked for; at most one has remotes."""
    mean: tuple[float, ...]
    """Per channel, of the training images in [0, 1]."""
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    """Empty where the files name the classes."""
    bundled: bool = False
    """The files are in this package."""

    @abstractmethod
    def key(self, paths: Sequence[Path]) -> str:
        """What a decoded copy of these files is known by; empty where nothing can be known without a file."""

    @abstractmethod
    def decode(self, layout: Layout, paths: Sequence[Path], dataset: type[spec.Images]) -> Decoded:
        """The splits in these files, of the data set's shape and classes.

        Raises:
            BadFile: a file is not what it should be.
            OSError: a file cannot be read.
        """


def algorithm(checksum: str) -> str:
    """SHA-256, or MD5 where a data set's authors publish nothing else: told apart by length."""
    return {64: "sha256", 32: "md5"}[len(checksum)]


def digest(raw: bytes, like: str) -> str:
    """Checksum of bytes, by the algorithm of another."""
    return hashlib.new(algorithm(like), raw, usedforsecurity=False).hexdigest()
