"""Metric points in and out: packed chunks in the database, windows and downsampling when they are read.

Chunk k of a series holds its points k·SIZE up to (k+1)·SIZE as little-endian arrays: steps (int64), epochs and values
(float64, NaN for undefined). All chunks but the last are full. A full chunk has an outline, too: the points that keep
its shape, packed likewise, so that a picture of a million points is drawn without reading them.
"""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, and_, delete, false, not_, or_, select
from sqlalchemy.orm import Session

from credit.events import Point
from lab.tables import Chunk, Series

SIZE = 1024
PART = 256
"""So many points leave four in an outline."""
OUTLINE = 4 * SIZE // PART
STEP, REAL = np.dtype("<i8"), np.dtype("<f8")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = tuple[Ints, Floats, Floats]
"""Steps, epochs and values of one series."""


def append(tx: Session, job_id: str, points: Iterable[Point]) -> None:
    """Add points at the end of their series, in the order given."""
    new: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        new.setdefault((point.series, point.layer or ""), []).append(point)
    if not new:
        return
    known = {(row.name, row.layer): row for row in tx.scalars(select(Series).where(Series.job_id == job_id))}
    for name, layer in new:
        if (name, layer) not in known:
            known[name, layer] = Series(job_id=job_id, name=name, layer=layer, total_points=0)
            tx.add(known[name, layer])
    tx.flush()
    grown = [known[key] for key in new]
    partial = select(Chunk).where(Chunk.series_id.in_([row.id for row in grown]), Chunk.points < SIZE)
    last = {chunk.series_id: chunk for chunk in tx.scalars(partial)}
    for key, group in new.items():
        extend(tx, known[key], last.get(known[key].id), group)


def extend(tx: Session, row: Series, last: Chunk | None, points: list[Point]) -> None:
    """Fill the last chunk of a series up, then open new ones."""
    room = SIZE - last.points if last else 0
    if last:
        fill(last, points[:room])
    for start in range(room, len(points), SIZE):
        number = (row.total_points + start) // SIZE
        chunk = Chunk(series_id=row.id, chunk=number, points=0, first_step=points[start].step, last_step=0)
        chunk.steps = chunk.epochs = chunk.values = b""
        fill(chunk, points[start : start + SIZE])
        tx.add(chunk)
    row.total_points += len(points)


def fill(chunk: Chunk, points: list[Point]) -> None:
    values = [float("nan") if point.value is None else point.value for point in points]
    chunk.steps += np.array([point.step for point in points], STEP).tobytes()
    chunk.epochs += np.array([point.epoch for point in points], REAL).tobytes()
    chunk.values += np.array(values, REAL).tobytes()
    chunk.points += len(points)
    chunk.last_step = points[-1].step
    chunk.outline = outline(chunk)


