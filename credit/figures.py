"""The two pictures of a run: how it learned beside its twins, and how its signals aligned. No torch.

Drawn with matplotlib's object interface (no pyplot, so no windows and no state shared between figures); the same input
gives the same bytes. A job here is plain data: ``{"results", "series", "spec", "status"}`` as the API's JSON has them.
"""

import html
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

P = ParamSpec("P")
Array = np.ndarray[Any, np.dtype[np.float64]]
Job = dict[str, Any]
Line = tuple[Array, Array]
"""Epochs and values of one series; NaN where a value is undefined, which leaves a gap in the line."""

INK, FAINT, PAPER = "#1a2230", "#c4ccd6", "#ffffff"
STYLES: dict[str, dict[str, Any]] = {
    "bp": {"color": "#c2410c", "linestyle": (0, (5, 1.6))},
    "shallow": {"color": "#6b7280", "linestyle": (0, (1.2, 1.2))},
}
OWN: dict[str, Any] = {"color": "#0b63b0", "linestyle": "solid"}
DEPTHS = ("#0b2e6b", "#00648f", "#00937f", "#5aa02c", "#c79a00")
"""From the first hidden layer to the last, in even steps between; lighter with depth, so that it reads in grey too."""
DARK = {
    INK: "#e6eaf0", FAINT: "#3d4756", PAPER: "#141920",
    "#c2410c": "#ff9a5c", "#6b7280": "#a3adba", "#0b63b0": "#63b3ff",
}  # fmt: skip
LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelsize": 11,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "creditlab",
}
LOSS_POINTS = 120
"""A loss curve is averaged down to at most this many points."""
LABEL_HEIGHT = 0.075
"""Of a label at the end of a line, as a part of the height of a panel."""
MOST_LABELS = 12
"""Layers named at the end of their line; of more, an even choice."""
MOST_BANDS = 6
"""Layers whose deviations can be told apart."""


WIDTH, HEIGHT, DPI = 11.0, 3.8, 200
BELOW, ABOVE, GAP = 0.55, 0.42, 0.12
"""Inches below and above a panel, and around what is written beside it."""


class End(NamedTuple):
    """What is written where a line ends."""

    value: float
    text: str
    color: str
    weight: str = "normal"


