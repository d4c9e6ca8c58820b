"""What Prometheus reads: requests as they are answered, and gauges of the whole service from its database.

No id, name or label of a user is ever the value of a label: the number of series is bounded by this program.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from http import HTTPMethod, HTTPStatus
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lab import counters, gauges
from lab.db import Database
from lab.errors import LabError

CACHE_SECONDS = 5.0
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
METHODS = {method.value for method in HTTPMethod}
BY_LABEL = {
    "jobs": ("status", "Jobs by status"),
    "queue_depth": ("queue", "Jobs that wait for a worker"),
    "step_seconds": ("method", "Median time of a training step over the jobs that succeeded last"),
}
PLAIN = {
    "queue_age_seconds": "Time since the oldest waiting job was submitted",
    "running_attempts": "Attempts that hold a job",
    "lease_age_seconds": "Time since a running attempt's lease was renewed, of the oldest one",
    "unrung_bells": "Waiting jobs for which nobody has rung lately",
    "webhook_backlog": "Messages to webhooks that have not been received yet",
    "workers": "Workers that are alive",
    "free_slots": "Slots of living workers that would take a job",
}
OF_GPU = {
    "memory_used_bytes": "Memory of a GPU that is in use",
    "memory_total_bytes": "Memory of a GPU",
    "utilization": "Share of the time in which a GPU ran a kernel",
    "temperature_celsius": "Temperature of a GPU",
    "power_watts": "Power that a GPU draws",
}
"""Of each GPU of a living worker, by host and index; what its driver does not tell is missing."""

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which ``prometheus_client`` knows that several processes share its values, in files of a folder."""
SUMMED: Any = {"multiprocess_mode": "livesum"}

disable_created_metrics()


class Metrics:
    """The metrics of the API: of this process, or of all that share its address, whichever of them is asked."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        if SHARED_FOLDER in os.environ:  # then the values are in files there, and what is told is their sum
            own = CollectorRegistry()
            MultiProcessCollector(self.registry)
        self.requests = Histogram(
            "creditlab_http_request_seconds",
            "Time until the answer to a request begins",
            ["method", "route", "status"],
            buckets=BUCKETS,
            registry=own,
        )
        self.streams = Gauge("creditlab_open_streams", "Streams of events that are open", registry=own, **SUMMED)
        self.waiters = Gauge("creditlab_waiters", "Streams and requests that wait for news", registry=own, **SUMMED)
        self.registry.register(Processes())
        self.registry.register(Stored(database, lease_seconds))


class Processes(Collector):
    """What the API's processes take together."""

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not ask at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        cpu, resident, files, alive = 0.0, 0, 0, 0
        for pid in living():
            with suppress(psutil.Error), (process := psutil.Process(pid)).oneshot():
                times = process.cpu_times()
                resident, files = resident + process.memory_info().rss, files + process.num_fds()
                cpu, alive = cpu + times.user + times.system, alive + 1
        yield CounterMetricFamily("creditlab_process_cpu_seconds", "CPU time of the API's living processes", value=cpu)
        yield GaugeMetricFamily("creditlab_process_resident_memory_bytes", "Their memory", value=resident)
        yield GaugeMetricFamily("creditlab_process_open_fds", "Their open files", value=files)
        yield GaugeMetricFamily("creditlab_processes", "How many they are", value=alive)


def living() -> list[int]:
    """The processes of the API. Of those that have died, the gauges are forgotten; what they counted stays."""
    if SHARED_FOLDER not in os.environ:
        return [os.getpid()]
    known = {int(file.stem.rpartition("_")[2]) for file in Path(os.environ[SHARED_FOLDER]).glob("gauge_*.db")}
    alive = set(psutil.pids())
    for pid in known - alive:
        mark_process_dead(pid)
    return sorted(known & alive)


class Stored(Collector):
    """Gauges and counters from the database, asked for every five seconds at most."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self.database, self.lease_seconds = database, lease_seconds
        self._lock = threading.Lock()
        self._taken_at = float("-inf")
        self._taken: gauges.Gauges | None = None

    def taken(self) -> gauges.Gauges | None:
        with self._lock:
            if time.monotonic() - self._taken_at > CACHE_SECONDS:
                try:
                    with self.database.read() as tx:
                        self._taken = gauges.take(tx, lease_seconds=self.lease_seconds)
                except LabError:
                    self._taken = None
                self._taken_at = time.monotonic()
            return self._taken

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not ask the database at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        taken = self.taken()
        yield GaugeMetricFamily("creditlab_database_up", "Whether the database answers", value=float(taken is not None))
        if taken is None:
            return
        for name, (label, meaning) in BY_LABEL.items():
            family = GaugeMetricFamily(f"creditlab_{name}", meaning, labels=[label])
            for key, value in getattr(taken, name).items():
                family.add_metric([key], value)
            yield family
        for name, meaning in PLAIN.items():
            yield GaugeMetricFamily(f"creditlab_{name}", meaning, value=getattr(taken, name))
        yield from gpus(taken)
        ended = CounterMetricFamily("creditlab_attempts", "Attempts that have ended, by outcome", labels=["outcome"])
        for name, outcome in counters.ATTEMPTS.items():
            ended.add_metric([outcome], taken.counters[name])
        yield ended
        for name, meaning in counters.COUNTERS.items():
            yield CounterMetricFamily(f"creditlab_{name}", meaning, value=taken.counters[name])


def gpus(taken: gauges.Gauges) -> Iterator[Metric]:
    labels = ["host", "gpu", "model"]
    families = {
        name: GaugeMetricFamily(f"creditlab_gpu_{name}", about, labels=labels) for name, about in OF_GPU.items()
    }
    energy = CounterMetricFamily("creditlab_gpu_energy_joules", "Energy since a GPU's driver was loaded", labels=labels)
    for host, gpu in taken.gpus:
        for name, family in (families | {"energy_joules": energy}).items():
            if gpu[name] is not None:
                family.add_metric([host, str(gpu["index"]), gpu["name"] or ""], gpu[name])
    yield from (*families.values(), energy)


assert {field.name for field in fields(gauges.Gauges)} == {*BY_LABEL, *PLAIN, "gpus", "counters"}


class Measured:
    """Times every request until its answer begins, by the template of its route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, answered = time.perf_counter(), False

        def observe(status: int) -> None:
            nonlocal answered
            answered = True
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path_format", "none")
            taken = time.perf_counter() - began
            self.metrics.requests.labels(method, route, str(status)).observe(taken)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                observe(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if not answered:
                observe(error.status if isinstance(error, LabError) else HTTPStatus.INTERNAL_SERVER_ERROR.value)
            raise
