"""A real API process in a thread: uvicorn on a free port, over SQLite and PostgreSQL, beside a real Valkey."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import func, select

from api.__main__ import Server
from api.app import create_app
from creditlab.broker import EmbeddedBroker
from lab import attempts, bell, keys, projects, tables
from lab.db import Database
from lab.settings import Settings
from tests import factories
from tests.conftest import fresh_database

DEADLINE_SECONDS = 20
_numbers = count()


@dataclass
class Service:
    settings: Settings
    app: FastAPI
    server: Server
    client: httpx.Client

    @property
    def database(self) -> Database:
        database: Database = self.app.state.database
        return database

    def rows(self) -> dict[str, int]:
        """How many rows each table has; the reconciler's lease and the default project say nothing about requests."""
        with self.database.read() as tx:
            counted = tables.metadata.sorted_tables
            return {
                table.name: tx.scalar(select(func.count()).select_from(table)) or 0
                for table in counted
                if table.name not in {"leases", "projects"}
            }

    def submit(self, **fields: Any) -> str:
        """The id of a new tiny job."""
        answer = self.client.post("/v1/jobs", json=factories.TINY | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def key(self, project: str, scope: str = "write", **fields: Any) -> str:
        """A new key of a project, which is made if there is none, with these quotas or the key's expiry."""
        with self.database.write() as tx:
            owner = projects.ensure(tx, project)
            expires_at = fields.pop("expires_at", None)
            for quota, value in fields.items():
                setattr(owner, quota, value)
            return keys.create(tx, "of a test", scope, expires_at, project)[1]

    @contextmanager
    def holding(self, key: str) -> Iterator[httpx.Client]:
        """A client with this key."""
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=self.client.base_url, headers=headers, timeout=DEADLINE_SECONDS) as client:
            yield client

    def claim(self, job_id: str | None = None) -> attempts.Attempt:
        """The attempt that is due next; with an id, the first one for that job."""
        while True:
            with self.database.write() as tx:
                attempt = attempts.claim(tx, "wrk_test", cuda=False)
            assert attempt is not None
            if job_id in {None, attempt.job_id}:
                return attempt


@contextmanager
def serving(settings: Settings, add: Callable[[FastAPI], None] = lambda app: None) -> Iterator[Service]:
    """The API on a free port. ``add`` may put further routes on it."""
    app = create_app(settings)
    add(app)
    config = uvicorn.Config(app, port=0, log_level="warning", ws="none", lifespan="on", timeout_graceful_shutdown=5)
    server = Server(config, app.state.watcher)
    thread = Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_SECONDS) as client:
        yield Service(settings, app, server, client)
    server.should_exit = True
    thread.join()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest, broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The API over a database of the module's own, for tests that store nothing; once for each kind."""
    folder = tmp_path_factory.mktemp("shared")
    with fresh_database(request.param, request, folder) as url:
        settings = Settings(
            data_dir=folder / "data",
            database_url=url,
            broker_url=broker.url,
            threads=1,
            quota_requests_per_minute=10**9,
        )
        settings.data_dir.mkdir()
        with serving(settings) as running:
            yield running


@pytest.fixture
def service(shared: Service) -> Service:
    """The same, with empty tables."""
    with shared.database.write() as tx:
        for table in reversed(tables.metadata.sorted_tables):
            if table.name != "projects":
                tx.execute(table.delete())
    return shared


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def guarded(
    request: pytest.FixtureRequest, broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The API with keys required, once for each kind of database; every test has projects of its own."""
    folder = tmp_path_factory.mktemp("guarded")
    with fresh_database(request.param, request, folder) as url:
        settings = Settings(data_dir=folder, database_url=url, broker_url=broker.url, threads=1, auth="required")
        with serving(settings) as running:
            yield running


@pytest.fixture
def project() -> str:
    """The name of a project that no other test uses."""
    return f"project{next(_numbers)}"


@pytest.fixture
def alone(tmp_path: Path, broker: EmbeddedBroker, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings of a service of the test's own, on SQLite, to be changed or broken by the test."""
    with fresh_database("sqlite", request, tmp_path) as url:
        yield Settings(data_dir=tmp_path, database_url=url, broker_url=broker.url, threads=1)
    bell.configure(Settings(data_dir=tmp_path, broker_url=broker.url))


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The document of an answer that has to be this problem."""
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == f"urn:creditlab:request:{answer.headers['x-request-id']}"
    assert "Traceback" not in answer.text
    return document
