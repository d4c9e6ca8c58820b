"""Points come back as they were given, however they were batched, and downsampling keeps what the eye looks for."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credit.events import Point
from lab import jobs, series
from tests.factories import tiny


@pytest.fixture
def job_id(database):
    with database.write() as tx:
        return jobs.submit(tx, tiny()).id


def points(count, start=0, name="train/loss", layer=None):
    return [Point(name, layer, step, step / 10, math.sin(step)) for step in range(start, start + count)]


def test_batches_of_any_size_become_one_series(database, job_id):
    sizes = [1, 500, 1023, 1, 1024, 2500, 7]
    given_points = points(sum(sizes))
    start = 0
    for size in sizes:
        with database.write() as tx:
            series.append(tx, job_id, given_points[start : start + size])
        start += size
    with database.read() as tx:
        (row,) = series.read(tx, job_id)
        chunks = [chunk.points for chunk in tx.query(series.Chunk).order_by(series.Chunk.chunk)]
    assert row["points"] == [[point.step, point.epoch, point.value] for point in given_points]
    assert (row["total_points"], row["downsampled"]) == (sum(sizes), False)
    assert chunks[:-1] == [series.SIZE] * (len(chunks) - 1), "chunks are filled up before a new one is opened"


def test_series_and_layers_are_told_apart_and_undefined_is_none(database, job_id):
    with database.write() as tx:
        series.append(tx, job_id, [Point("alignment/delta_cosine", "hidden2", 0, 0.0, None), *points(2)])
        series.append(tx, job_id, points(2, name="test/loss"))
    with database.read() as tx:
        assert [(row["name"], row["layer"]) for row in series.read(tx, job_id)] == [
            ("alignment/delta_cosine", "hidden2"),
            ("train/loss", None),
            ("test/loss", None),
        ]
        assert series.read(tx, job_id, ["alignment/delta_cosine"])[0]["points"] == [[0, 0.0, None]]
        assert series.read(tx, job_id, ["no/such"]) == []
        assert series.read(tx, "job_missing") == []


@pytest.mark.parametrize(
    ("first", "last"), [(None, None), (0, 0), (1000, 1100), (1023, 1024), (2999, None), (5000, 9000)]
)
def test_a_window_holds_every_point_inside(database, job_id, first, last):
    with database.write() as tx:
        series.append(tx, job_id, points(3000))
    with database.read() as tx:
        (row,) = series.read(tx, job_id, from_step=first, to_step=last)
    inside = [step for step in range(3000) if (first or 0) <= step <= (3000 if last is None else last)]
    assert [point[0] for point in row["points"]] == inside
    assert row["total_points"] == len(inside)


def test_a_spike_among_many_points_is_shown(database, job_id):
    spiked = points(30_000)
    spiked[12_345] = spiked[12_345]._replace(value=1e6)
    with database.write() as tx:
        series.append(tx, job_id, spiked)
    with database.read() as tx:
        (row,) = series.read(tx, job_id, max_points=1000)
    assert len(row["points"]) <= 1000
    assert row["downsampled"]
    assert row["total_points"] == 30_000
    assert [12_345, 1234.5, 1e6] in row["points"]


numbers = st.none() | st.floats(-1e6, 1e6)
runs = st.lists(st.tuples(numbers, st.integers(1, 40)), max_size=30).map(
    lambda parts: np.array([math.nan if v is None else v + i * 1e-3 for v, n in parts for i in range(n)], float)
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(runs, st.integers(1, 200))
def test_downsampling_keeps_ends_extremes_and_gaps(values, most):
    kept = series.downsample(values, most)
    assert len(kept) <= most
    assert list(kept) == sorted(set(kept))
    if len(values) <= most:
        assert list(kept) == list(range(len(values)))
        return
    if most >= 2:
        assert {0, len(values) - 1} <= set(kept)
    shown = values[kept]
    if most >= 4 and not np.isnan(values).all():
        assert np.nanmin(shown) == np.nanmin(values)
        assert np.nanmax(shown) == np.nanmax(values)
    missing = np.isnan(values)
    edges = [
        i for i in np.flatnonzero(missing) if i == 0 or i == len(values) - 1 or not missing[i - 1] or not missing[i + 1]
    ]
    if len(edges) + 2 <= most // 2:
        assert set(edges) <= set(kept), "both ends of every gap are shown"
    if missing.any() and most >= 6:
        assert np.isnan(shown).any(), "a gap is never closed"