def arranged(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws in this module's look, and leaves room for the labels at the ends of the lines."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(LOOK):
            figure = draw(*args, **kwargs)
            _arrange(figure)
        return figure

    return drawn


@arranged
def curves(jobs: Sequence[Job]) -> Figure:
    """Test accuracy and training loss over the epochs of a job (the first) and its twins."""
    figure, (left, right) = _panels("Test accuracy (%)", "Training loss")
    for axes, name, scale, text in (
        (left, "test/accuracy", 100.0, "{} {:.1f}"),
        (right, "train/loss", 1.0, "{} {:.3f}"),
    ):
        ends = []
        for job in reversed(jobs):
            own, method = job is jobs[0], job["spec"]["method"]["name"]
            style = OWN if own else STYLES.get(method, OWN)
            epochs, values = thinned(*line_of(job["series"], name))
            axes.plot(
                epochs, values * scale, linewidth=2.8 if own else 1.9, marker="o" if len(epochs) == 1 else None, **style
            )
            weight = "bold" if own else "normal"
            ends += [End(value, text.format(method, value), style["color"], weight) for value in _last(values * scale)]
        _label_ends(axes, ends)
    return figure


@arranged
def alignment(job: Job) -> Figure:
    """Cosine and angle between the method's signal and backpropagation's, per hidden layer, over the epochs."""
    layers = hidden_layers(job["series"])
    banded = len(layers) <= MOST_BANDS
    figure, (left, right) = _panels(f"Cosine to the BP gradient{' (mean ± std)' * banded}", "Angle to the BP gradient")
    named = {layers[round(place)] for place in np.linspace(0, len(layers) - 1, min(len(layers), MOST_LABELS))}
    right.yaxis.set_major_locator(MultipleLocator(30))
    right.yaxis.set_major_formatter("{x:.0f}°")
    for axes, name, text in ((left, "delta_cosine", "{} {:.2f}"), (right, "delta_angle", "{} {:.0f}°")):
        ends = []
        for layer, color in zip(layers, depth_colors(len(layers)), strict=True):
            epochs, values = line_of(job["series"], f"alignment/{name}", layer)
            axes.plot(epochs, values, color=color, marker="o", markersize=4 if len(epochs) <= 40 else 0)
            if axes is left and banded:
                _band(axes, job, layer, color)
            if layer in named:
                ends += [End(value, text.format(layer, value), color) for value in _last(values)]
        low, high = axes.dataLim.intervaly if layers else (0.0, 0.0)
        axes.set_ylim(*((min(-0.15, low), 1.03) if axes is left else (0.0, max(105.0, high + 5.0))))
        if not ends:
            _nothing_told(axes, job)
        _label_ends(axes, ends)
        unrelated, note = (0.0, "0: no relation") if axes is left else (90.0, "90°: no relation")
        axes.axhline(unrelated, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            note,
            (0.99, unrelated),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    return figure


def _nothing_told(axes: Axes, job: Job) -> None:
    """A panel of a method that has no signal at hidden layers."""
    axes.set_xlim(0, max((one["points"][-1][1] for one in job["series"] if one["points"]), default=1))
    axes.text(0.5, 0.5, "hidden layers get no signal", transform=axes.transAxes, ha="center", color=INK)


def _band(axes: Axes, job: Job, layer: str, color: str) -> None:
    """One standard deviation over the samples of the probe around the mean cosine."""
    epochs, mean = line_of(job["series"], "alignment/delta_cosine", layer)
    at, std = line_of(job["series"], "alignment/delta_cosine_std", layer)
    if np.array_equal(at, epochs):
        axes.fill_between(epochs, mean - std, mean + std, color=color, alpha=0.12, linewidth=0)


def _last(values: Array) -> list[float]:
    """The last defined value, if there is one."""
    return [float(value) for value in values[np.isfinite(values)][-1:]]


def png(figure: Figure) -> bytes:
    """A picture for slides."""
    out = io.BytesIO()
    figure.dpi = DPI  # to draw a page's picture has changed it
    _paper(figure, PAPER)
    with rc_context(LOOK):
        FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()


def svg(figure: Figure, label: str) -> str:
    """A picture to stand inside an HTML page: its colours follow the page's light or dark."""
    out = io.StringIO()
    _paper(figure, "none")
    with rc_context(LOOK):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for pattern, new in SVG_EDITS:
        text = re.sub(pattern, new, text, flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)


def line_of(series: Iterable[dict[str, Any]], name: str, layer: str | None = None) -> Line:
    """Epochs and values of one series of a job; both empty where it has none."""
    points: list[list[Any]] = next(
        (one["points"] for one in series if one["name"] == name and one["layer"] == layer), []
    )
    values = [math.nan if value is None else value for _, _, value in points]
    return np.array([epoch for _, epoch, _ in points], float), np.array(values, float)


def hidden_layers(series: Iterable[dict[str, Any]]) -> list[str]:
    """The layers whose signal a method decides, from the input on (the output layer is always told BP's own)."""
    layers = {one["layer"] for one in series if one["name"] == "alignment/delta_cosine"}
    hidden = layers - {"output"} or layers
    return sorted(hidden, key=lambda layer: [int(part) if part.isdigit() else 0 for part in re.split(r"(\d+)", layer)])


def depth_colors(layers: int) -> list[str]:
    """One colour per layer, in even steps along DEPTHS."""
    ramp = LinearSegmentedColormap.from_list("depth", DEPTHS)
    return [to_hex(ramp(place)) for place in np.linspace(0.0, 1.0, layers)] if layers > 1 else [DEPTHS[0]][:layers]


def thinned(epochs: Array, values: Array) -> Line:
    """Means of consecutive points, so that at most LOSS_POINTS are left."""
    if len(values) <= LOSS_POINTS:
        return epochs, values
    parts = LOSS_POINTS
    return tuple(np.array([part.mean() for part in np.array_split(x, parts)]) for x in (epochs, values))  # type: ignore[return-value]


def _light_dark(match: re.Match[str]) -> str:
    """A colour, and beside it the one that does the same on a dark page."""
    color = match[1]
    red, green, blue = (0.5 + 0.5 * part for part in to_rgb(color))
    return f": light-dark({color}, {DARK.get(color) or to_hex((red, green, blue))})"


# What a figure alone has and one of several in a page must not: sizes, ids that repeat, rules for the whole page.
SVG_EDITS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"<metadata>.*?</metadata>", ""),
    (r"<style .*?</style>", ""),
    (r' id="[a-zA-Z0-9.]+_[0-9_]+"', ""),
    (r' (width|height)="[0-9.]+pt"', ""),
    (r"font-family: 'DejaVu Sans'; ", ""),
    (r": ?(#[0-9a-f]{6})", _light_dark),
)


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _panels(*titles: str) -> tuple[Figure, tuple[Axes, Axes]]:
    """A wide figure with two panels over the epochs."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
    left, right = figure.subplots(1, 2)
    for axes, title in zip((left, right), titles, strict=True):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    return figure, (left, right)


def _arrange(figure: Figure) -> None:
    """Place the panels side by side, each with room for its ticks and for the longest label at its right edge."""
    pen, half = FigureCanvasAgg(figure).get_renderer(), WIDTH / len(figure.axes)
    for place, axes in enumerate(figure.axes):
        labels = [text.get_window_extent(pen).width / figure.dpi for text in axes.texts if text.get_position()[0] > 1]
        ticks = axes.yaxis.get_tightbbox(pen)
        beside = GAP + ((axes.bbox.x0 - ticks.x0) / figure.dpi if ticks else 0.0)
        width = half - beside - GAP - max((GAP + label for label in labels), default=0.0)
        left, height = place * half + beside, HEIGHT - BELOW - ABOVE
        axes.set_position((left / WIDTH, BELOW / HEIGHT, width / WIDTH, height / HEIGHT))


def _paper(figure: Figure, color: str) -> None:
    figure.set_facecolor(color)
    for axes in figure.axes:
        axes.set_facecolor(color)


def _label_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Name each line at the right edge, at its last value, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end.value)
    heights = spread([(end.value - low) / (high - low) for end in ends], LABEL_HEIGHT)
    for end, height in zip(ends, heights, strict=True):
        axes.text(1.02, height, end.text, color=end.color, transform=axes.transAxes, va="center", weight=end.weight)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending heights as near to the wanted ones as a distance of `gap` between neighbours allows."""
    groups: list[tuple[float, int]] = []  # (centre, members)
    for height in wanted:
        centre, members = height, 1
        while groups and centre - groups[-1][0] < gap * (members + groups[-1][1]) / 2:
            other, others = groups.pop()
            centre, members = (centre * members + other * others) / (members + others), members + others
        groups.append((centre, members))
    return [centre + gap * (place - (members - 1) / 2) for centre, members in groups for place in range(members)]
