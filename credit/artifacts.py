"""The files of a finished run: spec, results, every metric point, the two figures and the report. No torch."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from credit import figures, report, spec
from credit.events import Event, Finished
from credit.pairing import Twin, pairing

Told = tuple[spec.Run, Sequence[Event]]
"""A finished run and all that it said; its last event is ``Finished``."""

COLUMNS = pa.schema(
    [
        ("series", pa.string()),
        ("layer", pa.string()),
        ("step", pa.int64()),
        ("epoch", pa.float64()),
        ("value", pa.float64()),
    ]
)


def write(out: Path, run: spec.Run, events: Sequence[Event], twins: Sequence[Told] = ()) -> None:
    """Write spec.json, results.json, metrics.parquet, curves.png, alignment.png and report.html into `out`."""
    jobs = [as_job(run, events, twins), *(as_job(*twin) for twin in twins)]
    (out / "spec.json").write_text(as_json(jobs[0]["spec"]))
    (out / "results.json").write_text(as_json(jobs[0]["results"]))
    pq.write_table(metrics(events), out / "metrics.parquet")
    pictures = report.pictures(jobs)
    (out / "curves.png").write_bytes(figures.png(pictures.curves))
    (out / "alignment.png").write_bytes(figures.png(pictures.alignment))
    report.write(out / "report.html", jobs, pictures)


def results(run: spec.Run, events: Sequence[Event], twins: Sequence[Told] = ()) -> dict[str, Any]:
    """The results JSON of a finished run beside its twins; without the service no job has an id."""
    own = _finished(events)
    rows = [Twin(theirs.method.name, None, _finished(said)) for theirs, said in twins]
    return {"job_id": None, "status": "succeeded", "method": run.method.name, **own, "pairing": pairing(own, rows)}


def series(events: Iterable[Event]) -> list[dict[str, Any]]:
    """All metric points by series and layer, in the shape of the API's metrics."""
    found: dict[tuple[str, str | None], list[list[Any]]] = {}
    for event in events:
        for point in event.points():
            found.setdefault((point.series, point.layer), []).append([point.step, point.epoch, point.value])
    return [
        {"name": name, "layer": layer, "total_points": len(points), "downsampled": False, "points": points}
        for (name, layer), points in found.items()
    ]


def metrics(events: Iterable[Event]) -> pa.Table:
    """All metric points, a row each, series by series; an undefined value is null."""
    rows = [(row["name"], row["layer"], *point) for row in series(events) for point in row["points"]]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * len(COLUMNS), schema=COLUMNS)


def as_job(run: spec.Run, events: Sequence[Event], twins: Sequence[Told] = ()) -> report.Job:
    """The run as figures and report want it."""
    return {
        "results": results(run, events, twins),
        "series": series(events),
        "spec": json.loads(json.dumps(asdict(run))),
        "status": "succeeded",
    }


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finished(events: Sequence[Event]) -> dict[str, Any]:
    last = events[-1]
    assert isinstance(last, Finished)
    return last.results
