"""Keys on the host: made, listed and revoked through the database; the first one by ``creditlab up``."""

import json
import re

import httpx
import pytest

from creditlab.client import ApiError, Client
from lab import keys
from tests.stack import QUICK_SPEC, creditlab, up


@pytest.fixture
def env(tmp_path):
    env = {"CREDITLAB_DATA_DIR": str(tmp_path)}
    assert creditlab("migrate", env=env).returncode == 0
    return env


def test_keys_are_made_listed_and_revoked(env):
    told = creditlab("keys", "create", "--project", "vision", "--scope", "read", "--expires", "30d", env=env)
    secret = told.stdout.strip()
    assert keys.is_wellformed(secret), told.stderr
    made = json.loads(creditlab("keys", "create", "--name", "ci", "--json", env=env).stdout)
    assert (made["project"], made["scopes"]) == ("default", ["read", "write"])
    listed = json.loads(creditlab("keys", "list", "--json", env=env).stdout)["data"]
    assert [(one["project"], one["last4"]) for one in listed] == [("vision", secret[-4:]), ("default", made["last4"])]
    assert creditlab("keys", "revoke", made["id"], env=env).returncode == 0
    table = creditlab("keys", "list", "--project", "default", env=env).stdout
    assert made["id"] in table
    assert secret[4:-4] not in table
    assert listed[0]["id"] not in table


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("create", "--project", "../x"), 2, "not a project's name"),
        (("create", "--expires", "soon"), 2, "neither a span"),
        (("create", "--expires", "2020-01-01"), 2, "not in the future"),
        (("create", "--scope", "root"), 2, "root"),
        (("revoke", "key_x"), 1, "no key has the id"),
    ],
)
def test_wrong_arguments_are_said(env, arguments, status, said):
    told = creditlab("keys", *arguments, env=env)
    assert told.returncode == status
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    assert json.loads(creditlab("keys", "list", "--json", env=env).stdout)["data"] == []


def test_quotas_are_set_on_the_host(env):
    assert creditlab("projects", "set", "vision", "--queued-jobs", "5", "--running-jobs", "2", env=env).returncode == 0
    assert creditlab("projects", "set", "vision", "--running-jobs", "0", env=env).returncode == 0
    listed = json.loads(creditlab("projects", "list", "--json", env=env).stdout)["data"]
    assert [(one["name"], one["queued_jobs"], one["running_jobs"]) for one in listed] == [
        ("default", None, None),
        ("vision", 5, None),
    ]


def test_without_tables_it_says_what_to_do(tmp_path):
    told = creditlab("keys", "list", env={"CREDITLAB_DATA_DIR": str(tmp_path)})
    assert told.returncode == 1
    assert "creditlab migrate" in told.stderr


def test_nothing_is_open_to_others_without_keys(tmp_path):
    told = creditlab("up", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path))
    assert told.returncode == 1
    assert "loopback" in told.stderr
    assert "CREDITLAB_AUTH=required" in told.stderr


@pytest.mark.slow
def test_with_keys_others_are_served(tmp_path):
    with up(tmp_path / "data", auth="required") as service:
        out = (tmp_path / "data.out").read_text()
        (secret,) = re.findall(r"clk_\w+", out)
        assert keys.is_wellformed(secret)
        assert httpx.get(f"{service.url}/v1/jobs", headers={"Host": "lab.example"}).status_code == 401
        with Client(service.url) as nobody, pytest.raises(ApiError) as refused:
            nobody.submit(QUICK_SPEC)
        assert refused.value.code == "missing_key"
        service.env["CREDITLAB_API_KEY"] = secret
        told = service.cli("submit", "-", "--wait", stdin=json.dumps(QUICK_SPEC))
        assert told.returncode == 0, told.stderr
    with up(tmp_path / "data", auth="required"):
        assert "clk_" not in (tmp_path / "data.out").read_text()
    logs = "".join(path.read_text() for path in (tmp_path / "data" / "logs").iterdir())
    assert secret[4:-4] not in logs
