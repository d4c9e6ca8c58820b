"""Image data sets: found among pre-placed files, else in the cache, else downloaded; always the official bytes."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from credit import spec
from credit.data.download import DownloadError, Progress, fetch
from credit.data.images import Images, recall, remember
from credit.data.readers import BadFile, extract, unpack
from credit.data.registry import DATASETS
from credit.data.source import Content, Layout, Source
from credit.events import RunError

__all__ = ["DATASETS", "Images", "Source", "load"]

HERE = Path(__file__).parent


def load(dataset: spec.Images, *, datasets: Path | None, cache: Path, progress: Progress | None = None) -> Images:
    """All images of a data set.

    Looks among the pre-placed files in ``datasets`` (in the data set's folder there, or right in it), then in
    ``cache``, else downloads the official files into ``cache``, calling ``progress(bytes so far, bytes in all)``.

    Raises:
        RunError: ``dataset_unavailable``; the message says what was looked for, where, and what to do.
    """
    source = DATASETS[type(dataset)]
    decoded = cache / source.name / "decoded.safetensors"
    key = hashlib.sha256(repr((source.train, source.test)).encode()).hexdigest()
    if not source.bundled and (known := recall(decoded, key)):
        return known
    roots = [HERE / source.name] if source.bundled else _roots(source, datasets, cache)
    try:
        layout, paths = _find(source, roots) or _download(source, roots, progress)
        loaded = _decode(source, _contents(layout, paths), dataset.classes)
    except (BadFile, DownloadError, OSError) as error:
        raise RunError("dataset_unavailable", _explain(source, roots, error)) from error
    if not source.bundled:
        remember(loaded, decoded, key)
    return loaded


# ---- finding ---------------------------------------------------------------------------------------------------------


def _roots(source: Source, datasets: Path | None, cache: Path) -> list[Path]:
    placed = [datasets / source.name, datasets] if datasets else []
    return [*placed, cache / source.name]


def _find(source: Source, roots: Sequence[Path]) -> tuple[Layout, list[Path]] | None:
    """The first layout whose files are all there."""
    for layout in source.layouts:
        paths = [path for name in layout.files if (path := _locate(name, roots))]
        if len(paths) == len(layout.files):
            return layout, paths
    return None


def _locate(name: str, roots: Sequence[Path]) -> Path | None:
    places = (root / f"{name}{suffix}" for root in roots for suffix in ("", ".gz", ".xz"))
    return next((path for path in places if path.is_file()), None)


def _download(source: Source, roots: Sequence[Path], progress: Progress | None) -> tuple[Layout, list[Path]]:
    """Download what is missing into the last root, the cache."""
    layout = next((layout for layout in source.layouts if layout.remotes), None)
    if not layout:
        raise DownloadError("it has no address to download it from")
    pairs = zip(layout.files, layout.remotes, strict=True)
    missing = [remote for name, remote in pairs if not _locate(name, roots)]
    total, before = sum(remote.size for remote in missing), 0
    for remote in missing:
        fetch(remote, roots[-1], _offset(progress, before, total))
        before += remote.size
    paths = [path for name in layout.files if (path := _locate(name, roots))]
    return layout, paths


def _offset(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one file as progress of all."""
    if not progress:
        return None
    report: Callable[[int, int], None] = progress
    return lambda done, _size: report(before + done, total)


def _explain(source: Source, roots: Sequence[Path], error: Exception) -> str:
    """What went wrong, what was looked for, where, and what to do."""
    if source.bundled:
        return f"data set {source.name}, which comes with CreditLab: {error}; install CreditLab again"
    if not isinstance(error, DownloadError):
        return f"data set {source.name}: {error}; put the official file there, or remove it to look elsewhere"
    wanted = ", or ".join(_summary(layout.files) for layout in source.layouts)
    places = ", ".join(str(root) for root in roots)
    return (
        f"data set {source.name} is not on this machine and its download failed: {error}; "
        f"looked for {wanted} in {places}; put the official files into the folder {source.name} below "
        "CREDITLAB_DATASETS_DIR, or let this machine reach the address"
    )


def _summary(files: Sequence[str]) -> str:
    if len(files) == 1:
        return f"{files[0]}.gz"
    return f"{len(files)} files {files[0]} … {files[-1]} (as they are, .gz or .xz)"


# ---- reading ---------------------------------------------------------------------------------------------------------


def _contents(layout: Layout, paths: Sequence[Path]) -> list[Content]:
    """The parts of a data set, in order."""
    if layout.members:
        contents = extract(paths[0], layout.members)
    else:
        with ThreadPoolExecutor() as pool:  # decompressors let other threads run
            contents = list(pool.map(unpack, paths))
    return [layout.convert(content) for content in contents] if layout.convert else contents


def _decode(source: Source, contents: Sequence[Content], classes: int) -> Images:
    """Tensors of the parts, which must be the official ones to the last byte."""
    train, test = contents[: len(source.train)], contents[len(source.train) :]
    splits = [source.reader(train, classes), source.reader(test, classes)]
    for content, official in zip(contents, (*source.train, *source.test), strict=True):
        sha256 = hashlib.sha256(content.raw).hexdigest()
        if sha256 != official:
            raise BadFile(content.origin, f"has the SHA-256 {sha256} (unpacked), not the official {official}")
    return Images.of(*(torch.from_numpy(array) for x, y in splits for array in (x, y.astype(np.int64))))
