"""The pictures: the same bytes every time, gaps where a value is undefined, colours that follow the page."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from credit import figures
from tests.credit.told import told


@pytest.fixture(scope="module")
def jobs():
    return [told("dfa", 0.8), told("bp", 0.9), told("shallow", 0.5)]


def test_pictures_are_deterministic(jobs):
    for draw in (lambda: figures.curves(jobs), lambda: figures.alignment(jobs[0])):
        one, other = draw(), draw()
        page = figures.svg(one, "x")
        picture = figures.png(one)
        assert picture.startswith(b"\x89PNG")
        assert picture == figures.png(other) == figures.png(one)
        assert page == figures.svg(other, "x") == figures.svg(one, "x")


def test_every_label_has_room(jobs):
    many = [*jobs, told("mono_forward", 0.7)]
    steep = told("dfa", 0.8)
    for one in steep["series"]:
        if one["name"] == "train/loss":
            one["points"] = [[step, epoch, 123_456 * value] for step, epoch, value in one["points"]]
    for figure in (figures.curves(many), figures.curves([steep]), figures.alignment(jobs[0])):
        pen = FigureCanvasAgg(figure).get_renderer()
        whole = figure.bbox
        boxes = [axes.get_tightbbox(pen) for axes in figure.axes]
        for box in boxes:
            assert whole.x0 <= box.x0
            assert box.x1 <= whole.x1
            assert whole.y0 <= box.y0
            assert box.y1 <= whole.y1
        assert boxes[0].x1 <= boxes[1].x0


def test_every_job_is_named_with_its_last_value(jobs):
    left, right = figures.curves(jobs).axes
    assert {text.get_text() for text in left.texts} == {"dfa 80.0", "bp 90.0", "shallow 50.0"}
    assert {text.get_text().split()[0] for text in right.texts} == {"dfa", "bp", "shallow"}


def test_an_undefined_value_is_a_gap():
    job = told("dfa", 0.8)
    cosines = next(one for one in job["series"] if (one["name"], one["layer"]) == ("alignment/delta_cosine", "hidden1"))
    cosines["points"][1][2] = None
    left, _ = figures.alignment(job).axes
    assert np.isnan(left.lines[0].get_ydata()[1])


def test_layers_stand_in_their_order_and_the_output_layer_is_left_out():
    series = [
        {"name": "alignment/delta_cosine", "layer": layer, "points": []}
        for layer in ("output", "hidden10", "hidden2", "hidden1")
    ]
    assert figures.hidden_layers(series) == ["hidden1", "hidden2", "hidden10"]
    assert figures.hidden_layers(series[:1]) == ["output"]


def test_a_job_that_said_nothing_yet_is_drawn_empty():
    empty = {"results": {}, "series": [], "spec": {"method": {"name": "dfa"}}, "status": "queued"}
    for figure in (figures.curves([empty]), figures.alignment(empty)):
        FigureCanvasAgg(figure).draw()


def test_a_method_without_signals_is_drawn_with_a_word_instead_of_lines(jobs):
    for one in jobs[0]["series"]:
        if one["name"].startswith("alignment/"):
            one["points"] = [[step, epoch, None] for step, epoch, _ in one["points"]]
    figure = figures.alignment(jobs[0])
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        assert "hidden layers get no signal" in {text.get_text() for text in axes.texts}
        assert axes.get_xlim() == (0, 3)


def test_svg_stands_alone_in_a_page_and_follows_its_colours(jobs):
    text = figures.svg(figures.alignment(jobs[0]), 'a "label" <b>')
    root = ET.fromstring(text)
    assert root.get("aria-label") == 'a "label" <b>'
    assert "width" not in root.attrib
    assert not re.search(r"(fill|stroke): #", text)
    assert "light-dark(#" in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


@pytest.mark.parametrize(
    ("wanted", "gap"), [([0.0, 0.0, 0.0], 0.1), ([0.1, 0.15, 0.9], 0.1), ([0.2, 0.5], 0.1), ([], 0.1)]
)
def test_labels_are_spread_apart_and_keep_their_order(wanted, gap):
    heights = figures.spread(wanted, gap)
    assert all(above - below > gap - 1e-9 for below, above in pairwise(heights))
    assert sum(heights) == pytest.approx(sum(wanted))


def test_a_long_loss_is_averaged_and_a_short_one_is_not():
    epochs, values = np.arange(1000.0), np.ones(1000)
    few, means = figures.thinned(epochs, values)
    assert len(few) == figures.LOSS_POINTS
    assert set(means) == {1.0}
    assert len(figures.thinned(epochs[:5], values[:5])[0]) == 5
