"""Tiny ImageNet: an archive or a folder of JPEG files, whole or in part."""

import hashlib
import io
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from credit import spec
from credit.data.source import Decoded, Layout, Source
from credit.formats import Bytes, Content, Samples
from credit.formats.archives import BadFile, gather

ROOT = "tiny-imagenet-200"
CLASSES = f"{ROOT}/wnids.txt"
ANNOTATIONS = f"{ROOT}/val/val_annotations.txt"
MEMBER = re.compile(
    rf"{re.escape(CLASSES)}|{re.escape(ANNOTATIONS)}"
    rf"|{ROOT}/train/(n\d{{8}})/images/\1_\d{{1,3}}\.JPEG|{ROOT}/val/images/val_\d{{1,4}}\.JPEG"
)
CHUNK = 1_000

Labelled = list[tuple[Content, int]]


@dataclass(frozen=True, kw_only=True)
class ImageTree(Source):
    """Tiny ImageNet in its official layout; what is found is taken as what it is, so a subset is one too.

    Classes are numbered in the order of ``wnids.txt``; the official validation split becomes the test split. Numbers
    of images are bounded by the official ones; ``Images.sha256`` says what was used. Pixels are what Pillow's JPEG
    decoder makes of the files; grey pictures become RGB.
    """

    def key(self, paths: Sequence[Path]) -> str:
        """Depends on names, sizes and times of the files."""
        if not paths:
            return ""
        found = _archive_or_folder(paths)
        files = sorted(found.rglob("*")) if found.is_dir() else [found]
        digest = hashlib.sha256()
        for path in files:
            state = path.stat()
            digest.update(f"{path}\n{state.st_size} {state.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def decode(self, layout: Layout, paths: Sequence[Path], dataset: type[spec.Images]) -> Decoded:
        del layout
        path = _archive_or_folder(paths)
        members = gather(path, lambda name: MEMBER.fullmatch(name) is not None)
        for needed in (CLASSES, ANNOTATIONS):
            if needed not in members:
                raise BadFile(str(path), f"lacks {needed}")
        number = _classes(members[CLASSES], dataset.classes)
        splits = _train(members, number), _val(members, number)
        for found, most, which in zip(
            splits, (dataset.train_images, dataset.test_images), ("train", "val"), strict=True
        ):
            if not 0 < len(found) <= most:
                raise BadFile(str(path), f"has {len(found)} {which} images, not 1 to {most}")
        train, test = (_samples(found, dataset.shape) for found in splits)
        return Decoded(train=train, test=test)


def _archive_or_folder(paths: Sequence[Path]) -> Path:
    """A folder is found by its list of classes."""
    return paths[0].parent if paths[0].name == Path(CLASSES).name else paths[0]


def _classes(listed: Content, most: int) -> dict[str, int]:
    """The number of each class by its WordNet id, in the order of the list."""
    wnids = listed.raw.decode("ascii", "replace").split()
    if not 0 < len(wnids) <= most or len(set(wnids)) < len(wnids):
        raise BadFile(
            listed.origin, f"lists {len(set(wnids))} classes in {len(wnids)} lines, not up to {most}, each once"
        )
    return {wnid: number for number, wnid in enumerate(wnids)}


def _train(members: dict[str, Content], number: dict[str, int]) -> Labelled:
    """Training images by class, then by their own number."""
    found = []
    for name, content in members.items():
        _, _, rest = name.partition(f"{ROOT}/train/")
        if rest:
            wnid, _, file = rest.partition("/images/")
            if wnid not in number:
                raise BadFile(content.origin, f"is of a class that {CLASSES} does not list")
            found.append((number[wnid], int(file.removeprefix(f"{wnid}_").removesuffix(".JPEG")), content))
    found.sort(key=lambda item: item[:2])
    return [(content, label) for label, _, content in found]


def _val(members: dict[str, Content], number: dict[str, int]) -> Labelled:
    """Those of the annotated images that are there, in the order of the annotations."""
    annotations = members[ANNOTATIONS]
    found = {}
    for line in annotations.raw.decode("ascii", "replace").splitlines():
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in number:
            raise BadFile(annotations.origin, f"has the line {line[:80]!r}, whose class {CLASSES} does not list")
        if content := members.get(f"{ROOT}/val/images/{name}"):
            found[name] = (content, number[wnid])
    return list(found.values())


def _samples(found: Labelled, shape: tuple[int, int, int]) -> Samples:
    x = np.empty((len(found), *shape), np.uint8)

    def fill(start: int) -> None:
        for k, (content, _) in enumerate(found[start : start + CHUNK], start):
            x[k] = _pixels(content, shape)

    with ThreadPoolExecutor() as pool:  # the JPEG decoder lets other threads run
        list(pool.map(fill, range(0, len(found), CHUNK)))
    return x, np.array([label for _, label in found], np.uint8)


def _pixels(content: Content, shape: tuple[int, int, int]) -> Bytes:
    """(3, H, W) a JPEG file, decoded; its size is looked at before a pixel of it is."""
    _, height, width = shape
    try:
        with Image.open(io.BytesIO(content.raw), formats=("JPEG",)) as picture:
            if picture.size != (width, height):
                raise BadFile(content.origin, f"is {picture.width} × {picture.height} pixels, not {width} × {height}")
            return np.asarray(picture.convert("RGB"), np.uint8).transpose(2, 0, 1)
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadFile(content.origin, f"is no JPEG file that can be read: {error}") from error
