"""Files to uint8 arrays, strictly and within limits, without torch."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Samples = tuple[Bytes, Bytes]
"""Images (N, C, H, W) and labels (N,)."""


class Content(NamedTuple):
    """The bytes of one part, unpacked, and where they came from (for messages)."""

    origin: str
    raw: bytes
