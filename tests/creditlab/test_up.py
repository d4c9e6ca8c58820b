"""``creditlab up``: everything comes up, comes back when it dies, and goes away without a trace."""

import json
import signal
import socket
import sys

import httpx
import pytest

from tests.stack import QUICK_SPEC, alive, creditlab, poll, up

NO_SERVER = """
import sys
from creditlab import broker, cli, up
broker.server_binary = up.server_binary = lambda: None
cli.main()
"""


def test_a_busy_port_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = creditlab("up", "--port", str(port), "--data-dir", str(tmp_path))
    assert told.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in told.stderr
    assert "Traceback" not in told.stderr


def test_one_service_per_folder(service):
    told = creditlab("up", "--port", "0", "--data-dir", str(service.folder))
    assert told.returncode == 1
    assert "another `creditlab up` runs on" in told.stderr
    assert service.ready()


def test_a_secret_in_a_file_serves_all_processes(tmp_path):
    (tmp_path / "key").write_text("k" * 32)
    with up(tmp_path / "data", secret_key_file=str(tmp_path / "key")) as service:
        assert httpx.get(f"{service.url}/v1/jobs").json()["data"] == []
    assert not (tmp_path / "data" / "secret_key").exists()


def test_wrong_settings_are_said(tmp_path):
    wrong = {"CREDITLAB_DATABASE_URL": "mysql://nowhere"}
    told = creditlab("up", "--port", "0", "--data-dir", str(tmp_path), env=wrong)
    assert told.returncode == 1
    assert "mysql" in told.stderr
    assert "Traceback" not in told.stderr
    assert creditlab("up", env={"CREDITLAB_THREADS": "none"}).returncode == 2


@pytest.mark.slow
def test_what_dies_comes_back_and_sigint_ends_all(tmp_path):
    with up(tmp_path / "data") as service:
        for part in ("valkey-server", "api", "worker"):
            victim = service.child(part)
            victim.kill()
            poll(lambda victim=victim: not alive(victim))
            poll(lambda part=part: service.child(part))
        poll(service.ready)
        told = service.cli("submit", "-", "--wait", stdin=json.dumps(QUICK_SPEC))
        assert told.returncode == 0, told.stderr
        assert service.stop(signal.SIGINT) == 0
    assert "stopped" in (tmp_path / "data.out").read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_nothing_survives_the_supervisor(tmp_path):
    with up(tmp_path / "data") as service:
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL  # stop waits until all processes are gone


@pytest.mark.slow
def test_without_any_broker_files_do(tmp_path):
    with up(tmp_path / "data", sys.executable, "-c", NO_SERVER) as service:
        told = service.cli("submit", "-", "--wait", stdin=json.dumps(QUICK_SPEC))
        assert told.returncode == 0, told.stderr
        assert httpx.get(f"{service.url}/readyz").is_success
    assert "degraded to files" in (tmp_path / "data.out").read_text()
