"""The files of a run: every point in the table, undefined values as null, and results that are those printed."""

import json

import pyarrow.parquet as pq

from credit import artifacts, spec
from credit.events import Finished
from tests.credit.told import aligned, events, results

SAID = [*events(0.8), aligned(4, None), Finished(step=40, results=results("dfa", 0.8))]
RUN = spec.Run(method=spec.DFA(), model=spec.MLP(hidden=(8, 8)), dataset=spec.FashionMNISTMini())


def test_all_files_are_written(tmp_path):
    artifacts.write(tmp_path, RUN, SAID)
    names = {"spec.json", "results.json", "metrics.parquet", "curves.png", "alignment.png", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "results.json").read_text()) == artifacts.results(RUN, SAID)
    assert json.loads((tmp_path / "spec.json").read_text())["method"]["feedback"]["kind"] == "unified"


def test_the_table_has_every_point(tmp_path):
    artifacts.write(tmp_path, RUN, SAID)
    table = pq.read_table(tmp_path / "metrics.parquet")
    assert table.column_names == ["series", "layer", "step", "epoch", "value"]
    rows = list(zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True))
    told = [tuple(point) for event in SAID for point in event.points()]
    names = list(dict.fromkeys((name, layer) for name, layer, *_ in told))
    assert rows == sorted(told, key=lambda point: names.index(point[:2])), "series by series, each in its order"
    assert ("alignment/delta_cosine", "hidden1", 40, 4.0, None) in rows


def test_a_run_without_points_has_an_empty_table():
    assert artifacts.metrics([]).num_rows == 0


def test_twins_are_part_of_the_results_and_the_report(tmp_path):
    bp = spec.Run(method=spec.BP(), model=RUN.model, dataset=RUN.dataset)
    twins = [(bp, [*events(0.9), Finished(step=30, results=results("bp", 0.9))])]
    artifacts.write(tmp_path, RUN, SAID, twins)
    told = json.loads((tmp_path / "results.json").read_text())["pairing"]["twins"]
    assert [(twin["method"], twin["job_id"], twin["paired"]) for twin in told] == [("bp", None, True)]
    assert "equal in all 2" in (tmp_path / "report.html").read_text()
