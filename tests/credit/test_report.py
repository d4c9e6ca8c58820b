"""The report: whole, without anything from elsewhere, true to its input, and safe with any name."""

import json
import re
from dataclasses import asdict
from html.parser import HTMLParser

import pytest

from credit import report, spec
from credit.literature import METHODS
from credit.pairing import Twin, pairing
from tests.credit.told import told


class Page(HTMLParser):
    """Text and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.links, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "xlink:href", "srcset"}]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def jobs():
    jobs = [told("dfa", 0.8), told("bp", 0.9), told("shallow", 0.5)]
    jobs[0]["results"]["pairing"] = pairing(
        jobs[0]["results"],
        [Twin(job["results"]["method"], job["results"]["job_id"], job["results"]) for job in jobs[1:]],
    )
    return jobs


def test_the_numbers_are_those_of_the_results(jobs):
    text = " ".join(Page(report.report(jobs)).words)
    for number in (
        "80.00 %",
        "90.00 %",
        "50.00 %",
        "10.00 pp",
        "40.00 pp",
        "75 %",
        "2.50 ms",
        "3.0 MiB",
        "134,794",
        "1.23 G",
    ):
        assert number in text
    assert "equal in all 3" in text
    assert "nothing in this run looked wrong" in text


def test_nothing_is_fetched_and_nothing_runs(jobs):
    page = Page(report.report(jobs))
    assert all(link.startswith("#") for link in page.links)
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2
    assert not re.search(r"@import|url\((?!#)", report.report(jobs))


def test_a_name_is_text(jobs):
    jobs[0]["spec"]["name"] = '<script>alert("1")</script> & more'
    page = Page(report.report(jobs))
    assert "script" not in page.tags
    assert jobs[0]["spec"]["name"] in "".join(page.words)


def test_the_same_input_gives_the_same_bytes(jobs):
    assert report.report(jobs) == report.report(jobs)


def test_an_unpaired_twin_has_no_gap(jobs):
    jobs[1]["results"]["pairing"]["order_sha256"] = "ff" * 32
    jobs[0]["results"]["pairing"]["twins"][0] |= {"gap": None, "paired": False}
    jobs[0]["results"]["pairing"]["recovery"] = None
    text = " ".join(Page(report.report(jobs)).words)
    assert "NOT equal" in text
    assert not re.search(r"\d pp", text)


def test_undefined_values_are_dashes(jobs):
    jobs[0]["results"]["alignment"]["layers"][0] |= {
        "delta_cosine": {"mean": None, "std": None},
        "delta_angle_degrees": None,
    }
    assert "<td>hidden1</td><td>–</td><td>–</td><td>–</td><td>–</td>" in report.report(jobs)


def test_a_job_that_has_not_ended_has_a_page_too():
    unmeasured = {"test": None, "cost": None, "alignment": {"probe": None, "layers": []}, "environment": {}}
    job = told("dfa", 0.8) | {"results": {"job_id": "job_x", **unmeasured}, "status": "running"}
    assert "This job is running." in report.report([job])


def test_diagnoses_are_told(jobs):
    jobs[0]["results"]["diagnoses"] = [
        {"code": "dead_layer", "layer": "hidden2", "evidence": "rms 0", "advice": "tanh"}
    ]
    assert "<td>dead_layer</td><td>hidden2</td><td>rms 0</td><td>tanh</td>" in report.report(jobs)


def test_the_sentence_names_what_is_not_default():
    job = told("dfa", 0.8)
    job["spec"]["method"]["score_reduction"] = "sum"
    job["spec"]["optimizer"] = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0,
                                "schedule": {"name": "cosine", "final": 0.0}}  # fmt: skip
    sentence = report.what_was_trained(job)
    assert "mlp (hidden 64 × 32, activation tanh) with 134,794 parameters" in sentence
    assert "dfa (score reduction sum)" in sentence
    assert "sgd (lr 0.05, momentum 0.9, schedule cosine)" in sentence


def test_readouts_of_layers_are_shown_where_a_method_has_them(jobs):
    assert "readout of" not in report.report(jobs)
    jobs[0]["results"]["test"]["layers"] = {"hidden1": 0.4321, "output": 0.8}
    assert "43.21 %" in report.report(jobs)


def test_every_method_is_told_with_its_equation_and_source(jobs):
    for name, kind in spec.menu(spec.Method).items():
        jobs[0]["spec"]["method"] = json.loads(json.dumps(asdict(kind())))
        text = " ".join(Page(report.report(jobs)).words)
        assert METHODS[kind].equation in text
        assert METHODS[kind].citations[0].url in text, name


@pytest.mark.parametrize("model", [spec.CNN(), spec.Custom(), spec.MLPMixer(), spec.LeNet()])
def test_every_model_is_told_in_a_sentence(jobs, model):
    jobs[0]["spec"]["model"] = json.loads(json.dumps(asdict(model)))
    told = report.what_was_trained(jobs[0])
    assert told.startswith(model.name)
    assert "{" not in told
