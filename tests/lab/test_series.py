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


MANY = 40 * series.SIZE + 100


@pytest.fixture
def long_job(database, job_id):
    """A series long enough to be drawn from outlines, with a peak, a hollow and a stretch that is undefined."""
    given_points = points(MANY)
    given_points[20_000] = given_points[20_000]._replace(value=100.0)
    given_points[30_001] = given_points[30_001]._replace(value=-100.0)
    for step in range(10_000, 10_007):
        given_points[step] = given_points[step]._replace(value=None)
    with database.write() as tx:
        series.append(tx, job_id, given_points)
    return job_id, given_points


def in_window(given_points, first, last):
    return [point for point in given_points if (first or 0) <= point.step <= (MANY if last is None else last)]


@pytest.mark.parametrize(("first", "last"), [(None, None), (500, None), (None, 40_500), (9_990, 35_000)])
def test_a_long_series_keeps_its_shape_although_it_is_not_read_whole(database, long_job, first, last):
    job_id, given_points = long_job
    inside = in_window(given_points, first, last)
    with database.read() as tx:
        (row,) = series.read(tx, job_id, from_step=first, to_step=last, max_points=400)
    told = {step: (epoch, value) for step, epoch, value in row["points"]}
    assert len(row["points"]) == len(told) <= 400
    assert (row["total_points"], row["downsampled"]) == (len(inside), True)
    assert list(told) == sorted(told)
    assert all(given_points[step] == ("train/loss", None, step, *known) for step, known in told.items())
    assert {inside[0].step, inside[-1].step, 20_000, 30_001, 10_000, 10_006} <= told.keys()


def test_outlines_spare_the_reading_of_chunks(database, long_job):
    job_id, _ = long_job
    with database.read() as tx:
        sketched, total = series.sketch(tx, job_id, None, None, None, 400)["train/loss", ""]
        whole, _ = series.sketch(tx, job_id, None, None, None, None)["train/loss", ""]
    assert total == len(whole[0]) == MANY
    whole_chunks = series.SIZE + 100  # the one with undefined values, and the last one
    assert len(sketched[0]) <= 39 * series.OUTLINE + whole_chunks


def test_what_is_cut_has_no_outline(database, long_job):
    job_id, given_points = long_job
    with database.write() as tx:
        series.truncate(tx, job_id, 39 * series.SIZE + 10)
    with database.read() as tx:
        (row,) = series.read(tx, job_id, max_points=400)
    assert (row["total_points"], row["points"][-1][0]) == (39 * series.SIZE + 11, 39 * series.SIZE + 10)
    assert row["points"][-1][2] == given_points[39 * series.SIZE + 10].value
