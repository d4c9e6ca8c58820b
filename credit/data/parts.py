"""Data sets of a few official parts, each a file or a member of an archive, all verified by checksum."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from credit import spec
from credit.data.source import Decoded, Layout, Source, algorithm, digest
from credit.formats import Content, Samples
from credit.formats.archives import BadFile, extract, unpack

Reader = Callable[[Sequence[Content], int], Samples]
"""(the parts of one split, number of classes) → images and labels; raises ``BadFile``."""

UNKNOWN = ""
"""Stands for a checksum that nobody publishes; a layout then has that of the archive."""


@dataclass(frozen=True, kw_only=True)
class Parts(Source):
    """A data set of official parts. Those of a layout lie in this order: training, test, validation."""

    train: tuple[str, ...]
    """Checksum of each training part's official content, uncompressed: whatever it came wrapped in."""
    test: tuple[str, ...]
    """Likewise for the test parts."""
    validation: tuple[str, ...] = ()
    """Likewise for the parts of the official validation split; empty: there is none."""
    reader: Reader

    def key(self, paths: Sequence[Path]) -> str:
        """Depends on the checksums alone, as the content does: ``paths`` may be empty."""
        del paths
        layouts = [(layout.archive, layout.parts) for layout in self.layouts]
        return hashlib.sha256(repr((self.train, self.test, self.validation, layouts)).encode()).hexdigest()

    def decode(self, layout: Layout, paths: Sequence[Path], dataset: type[spec.Images]) -> Decoded:
        contents = _contents(layout, paths)
        tested, held_out = len(self.train), len(self.train) + len(self.test)
        decoded = Decoded(
            train=self.reader(contents[:tested], dataset.classes),
            test=self.reader(contents[tested:held_out], dataset.classes),
            validation=self.reader(contents[held_out:], dataset.classes) if self.validation else None,
        )
        if not layout.parts:
            _verify(contents, (*self.train, *self.test, *self.validation))
        _measure(contents, decoded, dataset)
        return decoded


def _contents(layout: Layout, paths: Sequence[Path]) -> list[Content]:
    """The parts of a data set, in order."""
    if layout.archive:
        _verify_file(paths[0], layout.archive)
    if layout.members:
        contents = extract(paths[0], layout.members)
    else:
        with ThreadPoolExecutor() as pool:  # decompressors let other threads run
            contents = list(pool.map(unpack, paths))
    _verify(contents, layout.parts or (UNKNOWN,) * len(contents))
    return [layout.convert(content) for content in contents] if layout.convert else contents


def _verify(contents: Sequence[Content], checksums: Sequence[str]) -> None:
    """Contents must be the official ones to the last byte."""
    for content, official in zip(contents, checksums, strict=True):
        if official and (found := digest(content.raw, official)) != official:
            raise BadFile(
                content.origin, f"has the {_checksum(official)} {found} (unpacked), not the official {official}"
            )


def _verify_file(path: Path, official: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm(official)).hexdigest()
    if found != official:
        raise BadFile(str(path), f"has the {_checksum(official)} {found}, not the official {official}")


def _checksum(like: str) -> str:
    return {"sha256": "SHA-256", "md5": "MD5"}[algorithm(like)]


def _measure(contents: Sequence[Content], decoded: Decoded, dataset: type[spec.Images]) -> None:
    """Shapes and numbers must be those that a spec is checked against."""
    numbers = (dataset.train_images, dataset.test_images, dataset.validation_images)
    for split, samples, number in zip(Decoded._fields, decoded, numbers, strict=True):
        shape = samples[0].shape if samples else (0, *dataset.shape)
        if shape != (number, *dataset.shape):
            wanted = " × ".join(map(str, (number, *dataset.shape)))
            raise BadFile(contents[0].origin, f"and what belongs to it have {split} images {shape}, not {wanted}")
