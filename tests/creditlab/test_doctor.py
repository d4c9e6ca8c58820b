"""The doctor names what is missing, and what to do about it."""

import json
import os

import pytest

from creditlab import doctor
from creditlab.broker import EmbeddedBroker
from lab.db import Database
from lab.settings import Settings
from tests.s3 import S3Server
from tests.stack import creditlab


def found(settings: Settings) -> dict[str, doctor.Finding]:
    return {finding.check: finding for finding in doctor.examine(settings)}


def test_a_service_that_has_not_run_yet_has_no_problem(tmp_path):
    told = found(Settings(data_dir=tmp_path / "new", api_url="http://127.0.0.1:1"))
    assert {check: finding.state for check, finding in told.items() if finding.state != "ok"} == {
        "database": "warning",
        "API": "warning",
    }
    assert "creditlab up" in str(told["API"].advice)
    assert not (tmp_path / "new").exists(), "a doctor only looks"


def test_a_service_that_runs(settings: Settings, database: Database):
    told = found(settings.model_copy(update={"api_url": "http://127.0.0.1:1"}))
    assert (told["database"].state, told["migrations"].state, told["broker"].state) == ("ok", "ok", "ok")
    assert (told["workers"].state, told["workers"].advice) == (
        "warning",
        "start `creditlab up` or `creditlab worker`",
    )


@pytest.mark.parametrize(
    ("setting", "value", "check"),
    [
        ("database_url", "postgresql://nobody@127.0.0.1:1/none", "database"),
        ("broker_url", "redis://127.0.0.1:1/0", "broker"),
        ("datasets_dir", "/no/such/folder", "data sets"),
        ("artifact_url", "/proc/nowhere", "artifact store"),
        ("data_dir", "/proc/nowhere", "data folder"),
    ],
)
def test_each_problem_has_its_advice(setting, value, check, tmp_path):
    settings = Settings(**{"data_dir": tmp_path, "api_url": "http://127.0.0.1:1"} | {setting: value})
    finding = found(settings)[check]
    assert finding.state == "problem"
    assert finding.advice


def test_a_bucket_is_written_read_and_cleared(tmp_path, s3_server: S3Server):
    given = {"data_dir": tmp_path, "api_url": "http://127.0.0.1:1"} | s3_server.settings()
    finding = found(Settings(**given))["artifact store"]
    assert finding.state == "ok", finding
    for wrong in ({"artifact_url": "s3://no-such-bucket"}, {"s3_endpoint_url": "http://127.0.0.1:1"}):
        finding = found(Settings(**given | wrong))["artifact store"]
        assert finding.state == "problem"
        assert "CREDITLAB_ARTIFACT_URL, CREDITLAB_S3_ENDPOINT_URL" in str(finding.advice)
        assert "testing-secret" not in str(finding)


def test_tables_of_another_version(tmp_path):
    (tmp_path / "creditlab.db").touch()
    finding = found(Settings(data_dir=tmp_path, api_url="http://127.0.0.1:1"))["migrations"]
    assert (finding.state, "creditlab migrate" in str(finding.advice)) == ("problem", True)


def test_the_command_says_it_in_lines_or_json_and_by_its_status(tmp_path, broker: EmbeddedBroker):
    env = {"CREDITLAB_DATA_DIR": str(tmp_path), "CREDITLAB_API_URL": "http://127.0.0.1:1"}
    well = creditlab("doctor", env=env | {"CREDITLAB_BROKER_URL": broker.url})
    assert (well.returncode, well.stderr) == (0, "")
    assert "broker            answers" in well.stdout
    ill = creditlab("doctor", "--json", env=env | {"CREDITLAB_BROKER_URL": "redis://127.0.0.1:1/0"})
    assert ill.returncode == 1
    states = {finding["check"]: finding["state"] for finding in json.loads(ill.stdout)["findings"]}
    assert states["broker"] == "problem"
    assert os.listdir(tmp_path) == []  # noqa: PTH208
