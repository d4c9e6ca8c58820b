"""The command line on a running service: what it prints, where, and its exit status."""

import json
import os
import re
import subprocess
import sys

import httpx
import pytest

from creditlab.seeds import parse, student
from tests.stack import CREDITLAB, DIVERGING_SPEC, LONG_SPEC, QUICK_SPEC, creditlab


def test_help_loads_nothing_heavy():
    code = """
import sys
from creditlab.cli import app
from typer.testing import CliRunner
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
assert not {"torch", "numpy", "matplotlib", "sqlalchemy", "fastapi", "celery", "pydantic", "httpx"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- without a service -----------------------------------------------------------------------------------------------


def test_validate_accepts_a_file_and_standard_input(spec_file):
    assert creditlab("validate", str(spec_file)).returncode == 0
    told = creditlab("validate", "-", "--json", stdin='{"method": "dfa", "model": "mlp", "dataset": "mnist"}')
    assert told.returncode == 0
    assert json.loads(told.stdout)["spec"]["method"]["feedback"]["kind"] == "unified"


def test_validate_names_every_wrong_field():
    told = creditlab(
        "validate", "-", stdin=json.dumps(QUICK_SPEC | {"method": "dfaa", "optimizer": {"name": "sgd", "lr": -1}})
    )
    assert told.returncode == 2
    assert told.stdout == ""
    assert "#/method: 'dfaa' is not a method; did you mean 'dfa'?" in told.stderr
    assert "#/optimizer/lr: -1 is out of range" in told.stderr


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_what_is_no_spec_is_invalid(text):
    told = creditlab("validate", "-", stdin=text)
    assert told.returncode == 2
    assert "#" in told.stderr
    assert "Traceback" not in told.stderr


def test_invalid_json_output_is_json():
    told = creditlab("validate", "-", "--json", stdin='{"model": "mlp"}')
    assert told.returncode == 2
    assert {error["pointer"] for error in json.loads(told.stdout)["errors"]} == {"#/method", "#/dataset"}


@pytest.mark.parametrize(
    "arguments",
    [["validate", "no-such-file"], ["wait"], ["nonsense"], ["list", "--limit", "0"], ["up", "--workers", "0"]],
)
def test_bad_usage_is_2(arguments):
    assert creditlab(*arguments).returncode == 2


def test_an_unreachable_service_is_one_sentence():
    told = creditlab("list", env={"CREDITLAB_API_URL": "http://127.0.0.1:9"})
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.count("\n") == 1
    assert "no CreditLab service answers at http://127.0.0.1:9" in told.stderr


def test_run_prints_the_results_alone(spec_file, tmp_path):
    env = {"CREDITLAB_DATA_DIR": str(tmp_path / "data")}
    told = creditlab("run", str(spec_file), "--json", "--out", str(tmp_path / "out"), env=env)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == json.loads((tmp_path / "out" / "results.json").read_text())
    assert "dfa: running" in told.stderr
    pages = {"spec.json", "results.json", "metrics.parquet", "curves.png", "alignment.png", "report.html"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == pages | {"model.safetensors", "checkpoint"}


def test_run_trains_the_controls_too(tmp_path):
    spec = QUICK_SPEC | {"controls": ["bp", "shallow"]}
    env = {"CREDITLAB_DATA_DIR": str(tmp_path / "data")}
    told = creditlab("run", "-", "--json", env=env, stdin=json.dumps(spec))
    pairing = json.loads(told.stdout)["pairing"]
    assert [(twin["method"], twin["paired"]) for twin in pairing["twins"]] == [("bp", True), ("shallow", True)]
    assert pairing["recovery"] is not None


def test_a_run_that_fails_says_why(tmp_path):
    env = {"CREDITLAB_DATA_DIR": str(tmp_path / "data")}
    told = creditlab("run", "-", "--json", env=env, stdin=json.dumps(DIVERGING_SPEC))
    assert told.returncode == 1
    assert told.stdout == ""
    assert "diverged" in told.stderr
    assert "Traceback" not in told.stderr


def test_seeds_train_together_and_leave_a_folder_each(tmp_path):
    spec = QUICK_SPEC | {"model": {"name": "mlp", "hidden": [16]}, "controls": ["bp"]}
    env = {"CREDITLAB_DATA_DIR": str(tmp_path / "data")}
    out = tmp_path / "out"
    told = creditlab("run", "-", "--json", "--seeds", "3-5", "--out", str(out), env=env, stdin=json.dumps(spec))
    assert told.returncode == 0, told.stderr
    results = json.loads(told.stdout)
    assert [one["seed"] for one in results] == [3, 4, 5]
    for one in results:
        assert one["environment"]["members"] == 3
        assert one["environment"]["seed"] == one["seed"]
        assert [twin["paired"] for twin in one["pairing"]["twins"]] == [True]
        folder = out / f"seed-{one['seed']}"
        assert json.loads((folder / "results.json").read_text()) == {k: v for k, v in one.items() if k != "seed"}
        assert (folder / "model.safetensors").exists()
        assert (folder / "bp" / "report.html").exists()
    assert len({one["pairing"]["init_sha256"] for one in results}) == 3


def test_seeds_of_nets_that_cannot_train_together_train_in_turn(tmp_path):
    spec = QUICK_SPEC | {"model": {"name": "mlp", "hidden": [16], "dropout": 0.1}}
    env = {"CREDITLAB_DATA_DIR": str(tmp_path / "data")}
    told = creditlab("run", "-", "--seeds", "2", env=env, stdin=json.dumps(spec))
    assert told.returncode == 0, told.stderr
    assert "dfa, 2 of 2 seeds" in told.stdout
    assert "mean ± 95 %" in told.stdout


def test_seeds_that_fail_are_told_beside_the_others(tmp_path):
    env = {"CREDITLAB_DATA_DIR": str(tmp_path / "data")}
    told = creditlab("run", "-", "--json", "--seeds", "2", env=env, stdin=json.dumps(DIVERGING_SPEC))
    assert told.returncode == 1
    assert [(one["seed"], one["error"]["code"]) for one in json.loads(told.stdout)] == [
        (0, "diverged"),
        (1, "diverged"),
    ]


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ("none", "'none' is neither a number of seeds, such as 16, nor a range of them, such as 0-15"),
        ("0", "'0' are 0 seeds; 1 to 1000 are allowed"),
        ("5-3", "'5-3' are -1 seeds; 1 to 1000 are allowed"),
        ("0-1000", "'0-1000' are 1001 seeds; 1 to 1000 are allowed"),
        ("9223372036854775808-9223372036854775809", "the seed 9223372036854775809 is out of range"),
        ("-1", "'-1' is neither"),
    ],
)
def test_seeds_that_are_none_are_named(seeds, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        parse(seeds)


def test_a_range_of_seeds_has_both_its_ends():
    assert parse("3") == (0, 1, 2)
    assert parse("7-9") == (7, 8, 9)


def test_an_interval_of_many_seeds_is_students():
    assert student(1) == 12.706
    assert student(15) == pytest.approx(2.1314, abs=1e-3)
    assert student(1_000) == pytest.approx(1.9623, abs=1e-4)


# ---- with a service --------------------------------------------------------------------------------------------------


def test_reading_commands_print_the_apis_json(service, finished):
    paths = {
        ("show",): f"/v1/jobs/{finished}",
        ("results",): f"/v1/jobs/{finished}/results",
        ("artifacts",): f"/v1/jobs/{finished}/artifacts",
        (
            "metrics",
            "--series",
            "train/loss",
            "--max-points",
            "5",
        ): f"/v1/jobs/{finished}/metrics?series=train/loss&max_points=5",
    }
    for (command, *options), path in paths.items():
        told = service.cli(command, finished, *options, "--json")
        assert json.loads(told.stdout) == httpx.get(service.url + path).json()
    for command in ("methods", "models", "datasets", "queue"):
        assert json.loads(service.cli(command, "--json").stdout) == httpx.get(f"{service.url}/v1/{command}").json()
    listed = json.loads(service.cli("list", "--label", "made:for tests", "--json").stdout)
    assert {job["id"] for job in listed["data"]} > {finished}
    assert json.loads(service.cli("workers", "--json").stdout)["data"][0]["alive"] is True


def test_tables_tell_the_same(service, finished):
    results = json.loads(service.cli("results", finished, "--json").stdout)
    table = service.cli("results", finished).stdout
    for told in (
        f"{100 * results['test']['accuracy']:.2f} %",
        "shallow",
        "hidden1",
        f"{100 * results['pairing']['recovery']:.2f} %",
    ):
        assert told in table
    assert finished in service.cli("list", "--method", "dfa").stdout
    assert "succeeded" in service.cli("show", finished).stdout
    assert "alive" in service.cli("workers").stdout
    heads = "position job reason queued (UTC) starts about (UTC)"
    assert service.cli("queue", finished).stdout.split() == heads.split()
    assert (
        service.cli("metrics", finished, "--series", "test/accuracy")
        .stdout.splitlines()[1]
        .startswith("test/accuracy\t\t10\t1.0\t")
    )
    assert "dfa" in service.cli("methods").stdout
    assert "unified" in service.cli("methods", "dfa").stdout
    for told in ("score_expansion.kind", "stack | random_feat", "arxiv.org/abs/2605.30638", "running correlation"):
        assert told in service.cli("methods", "sbd").stdout
    assert "array of dense | conv" in service.cli("models", "custom").stdout
    assert "14 labels" in service.cli("datasets", "chestmnist").stdout
    assert json.loads(service.cli("datasets", "cifar100", "--json").stdout)["classes"] == 100


def test_logs_end_with_the_job_and_tail_is_their_end(service, finished):
    everything = service.cli("logs", finished, "--follow").stdout.splitlines()
    assert service.cli("logs", finished, "--tail", "2").stdout.splitlines() == everything[-2:]
    assert service.cli("logs", finished, "--tail", "0").stdout == ""
    numbered = [json.loads(line)["seq"] for line in service.cli("logs", finished, "--json").stdout.splitlines()]
    assert numbered == list(range(1, len(everything) + 1))


def test_artifacts_are_fetched_and_a_report_is_made(service, finished, tmp_path):
    assert service.cli("artifacts", finished, "--download", str(tmp_path)).returncode == 0
    listed = json.loads(service.cli("artifacts", finished, "--json").stdout)["data"]
    assert {one["name"]: one["size"] for one in listed} == {
        path.name: path.stat().st_size for path in tmp_path.iterdir()
    }
    page = tmp_path / "page.html"
    assert service.cli("report", finished, "--out", str(page)).returncode == 0
    assert "equal in all 3" in page.read_text()


def test_wait_says_how_it_ended(service, finished):
    assert service.cli("wait", finished).returncode == 0
    failing = service.cli("submit", "-", "--wait", stdin=json.dumps(DIVERGING_SPEC))
    assert failing.returncode == 1
    assert "diverged" in failing.stdout + failing.stderr
    long = service.cli("submit", "-", stdin=json.dumps(LONG_SPEC)).stdout.strip()
    assert service.cli("wait", long, "--timeout", "0.5").returncode == 4
    assert service.cli("cancel", long).returncode == 0
    assert service.cli("wait", long).returncode == 3
    again = service.cli("cancel", long)
    assert again.returncode == 1
    assert "cancelled" in again.stderr


def test_a_wrong_spec_is_not_stored(service):
    told = service.cli("submit", "-", stdin='{"method": "dfa", "model": "mlp", "dataset": "mnst", "name": "wrong"}')
    assert told.returncode == 2
    assert "#/dataset" in told.stderr
    assert "did you mean 'mnist'" in told.stderr


def test_what_is_not_there_is_1(service):
    for command in ("show", "wait", "logs", "metrics", "results", "cancel", "artifacts"):
        told = service.cli(command, "job_00000000000000000000000000")
        assert told.returncode == 1
        assert told.stdout == ""
        assert "no job has the id" in told.stderr
    assert "dfa" in service.cli("methods", "dfaa").stderr


def test_a_reader_may_leave_early(service, finished):
    command = f"{' '.join(CREDITLAB)} metrics {finished} | head -1"
    env = os.environ | service.env
    told = subprocess.run(["/bin/sh", "-c", command], check=False, env=env, capture_output=True, text=True)
    assert told.stdout == "series\tlayer\tstep\tepoch\tvalue\n"
    assert told.stderr == ""
