"""``python -m credit.uploads ORDER``: check received files and write them as one canonical file, in a bounded process.

ORDER is JSON: ``{"files": [[name, descriptor]], "out", "decoded_bytes", "memory_bytes", "seconds"}``. Prints what the
data set is, or why it is none, as JSON. Whatever else ends this process is a refusal too: nobody but it can be harmed.
"""

import hashlib
import json
import os
import resource
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from credit.uploads import MAX_CLASSES, MAX_IMAGES, MAX_SIDE, Refused
from credit.uploads.decode import Decoded, Split, decode


def bound(order: dict[str, Any]) -> None:
    """No more memory, time and disk than ordered."""
    for what, most in (
        (resource.RLIMIT_DATA, order["memory_bytes"]),
        (resource.RLIMIT_CPU, int(order["seconds"]) + 1),
        (resource.RLIMIT_FSIZE, order["decoded_bytes"] + (1 << 24)),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def check(decoded: Decoded) -> int:
    """The number of classes of a data set that can be trained on. Raises Refused."""
    for name, split in (("training", decoded.train), ("test", decoded.test)):
        if not 0 < len(split.x) <= MAX_IMAGES:
            raise Refused(f"has {len(split.x)} {name} images, not 1 to {MAX_IMAGES}")
        if len(split.x) != len(split.y):
            raise Refused(f"has {len(split.x)} {name} images and {len(split.y)} labels for them")
    shape, other = decoded.train.x.shape[1:], decoded.test.x.shape[1:]
    if shape != other:
        raise Refused(f"has training images of {shape} and test images of {other} (channels, height, width)")
    if not 0 < min(shape[1:]) <= max(shape[1:]) <= MAX_SIDE:
        raise Refused(f"has images of {shape[1]} × {shape[2]} pixels; 1 to {MAX_SIDE} on a side are allowed")
    low, high = (int(edge(split.y)) for edge, split in ((np.min, decoded.train), (np.max, decoded.train)))
    if low != 0 or not 0 < high < MAX_CLASSES:
        raise Refused(f"has training labels from {low} to {high}; they go from 0 to at most {MAX_CLASSES - 1}")
    absent = np.setdiff1d(np.arange(high + 1), decoded.train.y)
    if len(absent):
        raise Refused(f"has labels up to {high}, and no training image of class {absent[0]}")
    strange = decoded.test.y[(decoded.test.y < 0) | (decoded.test.y > high)]
    if len(strange):
        raise Refused(f"has the test label {strange[0]}; the training labels go from 0 to {high}")
    return high + 1


def canonical(decoded: Decoded) -> dict[str, NDArray[Any]]:
    """The tensors as ``credit.data.images`` has them."""

    def both(name: str, split: Split) -> dict[str, NDArray[Any]]:
        return {f"{name}_x": np.ascontiguousarray(split.x), f"{name}_y": split.y.astype(np.int64)}

    return both("train", decoded.train) | both("test", decoded.test)


def fingerprint(tensors: dict[str, NDArray[Any]]) -> str:
    """The hash that ``credit.data.images.Images`` has of the same tensors."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} torch.{tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.data)
    return digest.hexdigest()


def ingest(order: dict[str, Any]) -> dict[str, Any]:
    """Check, decode, hash and write. Raises Refused."""
    with ExitStack() as stack:
        files = []
        for name, descriptor in order["files"]:
            file = stack.enter_context(os.fdopen(descriptor, "rb"))
            file.seek(0)
            files.append((name, file, os.fstat(descriptor).st_size))
        decoded = decode(files, order["decoded_bytes"])
    classes = check(decoded)
    tensors = canonical(decoded)
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > order["decoded_bytes"]:
        raise Refused(f"is larger than {order['decoded_bytes']} bytes once decoded")
    sha256 = fingerprint(tensors)
    save_file(tensors, order["out"], {"sha256": sha256})
    return {
        "format": decoded.format,
        "sha256": sha256,
        "shape": list(decoded.train.x.shape[1:]),
        "classes": classes,
        "class_names": decoded.class_names,
        "train_images": len(decoded.train.x),
        "test_images": len(decoded.test.x),
        "bytes": Path(order["out"]).stat().st_size,
    }


def main() -> int:
    order = json.loads(sys.argv[1])
    bound(order)
    try:
        told = ingest(order)
    except Refused as error:
        told = {"refused": str(error)}
    except MemoryError:
        told = {"refused": f"needs more than the {order['memory_bytes']} bytes of memory that a check may take"}
    sys.stdout.write(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
