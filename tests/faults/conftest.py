"""A service of one's own to break, and the run that nobody has disturbed."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from creditlab.broker import EmbeddedBroker
from lab import checkpoints, reads, series, tables
from lab.checkpoints import Stored
from lab.db import Database
from tests.conftest import fresh_database
from tests.factories import TINY
from tests.postgresql import KillablePostgreSQL
from tests.service import Service, eventually, serving
from tests.stack import creditlab

LASTING: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [16, 16], "dropout": 0.1},
    "training": TINY["training"] | {"epochs": 240, "log_every": 7},
    "alignment": {"every": 90, "samples": 32},
}
"""A run of 2,400 steps, with something to get wrong: masks of dropout, intervals across epochs, probes between them."""


@dataclass(frozen=True)
class Undisturbed:
    """What the run comes to when nothing happens."""

    weights: str
    points: dict[tuple[str, str | None], list[tuple[int, float, float | None]]]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = creditlab("run", "-", "--out", str(folder), stdin=json.dumps(TINY | LASTING))
    assert done.returncode == 0, done.stderr
    points: dict[tuple[str, str | None], list[Any]] = {}
    for row in pq.read_table(folder / "metrics.parquet").to_pylist():
        points.setdefault((row["series"], row["layer"]), []).append((row["step"], row["epoch"], row["value"]))
    return Undisturbed(hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(), points)


class Broken(Service):
    """A service, and what its jobs are held to."""

    def submit(self, **fields: Any) -> str:
        return super().submit(**(LASTING | fields))

    def checkpoints(self, job_id: str) -> tuple[Stored, ...]:
        with self.database.read() as tx:
            return checkpoints.of(tx, job_id)

    def checkpointed(self, job_id: str) -> tuple[Stored, ...]:
        """Two checkpoints of a job that is still training."""
        return eventually(lambda: (known := self.checkpoints(job_id)) and len(known) == 2 and known)

    def attempts(self, job_id: str) -> list[tables.Attempt]:
        with self.database.read() as tx:
            rows = tx.query(tables.Attempt).where(tables.Attempt.job_id == job_id).order_by(tables.Attempt.number)
            return list(rows)

    def two_attempts(self, job_id: str) -> list[tables.Attempt]:
        """The attempts of a job that was interrupted once; where there are others, it is said what became of them."""
        found = self.attempts(job_id)
        assert len(found) == 2, [event["message"] for event in self.events(job_id) if event["type"] == "status"]
        return found

    def succeeded(self, job_id: str, undisturbed: Undisturbed) -> dict[str, Any]:
        """The job, which has ended like the undisturbed run: every point once, the weights bit for bit."""
        job = self.ended(job_id)
        assert job["status"] == "succeeded", (job, self.log.read_text())
        with self.database.read() as tx:
            told = {
                (row["name"], row["layer"]): [tuple(point) for point in row["points"]]
                for row in series.read(tx, job_id)
            }
            files = {row["name"]: row["sha256"] for row in reads.artifacts(tx, job_id)["data"]}
            log = reads.events(tx, job_id, limit=10_000)["data"]
        assert told == undisturbed.points
        assert files["model.safetensors"] == undisturbed.weights
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
        return job


BROKEN: dict[str, Any] = {"kind": Broken, "checkpoint_seconds": 0.1, "checkpoint_share": 1.0}
"""A service whose checkpoints come in quick succession."""


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path: Path, broker: EmbeddedBroker) -> Iterator[Broken]:
    """A service with no worker yet, and checkpoints in quick succession."""
    with fresh_database(request.param, request, tmp_path) as url, serving(url, tmp_path, broker, **BROKEN) as made:
        yield made


@pytest.fixture
def own_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Broken, EmbeddedBroker]]:
    """A service with a broker of its own, and no worker yet."""
    broker = EmbeddedBroker(tmp_path / "broker")
    broker.start()
    with fresh_database("sqlite", request, tmp_path) as url, serving(url, tmp_path, broker, **BROKEN) as made:
        yield made, broker
    broker.stop()


@pytest.fixture
def own_database(tmp_path: Path, broker: EmbeddedBroker) -> Iterator[tuple[Broken, KillablePostgreSQL]]:
    """A service with a PostgreSQL server of its own, and no worker yet."""
    with KillablePostgreSQL() as server:
        database = Database(server.url)
        database.migrate()
        database.dispose()
        with serving(server.url, tmp_path, broker, **BROKEN) as made:
            yield made, server
