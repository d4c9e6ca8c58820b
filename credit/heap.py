"""The C library's heap, told to keep memory that tensors have given back.

A step gives back all that it made, and the next one asks for the same again. By default glibc returns large pieces to
the system at once, and the system fills every page with zeros when it hands it out anew.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1


def keep_memory() -> bool:
    """From now on the process holds as much memory as it held at most; returns whether its C library can do that.

    For processes that train and end. mallopt(3) tells of both settings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        (mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, NEVER))  # no piece of its own for large tensors; no trimming
    )