def outline(chunk: Chunk) -> bytes | None:
    """First, last, minimum and maximum of each part of a full chunk; None where a value is undefined."""
    values = np.frombuffer(chunk.values, REAL)
    if len(values) < SIZE or np.isnan(values).any():
        return None
    keep = np.concatenate([np.sort(extremes(values, part)) for part in split(SIZE, SIZE // PART)])
    packed = ((chunk.steps, STEP), (chunk.epochs, REAL), (chunk.values, REAL))
    return b"".join(np.frombuffer(column, kind)[keep].tobytes() for column, kind in packed)


def truncate(tx: Session, job_id: str, step: int) -> None:
    """Delete the points of a job after ``step``; all of them where that is 0, since nothing was trained by then."""
    rows = {row.id: row for row in tx.scalars(select(Series).where(Series.job_id == job_id))}
    last = step or -1
    late = select(Chunk).where(Chunk.series_id.in_(rows), Chunk.last_step > last)
    for chunk in list(tx.scalars(late)):
        kept = int(np.searchsorted(np.frombuffer(chunk.steps, STEP), last, "right"))
        rows[chunk.series_id].total_points -= chunk.points - kept
        if kept:
            cut(chunk, kept)
        else:
            tx.delete(chunk)
    tx.flush()
    tx.execute(delete(Series).where(Series.job_id == job_id, Series.total_points == 0))


def cut(chunk: Chunk, kept: int) -> None:
    """Leave the first points of a chunk."""
    chunk.steps, chunk.epochs, chunk.values = (
        packed[: kept * 8] for packed in (chunk.steps, chunk.epochs, chunk.values)
    )
    chunk.points = kept
    chunk.outline = None
    chunk.last_step = int(np.frombuffer(chunk.steps, STEP)[-1])


def read(
    tx: Session,
    job_id: str,
    series: list[str] | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
    max_points: int | None = None,
) -> list[dict[str, Any]]:
    """The metric series of a job.

    Args:
        tx: the transaction to read in.
        job_id: of the job.
        series: names to read; None: all.
        from_step: first step of the window.
        to_step: last step of the window.
        max_points: most points per series; beyond them it is downsampled to stored points that keep its shape.

    Returns:
        ``{"name", "layer", "total_points", "downsampled", "points": [[step, epoch, value], …]}`` per series, those of
        layers in the order of the layers; ``total_points`` counts the window before downsampling.
    """
    read_series = []
    for (name, layer), (columns, total) in sketch(tx, job_id, series, from_step, to_step, max_points).items():
        steps, epochs, values = columns
        keep = np.arange(total) if max_points is None else downsample(values, max_points)
        described = {"name": name, "layer": layer or None, "total_points": total, "downsampled": len(keep) < total}
        read_series.append(described | {"points": rows_of(steps[keep], epochs[keep], values[keep])})
    return read_series


def totals(tx: Session, job_id: str) -> dict[int, int]:
    """How many points each series of a job has, by the id of the series."""
    counted = select(Series.id, Series.total_points).where(Series.job_id == job_id)
    return {row.id: row.total_points for row in tx.execute(counted)}


def beyond(tx: Session, job_id: str, known: Mapping[int, int], max_points: int) -> list[dict[str, Any]]:
    """The points that a reader who knows as many of each series has not seen: ``[{"name", "layer", "points"}, …]``.

    A series that has become shorter was begun anew, and is told from its beginning.
    """
    rows = {row.id: row for row in tx.scalars(select(Series).where(Series.job_id == job_id).order_by(Series.id))}
    moved = {key: known.get(key, 0) for key, row in rows.items() if row.total_points != known.get(key, 0)}
    first = {key: seen if seen < rows[key].total_points else 0 for key, seen in moved.items()}
    packed: dict[int, list[Chunk]] = {key: [] for key in first}
    grown = [and_(Chunk.series_id == key, Chunk.chunk >= seen // SIZE) for key, seen in first.items()]
    for chunk in tx.scalars(select(Chunk).where(or_(false(), *grown)).order_by(Chunk.series_id, Chunk.chunk)):
        packed[chunk.series_id].append(chunk)
    told = []
    for key, seen in first.items():
        steps, epochs, values = unpack(packed[key], None, None)
        keep = downsample(values[seen % SIZE :], max_points) + seen % SIZE
        told.append(
            {
                "name": rows[key].name,
                "layer": rows[key].layer or None,
                "points": rows_of(steps[keep], epochs[keep], values[keep]),
            }
        )
    return told


def rows_of(steps: Ints, epochs: Floats, values: Floats) -> list[list[Any]]:
    """Points as ``[step, epoch, value]``."""
    return list(map(list, zip(steps.tolist(), epochs.tolist(), nullable(values), strict=True)))


def nullable(values: Floats) -> list[float | None]:
    """The values with None for the undefined ones."""
    return [None if undefined else value for value, undefined in zip(values.tolist(), np.isnan(values), strict=True)]


def load(
    tx: Session,
    job_id: str,
    names: list[str] | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
) -> dict[tuple[str, str], Columns]:
    """Steps, epochs and values of the series of a job by (name, layer), inside a window of steps."""
    return {key: columns for key, (columns, _) in sketch(tx, job_id, names, from_step, to_step, None).items()}


def sketch(
    tx: Session, job_id: str, names: list[str] | None, from_step: int | None, to_step: int | None, most: int | None
) -> dict[tuple[str, str], tuple[Columns, int]]:
    """As ``load``, with how many points there are; where outlines have ``most`` of them, no more is read of a chunk."""
    of_job = select(Series).where(Series.job_id == job_id).order_by(Series.id)
    rows = list(tx.scalars(of_job if names is None else of_job.where(Series.name.in_(names))))
    inside: list[ColumnElement[bool]] = [Chunk.series_id.in_([row.id for row in rows])]
    inside += [] if from_step is None else [Chunk.last_step >= from_step]
    inside += [] if to_step is None else [Chunk.first_step <= to_step]
    large = [row.id for row in rows if most is not None and row.total_points // SIZE * OUTLINE >= most]
    enough = and_(
        *(Chunk.series_id.in_(large), Chunk.outline.is_not(None)),
        *([] if from_step is None else [Chunk.first_step >= from_step]),
        *([] if to_step is None else [Chunk.last_step <= to_step]),
    )
    outlined = select(Chunk.series_id, Chunk.chunk, Chunk.outline).where(*inside, enough)
    parts: dict[int, list[tuple[int, int, Columns]]] = {row.id: [] for row in rows}
    for series_id, number, packed in tx.execute(outlined) if large else ():
        parts[series_id].append((number, SIZE, drawn(packed or b"")))
    whole = select(Chunk).where(*inside, *([not_(enough)] if large else []))
    for chunk in tx.scalars(whole):
        columns = unpack([chunk], from_step, to_step)
        parts[chunk.series_id].append((chunk.chunk, len(columns[0]), columns))
    return {(row.name, row.layer): joined(parts[row.id]) for row in rows}


def drawn(packed: bytes) -> Columns:
    """The points of an outline."""
    steps, epochs, values = (packed[n * 8 * OUTLINE : (n + 1) * 8 * OUTLINE] for n in range(3))
    once, first = np.unique(np.frombuffer(steps, STEP), return_index=True)  # an end may be an extreme
    return once, np.frombuffer(epochs, REAL)[first], np.frombuffer(values, REAL)[first]


def joined(parts: list[tuple[int, int, Columns]]) -> tuple[Columns, int]:
    """Parts of a series, each with its number and how many points it stands for, as one."""
    parts.sort(key=itemgetter(0))
    columns = [columns for _, _, columns in parts] or [unpack([], None, None)]
    steps, epochs, values = (np.concatenate(column) for column in zip(*columns, strict=True))
    return (steps, epochs, values), sum(points for _, points, _ in parts)


def unpack(chunks: list[Chunk], from_step: int | None, to_step: int | None) -> Columns:
    steps = np.frombuffer(b"".join(chunk.steps for chunk in chunks), STEP)
    epochs = np.frombuffer(b"".join(chunk.epochs for chunk in chunks), REAL)
    values = np.frombuffer(b"".join(chunk.values for chunk in chunks), REAL)
    first = 0 if from_step is None else int(np.searchsorted(steps, from_step, "left"))
    end = len(steps) if to_step is None else int(np.searchsorted(steps, to_step, "right"))
    return steps[first:end], epochs[first:end], values[first:end]


def downsample(values: Floats, most: int) -> Ints:
    """Indices of at most ``most`` points that keep the shape of a series.

    Of every bucket: first, last, minimum and maximum; and both ends of every run of undefined values (where those
    alone would be too many, the outermost of every bucket).
    """
    if len(values) <= most:
        return np.arange(len(values))
    missing = np.isnan(values)
    changes = np.flatnonzero(missing[1:] != missing[:-1])
    edges = np.concatenate([changes + missing[changes + 1], [0, len(values) - 1]])  # the undefined side of each change
    if len(edges) <= most // 2:
        buckets = (most - len(edges)) // 4
        kept = np.concatenate([edges, *(extremes(values, part) for part in split(len(values), buckets))])
    elif most >= 6:
        parts = split(len(values), most // 6)
        kept = np.concatenate([np.append(extremes(values, part), outer_nulls(missing, part)) for part in parts])
    else:
        kept = np.append([0, len(values) - 1], extremes(values, np.arange(len(values))))
        kept = kept[np.sort(np.unique(kept, return_index=True)[1])][:most]
    return np.unique(kept)


def split(length: int, buckets: int) -> list[Ints]:
    return np.array_split(np.arange(length), max(1, buckets))


def extremes(values: Floats, part: Ints) -> Ints:
    """First, last, minimum and maximum of a bucket; of an undefined one the ends alone."""
    inside = values[part]
    ends = part[[0, -1]]
    return ends if np.isnan(inside).all() else np.append(ends, part[[np.nanargmin(inside), np.nanargmax(inside)]])


def outer_nulls(missing: NDArray[np.bool_], part: Ints) -> Ints:
    nulls = part[missing[part]]
    return nulls[[0, -1]] if len(nulls) else nulls
