"""Several processes at one address are one API: what they count is one sum, and each of them may die."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from creditlab.broker import free_port
from lab import processes
from lab.settings import Settings
from tests import factories
from tests.api.conftest import DEADLINE_SECONDS, eventually

COUNT = 2


@dataclass(frozen=True)
class Several:
    supervisor: Any
    url: str

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.supervisor.pid).children()

    def ask(self, path: str) -> httpx.Response:
        """By a connection of its own, which any of the processes may accept."""
        return httpx.get(self.url + path, timeout=DEADLINE_SECONDS)

    def are_ready(self) -> bool:
        try:
            return self.ask("/readyz").is_success and self.told("processes") == COUNT
        except httpx.TransportError:
            return False

    def told(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.ask("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        ours = [one for one in samples if one.name == f"creditlab_{name}" and labels.items() <= one.labels.items()]
        return sum(one.value for one in ours)

    def lists(self) -> float:
        return self.told("http_request_seconds_count", route="/v1/jobs", method="GET")


@contextmanager
def several(settings: Settings) -> Iterator[Several]:
    port = free_port()
    environment = os.environ | settings.environment() | {"CREDITLAB_API_PROCESSES": str(COUNT)}
    with (settings.data_dir / "api.log").open("wb") as log:
        supervisor = processes.start([sys.executable, "-m", "api", "--port", str(port)], env=environment, output=log)
    found = Several(supervisor, f"http://127.0.0.1:{port}")
    try:
        eventually(found.are_ready)
        yield found
    finally:
        processes.stop(supervisor, grace=DEADLINE_SECONDS)


def is_free(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", httpx.URL(url).port or 0)) != 0


def test_what_they_count_is_one_sum(alone: Settings) -> None:
    with several(alone) as api:
        for number in range(1, 31):
            assert api.ask("/v1/jobs").status_code == 200
            assert api.lists() == number, "whichever process is asked"
        assert api.told("process_resident_memory_bytes") > 0
        assert api.told("open_streams") == api.told("waiters") == 0


def test_one_that_is_killed_is_started_again_and_what_it_counted_stays(alone: Settings) -> None:
    with several(alone) as api:
        job_id = httpx.post(f"{api.url}/v1/jobs", json=factories.TINY, timeout=DEADLINE_SECONDS).json()["id"]
        for _ in range(10):
            api.ask("/v1/jobs")
        with httpx.stream(
            "GET", f"{api.url}/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}, timeout=None
        ) as stream:
            lines = stream.iter_lines()  # kept: without it the stream would be closed
            next(lines)
            eventually(lambda: api.told("open_streams") == 1)
            before = {child.pid for child in api.children()}
            for child in api.children():
                child.kill()
            eventually(lambda: len({child.pid for child in api.children()} - before) == COUNT)
        eventually(api.are_ready)
        assert api.told("open_streams") == 0, "of a process that is gone"
        assert api.lists() == 10
        assert api.ask(f"/v1/jobs/{job_id}").is_success


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_none_survives_the_supervisor(alone: Settings, end: signal.Signals) -> None:
    with several(alone) as api:
        children = api.children()
        assert len(children) == COUNT
        api.supervisor.send_signal(end)
        assert api.supervisor.wait(DEADLINE_SECONDS) in {0, -signal.SIGKILL}
        assert psutil.wait_procs(children, timeout=DEADLINE_SECONDS)[1] == []
        eventually(lambda: is_free(api.url))
