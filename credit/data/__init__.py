"""Image data sets: found among pre-placed files, else in the cache, else downloaded; always the official bytes.

The exception is Tiny ImageNet, of which a subset may be placed (see ``image_tree``).
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from credit import spec
from credit.data.download import DownloadError, Progress, fetch
from credit.data.images import Images, read, recall, remember
from credit.data.registry import DATASETS
from credit.data.source import Decoded, Layout, Source
from credit.events import RunError
from credit.formats.archives import BadFile

__all__ = ["DATASETS", "Images", "Progress", "Source", "load", "preload"]

HERE = Path(__file__).parent


def load(dataset: spec.Images, *, datasets: Path | None, cache: Path, progress: Progress | None = None) -> Images:
    """All images of a data set.

    Looks among the pre-placed files in ``datasets`` (in the data set's folder there, or right in it), then in
    ``cache``, else downloads the official files into ``cache``, calling ``progress(bytes so far, bytes in all)``
    (in all: 0 where nobody says).

    Raises:
        RunError: ``dataset_unavailable``; the message says what was looked for, where, and what to do.
    """
    if isinstance(dataset, spec.Uploaded):
        return uploaded(dataset, [*([datasets] if datasets else []), cache / "uploads"])
    source = DATASETS[type(dataset)]
    roots = [HERE / source.name] if source.bundled else _roots(source, datasets, cache)
    try:
        images = _bundled(source.name) if source.bundled else _read(source, type(dataset), roots, progress)
    except (BadFile, DownloadError, OSError) as error:
        raise RunError("dataset_unavailable", _explain(source, roots, error)) from error
    for name, there in (("train_samples", len(images.train_y)), ("test_samples", len(images.test_y))):
        wanted = getattr(dataset, name)
        if wanted is not None and wanted > there:
            told = f"{name} is {wanted}, but the {source.name} on this machine is a subset with {there} such images"
            raise RunError("dataset_unavailable", f"{told}; ask for no more, or place the whole set")
    return images


def preload() -> None:
    """Decode what comes with CreditLab; forks of this process then have it at once, in the same memory."""
    for source in DATASETS.values():
        if source.bundled:
            with suppress(BadFile, OSError):  # whoever asks for it is told
                _bundled(source.name)


@functools.cache
def _bundled(name: str) -> Images:
    """A set that comes with CreditLab, decoded once per process: nothing writes to images."""
    dataset, source = next(known for known in DATASETS.items() if known[1].name == name)
    return _read(source, dataset, [HERE / name], None)


def uploaded(dataset: spec.Uploaded, folders: Sequence[Path]) -> Images:
    """A user's own set, from the first of the folders that has the file of its hash.

    Raises:
        RunError: ``dataset_unavailable``.
    """
    paths = [folder / f"{dataset.sha256}.safetensors" for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        looked = ", ".join(map(str, paths))
        raise RunError("dataset_unavailable", f"data set {dataset.name} is not on this machine; looked for {looked}")
    images = read(path)
    if images is None or images.sha256 != dataset.sha256:
        raise RunError("dataset_unavailable", f"data set {dataset.name}: {path} is damaged; send the data set again")
    return images


def _read(source: Source, dataset: type[spec.Images], roots: Sequence[Path], progress: Progress | None) -> Images:
    """From the decoded copy in the last root, the cache, or else from the official files, leaving such a copy."""
    decoded = roots[-1] / "decoded.safetensors"
    found = _find(source, roots)
    key = source.key(found[1] if found else ())
    if key and (known := recall(decoded, key)):
        return known
    layout, paths = found or _download(source, roots, progress)
    images = _tensors(source.decode(layout, paths, dataset))
    if not source.bundled:
        remember(images, decoded, key or source.key(paths))
    return images


def _tensors(decoded: Decoded) -> Images:
    splits = {split: samples for split, samples in decoded._asdict().items() if samples}
    x = {f"{split}_x": torch.from_numpy(x) for split, (x, _) in splits.items()}
    y = {f"{split}_y": torch.from_numpy(y.astype(np.int64)) for split, (_, y) in splits.items()}
    return Images.of(**x, **y)


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
    total, before = sum(remote.size or 0 for remote in missing), 0
    for remote in missing:
        before += fetch(remote, roots[-1], _offset(progress, before, total)).stat().st_size
    paths = [path for name in layout.files if (path := _locate(name, roots))]
    return layout, paths


def _offset(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one file as progress of all."""
    if not progress:
        return None
    report: Callable[[int, int], None] = progress
    return lambda done, size: report(before + done, max(total, before + size))


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
        return f"{files[0]}.gz" if files[0].endswith(".tar") else files[0]
    return f"{len(files)} files {files[0]} … {files[-1]} (as they are, .gz or .xz)"
