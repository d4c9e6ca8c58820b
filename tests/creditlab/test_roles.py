"""One role each, as Docker Compose runs them: migrate once, then an API and a worker as processes of their own."""

import json
import os
import signal

import pytest

from creditlab.broker import free_port
from creditlab.client import Client, Unreachable
from lab import processes
from lab.db import Database
from tests.stack import CREDITLAB, QUICK_SPEC, creditlab, poll


@pytest.mark.slow
def test_each_role_alone(broker, tmp_path):
    port = free_port()
    env = {
        "CREDITLAB_DATA_DIR": str(tmp_path / "data"),
        "CREDITLAB_BROKER_URL": broker.url,
        "CREDITLAB_API_URL": f"http://127.0.0.1:{port}",
        "CREDITLAB_THREADS": "1",
    }
    for _ in range(2):  # a second time changes nothing
        assert creditlab("migrate", env=env).returncode == 0
    database = Database(f"sqlite:///{tmp_path}/data/creditlab.db")
    assert database.is_current()
    database.dispose()
    with (tmp_path / "log").open("wb") as log:
        roles = [
            processes.start([*CREDITLAB, *role], env=os.environ | env, output=log)
            for role in (("api", "--port", str(port)), ("worker", "--concurrency", "1", "--gpus", "none"))
        ]
    try:
        with Client(env["CREDITLAB_API_URL"]) as client:
            poll(lambda: answers(client))
        told = creditlab("submit", "-", "--wait", env=env, stdin=json.dumps(QUICK_SPEC))
        assert told.returncode == 0, told.stdout + told.stderr
        assert creditlab("alive", env=env).returncode == 0
    finally:
        api, worker = [processes.stop(role, grace=20) for role in roles]
    assert api in {0, -signal.SIGTERM}, "uvicorn passes the signal on once it is done"
    assert worker == 0, (tmp_path / "log").read_text()
    told = creditlab("alive", env=env)
    assert (told.returncode, "is alive" in told.stderr) == (1, True)


def test_a_worker_without_tables_or_broker_says_so(tmp_path):
    env = {"CREDITLAB_DATA_DIR": str(tmp_path)}
    assert "CREDITLAB_BROKER_URL" in creditlab("worker", env=env).stderr


def test_migrate_says_what_is_wrong_with_the_database(tmp_path):
    told = creditlab("migrate", env={"CREDITLAB_DATA_DIR": str(tmp_path), "CREDITLAB_DATABASE_URL": "mysql://nowhere"})
    assert told.returncode == 1
    assert "mysql" in told.stderr
    assert "Traceback" not in told.stderr


def answers(client):
    try:
        return client.datasets()
    except Unreachable:
        return None
