"""Make the bundled data set fashion-mnist-mini from the official files of Fashion-MNIST.

    python scripts/make_fashion_mnist_mini.py /usr/share/datasets/fashion-mnist credit/data/fashion-mnist-mini

The first folder holds the four official files, gzipped or raw; Debian's package dataset-fashion-mnist installs them in
/usr/share/datasets/fashion-mnist. The first 800 training and the first 200 test images of every class are taken and
kept in the order of the file; the same input gives the same bytes.
"""

import argparse
import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np

from credit import spec
from credit.data import DATASETS
from credit.formats import Bytes, Content
from credit.formats.archives import unpack
from credit.formats.readers import idx

PER_CLASS = {"train": 800, "t10k": 200}


def stratified(labels: Bytes, per_class: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of the first so many of each class, in order."""
    firsts = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(firsts))


def idx_gz(array: Bytes) -> bytes:
    """A gzipped idx file without name, time and operating system."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())
    return packed.getvalue()


def official(folder: Path, name: str, sha256: str) -> Content:
    """An official file, verified."""
    path = next(path for path in (folder / f"{name}.gz", folder / name) if path.is_file())
    content = unpack(path)
    if hashlib.sha256(content.raw).hexdigest() != sha256:
        raise SystemExit(f"{path} is not the official file of Fashion-MNIST")
    return content


def make(source: Path, target: Path) -> None:
    """Write the four files of the mini set into ``target``."""
    fashion = DATASETS[spec.FashionMNIST]
    target.mkdir(parents=True, exist_ok=True)
    for split, checksums in (("train", fashion.train), ("t10k", fashion.test)):
        names = (f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte")
        parts = [official(source, name, sha256) for name, sha256 in zip(names, checksums, strict=True)]
        images, labels = idx(parts, len(fashion.class_names))
        chosen = stratified(labels, PER_CLASS[split])
        for name, array in zip(names, (images[chosen, 0], labels[chosen]), strict=True):
            packed = idx_gz(array)
            (target / f"{name}.gz").write_bytes(packed)
            print(f"{hashlib.sha256(gzip.decompress(packed)).hexdigest()}  {len(packed):9,} bytes  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    make(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
