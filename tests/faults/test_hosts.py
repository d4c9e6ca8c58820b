"""Workers that share no disk: what they need comes from the bucket, and what they leave goes there."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from creditlab.broker import EmbeddedBroker
from lab import bell, datasets, jobs, reads, specs, tables, uploads
from lab.files import Store, open_store
from tests.conftest import fresh_database
from tests.credit.upload_files import npz
from tests.factories import TINY
from tests.faults.conftest import BROKEN, Broken
from tests.faults.test_storage import eventually_deferred, try_now, warnings
from tests.s3 import S3Server
from tests.service import eventually, serving


class Hosts(Broken):
    """A service whose workers have a data folder each; the database stands for a server."""

    @property
    def store(self) -> Store:
        return open_store(self.settings)

    @contextmanager
    def on(self, host: str) -> Iterator[Path]:
        """The settings of a host, and its data folder."""
        before, folder = self.settings, self.log.parent / host
        self.settings = before.model_copy(update={"data_dir": folder})
        yield folder
        self.settings = before

    def start_worker_on(self, host: str) -> Any:
        with self.on(host):
            return self.start_worker()


@contextmanager
def serving_hosts(request: Any, folder: Path, broker: EmbeddedBroker, server: S3Server) -> Iterator[Hosts]:
    chosen: dict[str, Any] = BROKEN | {"kind": Hosts} | server.settings()
    with fresh_database("sqlite", request, folder) as url, serving(url, folder, broker, **chosen) as made:
        yield made


@pytest.fixture
def hosts(
    request: pytest.FixtureRequest, tmp_path: Path, broker: EmbeddedBroker, s3_server: S3Server
) -> Iterator[Hosts]:
    with serving_hosts(request, tmp_path, broker, s3_server) as made:
        yield made


def test_a_job_goes_on_on_another_host_from_its_checkpoint(hosts, undisturbed):
    first = hosts.start_worker_on("one")
    job_id = hosts.submit()
    hosts.checkpointed(job_id)
    first.terminate()
    assert first.wait(30) == 0, hosts.log.read_text()
    stored, *_ = hosts.checkpoints(job_id)
    assert not list((hosts.log.parent / "one" / "attempts").iterdir())
    hosts.start_worker_on("two")
    hosts.succeeded(job_id, undisturbed)
    attempts = hosts.attempts(job_id)
    assert [attempt.outcome for attempt in attempts] == ["preempted", "finish"]
    assert attempts[1].first_step == stored.step > 0
    assert not warnings(hosts, job_id)


def send(hosts: Hosts, name: str, **arrays: Any) -> tables.Dataset:
    """Upload a data set on a host of its own."""
    with hosts.on("api"), tempfile.TemporaryFile() as file:
        file.write(npz(**arrays))
        with uploads.checked([uploads.File("mine.npz", file.fileno())], hosts.settings) as checked:
            return datasets.keep(hosts.database, hosts.store, name, None, checked)[0]


def train(hosts: Hosts, name: str) -> dict[str, Any]:
    bell.configure(hosts.settings)
    training = TINY["training"] | {"epochs": 1, "batch_size": 6}
    with hosts.database.write() as tx:
        body = datasets.pinned(tx, TINY | {"dataset": name, "training": training, "alignment": {"samples": 4}})
        job_id = jobs.submit(tx, specs.resolve(specs.parse(body), threads=1)).id
    return hosts.ended(job_id)


def test_a_data_set_comes_to_the_worker_that_needs_it(hosts):
    row = send(hosts, "mine")
    hosts.start_worker_on("one")
    job = train(hosts, "mine")
    assert job["status"] == "succeeded", job
    copy = hosts.log.parent / "one" / "datasets" / "uploads" / f"{row.sha256}.safetensors"
    assert copy.stat().st_size == row.bytes
    assert not list((hosts.log.parent / "api" / "datasets" / "uploads").iterdir())
    with hosts.database.write() as tx:
        datasets.delete(tx, hosts.store, hosts.settings, "mine")
    assert not hosts.store.has(datasets.location_of(row.sha256), row.bytes)
    for damage, told in ((hosts.store.remove, "send the data set again"), (overwritten(hosts), "is damaged")):
        other = send(hosts, "other")
        damage(datasets.location_of(other.sha256))
        copy.unlink(missing_ok=True)
        job = train(hosts, "other")
        assert (job["status"], job["error"]["code"]) == ("failed", "dataset_unavailable"), job
        assert told in job["error"]["message"]
        with hosts.database.write() as tx:
            datasets.delete(tx, hosts.store, hosts.settings, "other")


def overwritten(hosts: Hosts) -> Any:
    def overwrite(location: str) -> None:
        file = hosts.log.parent / "bad"
        file.write_bytes(os.urandom(hosts.store.size(location)))
        hosts.store.put(file, location)

    return overwrite


def test_a_copy_goes_when_its_data_set_has_been_deleted(hosts):
    row = send(hosts, "mine")
    copy = datasets.copy_of(hosts.settings, row.sha256)
    datasets.fetch(hosts.store, hosts.settings, specs.parse(TINY | {"dataset": datasets.known(row)}).dataset)
    for expected in (True, False):
        with hosts.database.read() as tx:
            datasets.sweep(tx, [copy])
        assert copy.exists() is expected
        if expected:
            with hosts.database.write() as tx:
                tx.execute(tables.Dataset.__table__.delete())


def test_a_server_that_hangs_costs_neither_the_lease_nor_the_process(request, tmp_path, broker, undisturbed):
    with S3Server(tmp_path / "s3.log") as server, serving_hosts(request, tmp_path, broker, server) as hosts:
        hosts.start_worker_on("one")
        job_id = hosts.submit()
        hosts.checkpointed(job_id)
        server.process.send_signal(signal.SIGSTOP)
        before = leased_until(hosts, job_id)
        eventually(lambda: leased_until(hosts, job_id) > before + timedelta(seconds=hosts.settings.lease_seconds + 1))
        server.process.send_signal(signal.SIGCONT)
        assert hosts.succeeded(job_id, undisturbed)["attempt"] == 1


def leased_until(hosts: Hosts, job_id: str) -> Any:
    with hosts.database.read() as tx:
        return tx.get_one(tables.Job, job_id).lease_expires_at


def test_a_server_that_dies_in_the_middle_is_waited_for(request, tmp_path, broker, undisturbed):
    """Nothing of it is left when it is back: the job says so of its checkpoints and starts anew."""
    with S3Server(tmp_path / "s3.log") as server, serving_hosts(request, tmp_path, broker, server) as hosts:
        hosts.start_worker_on("one")
        job_id = hosts.submit()
        hosts.checkpointed(job_id)
        server.kill()
        job = eventually_deferred(hosts, job_id)
        assert "waits to be tried again" in job["status_reason"]
        assert "Could not connect" in job["status_reason"]
        server.start()
        server.make(hosts.settings.artifact_url.split("/")[2])
        try_now(hosts, job_id)
        hosts.succeeded(job_id, undisturbed)
        with hosts.database.read() as tx:
            assert tx.get_one(tables.Job, job_id).failures == 0
            log = reads.events(tx, job_id, limit=10_000)["data"]
        assert {attempt.outcome for attempt in hosts.attempts(job_id)} == {"storage_unavailable", "finish"}
        assert any("is not used" in event["message"] for event in log)
