"""A job that is held: what a notebook does with it, waiting and for asyncio."""

import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import creditlab
from creditlab.client import ApiError, Client
from creditlab.job import table
from tests.stack import LONG_SPEC, QUICK_SPEC, poll

ROOT = Path(__file__).parents[2]
COLUMNS = ["series", "layer", "step", "epoch", "value"]


def public(kind):
    return {name: value for name, value in inspect.getmembers(kind, callable) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("waiting", "awaited"), [(creditlab.Client, creditlab.AsyncClient), (creditlab.Job, creditlab.AsyncJob)]
)
def test_both_clients_have_the_same_methods(waiting, awaited):
    ours, theirs = public(waiting), public(awaited)
    assert ours.keys() == theirs.keys()
    for name in ours:
        parameters = [list(inspect.signature(kind[name]).parameters) for kind in (ours, theirs)]
        assert parameters[0] == parameters[1], name


def test_what_is_not_exported_is_no_attribute():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = creditlab.nonsense


def test_a_job_is_made_watched_and_read(service, tmp_path, monkeypatch):
    with creditlab.Client(service.url) as client:
        job = client.create(QUICK_SPEC)
        assert job.status == "queued"
        told = list(job.stream())
        assert job.wait(timeout=60).status == "succeeded"
        assert told == list(job.events())
        assert client.job(job.id).data == job.data
        assert job.results() == client.results(job.id)
        assert job.alignment()["layers"] == ["hidden1", "hidden2", "output"]
        assert job.download("spec.json", tmp_path) == tmp_path / "spec.json"
        assert {"spec.json", "report.html"} <= {one["name"] for one in job.artifacts()["data"]}
        monkeypatch.setitem(sys.modules, "pandas", None)  # as where there is none
        rows = job.metrics(["train/loss"], max_points=3)
        (series,) = client.metrics(job.id, ["train/loss"], max_points=3)["series"]
        assert [list(row) for row in rows] == [COLUMNS] * len(rows)
        assert [[row["step"], row["epoch"], row["value"]] for row in rows] == series["points"]
        job.delete()
        with pytest.raises(ApiError):
            job.refresh()


def test_metrics_are_a_data_frame(service, finished):
    pandas = pytest.importorskip("pandas")
    with Client(service.url) as client:
        points = client.job(finished).metrics(["alignment/delta_cosine"])
        assert isinstance(points, pandas.DataFrame)
        assert list(points.columns) == COLUMNS
        last = points[points.layer == "hidden1"].iloc[-1]
        assert last["value"] == client.alignment(finished)["values"][0][-1]
        empty = client.job(finished).metrics(["train/loss"], from_step=10**9)
        assert list(empty.columns) == COLUMNS
        assert empty.empty


def test_a_job_is_commanded(service):
    with Client(service.url) as client:
        job = client.create(LONG_SPEC)
        poll(lambda: job.refresh().status == "running")
        job.pause()
        assert poll(lambda: job.refresh().status == "paused")
        assert job.resume().status == "queued"
        job.cancel()
        assert job.wait(timeout=30).status == "cancelled"
        assert job.retry().status == "queued"
        with pytest.raises(TimeoutError, match=job.id):
            job.wait(timeout=0.1)
        assert job.cancel().wait(timeout=30).status == "cancelled"
        assert repr(job) == f"<Job {job.id} cancelled>"


def test_a_notebook_shows_accuracy_beside_the_twins(service, finished):
    with Client(service.url) as client:
        job = client.job(finished)
        shown, results = job._repr_html_(), job.results()
        accuracies = [results["test"]["accuracy"], *(twin["test_accuracy"] for twin in results["pairing"]["twins"])]
        for told in (finished, "succeeded", "100 %", "dfa", "bp", "shallow", *(f"{100 * a:.2f} %" for a in accuracies)):
            assert told in shown


def test_a_notebook_shows_what_is_known_after_the_client_is_closed(service, finished):
    with Client(service.url) as client:
        job = client.job(finished)
    assert "succeeded" in job._repr_html_()


def test_what_a_notebook_shows_is_text(idle):
    job = idle.create(QUICK_SPEC)
    told = job.results() | {"method": "<b>dfa</b>"}
    shown = table(job.data | {"status": "<script>alert(1)</script>"}, told)
    assert "&lt;script&gt;" in shown
    assert "&lt;b&gt;dfa" in shown
    assert "<script" not in shown
    assert "<b>" not in shown


def test_for_asyncio_the_same(service, tmp_path):
    async def work():
        async with creditlab.AsyncClient(service.url) as client:
            job = await client.create(QUICK_SPEC | {"labels": {"made": "for asyncio"}})
            told = [event async for event in job.stream()]
            assert (await job.wait(timeout=60)).status == "succeeded"
            assert told == [event async for event in job.events()]
            assert [one["id"] async for one in client.list(label="made:for asyncio")] == [job.id]
            assert await job.results() == await client.results(job.id)
            assert "succeeded" in job._repr_html_()
            assert len(await job.metrics(["train/loss"], max_points=3)) > 0
            assert (await job.alignment())["layers"]
            assert await job.download("spec.json", tmp_path) == tmp_path / "spec.json"
            assert (await client.record(job.id))["status"] == "succeeded"
            with pytest.raises(creditlab.ApiError):
                await job.cancel()
            assert (await client.job(job.id)).data == job.data
            await job.delete()
            with pytest.raises(creditlab.ApiError):
                await job.refresh()
            long = await client.create(LONG_SPEC)
            with pytest.raises(TimeoutError):
                await long.wait(timeout=0.1)
            await (await long.cancel()).wait(timeout=30)
            assert long.status == "cancelled"

    asyncio.run(work())


@pytest.mark.slow
def test_the_examples_run(service, tmp_path):
    page = (ROOT / "docs" / "client.md").read_text().replace("http://127.0.0.1:8000", service.url)
    page = page.replace("example.org", "93.184.215.14")  # names are looked up, and a test has no network
    script = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    told = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "422 invalid_spec" in told.stdout
    assert (tmp_path / "report.html").exists()
