"""What a data set is made of: its official files, how they may lie in a folder, and what must be in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class Content(NamedTuple):
    """The bytes of one part, unpacked, and where they came from (for messages)."""

    origin: str
    raw: bytes


Reader = Callable[[Sequence[Content], int], tuple[Bytes, Bytes]]
"""(the parts of one split, number of classes) → images (N, C, H, W) and labels (N,); raises ``BadFile``."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file at its official address."""

    url: str
    size: int
    """Bytes."""
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which the parts of a data set may lie: a file each, or all inside one tar archive."""

    files: tuple[str, ...]
    """Paths without compression suffix; each may lie there as it is, as ``.gz`` or as ``.xz``."""
    members: tuple[str, ...] = ()
    """Where ``files`` is a single archive: the parts inside it."""
    convert: Callable[[Content], Content] | None = None
    """Turns a part into the official content that the checksums are of."""
    remotes: tuple[Remote, ...] = ()
    """The official address of each file, in the order of ``files``."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Everything CreditLab knows about a data set besides its spec class."""

    name: str
    """As in a spec; also its folder among the pre-placed data sets and in the cache."""
    layouts: tuple[Layout, ...]
    """In the order in which they are looked for; at most one has remotes. Parts: training first, then test."""
    train: tuple[str, ...]
    """SHA-256 of each training part's official content, uncompressed: whatever it came wrapped in."""
    test: tuple[str, ...]
    """Likewise for the test parts."""
    reader: Reader
    mean: tuple[float, ...]
    """Per channel, of the training images in [0, 1]."""
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    licence: str
    citation: str
    bundled: bool = False
    """The files are in this package."""
