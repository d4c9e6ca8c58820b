"""Artifacts and data sets that lie in a bucket of a real server, over HTTP; and how long they are kept."""

import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from lab import attempts, tables
from lab.datasets import location_of
from lab.db import now
from lab.reconciler import Reconciler
from lab.settings import Settings
from tests import factories
from tests.api.conftest import Service, assert_problem, serving
from tests.credit.upload_files import npz, one
from tests.s3 import S3Server

FILE = os.urandom(3_000_000)


@pytest.fixture
def bucket(alone: Settings, s3_server: S3Server) -> Iterator[Service]:
    with serving(Settings(**alone.model_dump(exclude_none=True) | s3_server.settings())) as running:
        yield running


def finished(service: Service, folder: Path, **files: bytes) -> str:
    """A job that has succeeded and left files in the store."""
    job_id = service.submit()
    attempt = service.claim(job_id)
    left = []
    for name, content in files.items():
        location = f"{job_id}/attempt-{attempt.fence}/{name}"
        file = folder / "file"
        file.write_bytes(content)
        service.app.state.store.put(file, location)
        digest = hashlib.sha256(content).hexdigest()
        left.append(attempts.Artifact(name, len(content), digest, "application/octet-stream", location))
    with service.database.write() as tx:
        attempts.record(tx, attempt, [factories.started()])
        attempts.finish(tx, attempt, factories.results(), left)
    return job_id


def test_downloads_and_ranges(bucket: Service, tmp_path: Path) -> None:
    job_id = finished(bucket, tmp_path, **{"model.bin": FILE, "empty.bin": b""})
    path = f"/v1/jobs/{job_id}/artifacts/model.bin"
    get = bucket.client.get
    whole = get(path)
    assert (whole.status_code, whole.content == FILE, whole.headers["content-length"]) == (200, True, str(len(FILE)))
    tag = whole.headers["etag"]
    assert tag == f'"{hashlib.sha256(FILE).hexdigest()}"'
    assert whole.headers["accept-ranges"] == "bytes"
    for wanted, first, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=1048570-2097160", 1048570, 2097161),
        ("bytes=2999990-", 2999990, len(FILE)),
        ("bytes=-7", len(FILE) - 7, len(FILE)),
        ("bytes=-9999999", 0, len(FILE)),
        ("bytes=5-9999999", 5, len(FILE)),
    ):
        part = get(path, headers={"Range": wanted, "If-Range": tag})
        assert part.status_code == 206
        assert part.content == FILE[first:stop]
        assert part.headers["content-range"] == f"bytes {first}-{stop - 1}/{len(FILE)}"
        assert part.headers["content-length"] == str(stop - first)
    beyond = get(path, headers={"Range": f"bytes={len(FILE)}-"})
    assert_problem(beyond, 416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(FILE)}"
    assert get(path, headers={"Range": "bytes=2-3", "If-Range": '"other"'}).status_code == 200
    head = bucket.client.head(path, headers={"Range": "bytes=2-3"})
    assert (head.status_code, head.content, head.headers["content-length"]) == (206, b"", "2")
    assert bucket.client.head(path).headers["content-length"] == str(len(FILE))
    assert get(path, headers={"If-None-Match": tag}).status_code == 304
    assert get(path.replace("model", "empty")).content == b""


def test_a_file_that_is_gone_a_store_that_is_away_and_a_job_that_is_deleted(alone: Settings, tmp_path: Path) -> None:
    with S3Server(tmp_path / "s3.log") as server:
        given = Settings(**alone.model_dump(exclude_none=True) | server.settings())
        with serving(given) as service:
            job_id = finished(service, tmp_path, **{"a.bin": b"abc", "b.bin": b"abc"})
            other = finished(service, tmp_path, **{"a.bin": b"abc"})
            with service.database.read() as tx:
                locations = list(tx.scalars(select(tables.Artifact.location).order_by(tables.Artifact.location)))
            store = service.app.state.store
            store.remove(locations[1])
            assert_problem(service.client.get(f"/v1/jobs/{job_id}/artifacts/b.bin"), 404, "not_found")
            assert service.client.delete(f"/v1/jobs/{job_id}").status_code == 204
            assert not store.has(locations[0], 3)
            server.kill()
            for answer in (
                service.client.get(f"/v1/jobs/{other}/artifacts/a.bin"),
                service.client.delete(f"/v1/jobs/{other}"),
                service.client.post("/v1/datasets", files=one(npz()), data={"name": "mine"}),
            ):
                document = assert_problem(answer, 503, "storage_unavailable")
                assert int(answer.headers["retry-after"]) > 0
                assert str(server.port) not in str(document)
            assert service.client.get(f"/v1/jobs/{other}").status_code == 200, "nothing was deleted"
            assert service.client.get("/v1/datasets/mine").status_code == 404
            assert service.client.get("/readyz").status_code == 200


def test_a_data_set_is_kept_once_and_removed_with_its_last_row(bucket: Service) -> None:
    raw, store = npz(), bucket.app.state.store
    row = bucket.client.post("/v1/datasets", files=one(raw), data={"name": "mine"}).json()
    location = location_of(row["sha256"])
    assert store.has(location, row["bytes"])
    again = bucket.client.post("/v1/datasets", files=one(raw), data={"name": "again"})
    assert (again.status_code, again.json()["id"]) == (200, row["id"])
    other = bucket.client.post("/v1/datasets", files=one(npz(y_train=row_of(12))), data={"name": "mine"})
    assert_problem(other, 409, "name_taken")
    assert len(store.files.find(f"{store.root}/datasets")) == 1, "what was refused has left nothing"
    assert bucket.client.delete("/v1/datasets/mine").status_code == 204
    assert not store.has(location, row["bytes"])


def row_of(count: int) -> list[int]:
    return [2 - k % 3 for k in range(count)]


# ---- how long they are kept ------------------------------------------------------------------------------------------


def test_files_expire_and_what_was_measured_stays(alone: Settings, tmp_path: Path) -> None:
    with serving(alone.model_copy(update={"artifact_days": 7.0, "quota_stored_bytes": 10**9})) as service:
        old, new = (finished(service, tmp_path, **{"a.bin": b"abc"}) for _ in range(2))
        with service.database.write() as tx:
            past = now(tx) - timedelta(days=7, seconds=1)
            tx.execute(update(tables.Artifact).where(tables.Artifact.job_id == old).values(created_at=past))
        store = service.app.state.store

        def listed(job_id: str) -> dict[str, object]:
            answer: dict[str, object] = service.client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"][0]
            return answer

        with service.database.read() as tx:
            locations = {row.job_id: row.location for row in tx.scalars(select(tables.Artifact))}
        assert (listed(old)["expired"], listed(new)["expired"]) == (True, False)
        gone = assert_problem(service.client.get(f"/v1/jobs/{old}/artifacts/a.bin"), 410, "artifact_expired")
        assert str(listed(old)["expires_at"]) in gone["detail"], "before any file is removed"
        Reconciler(service.database, service.settings, store)._remove_aged()
        assert [store.has(locations[job_id], 3) for job_id in (old, new)] == [False, True]
        assert_problem(service.client.get(f"/v1/jobs/{old}/artifacts/a.bin"), 410, "artifact_expired")
        assert service.client.get(f"/v1/jobs/{new}/artifacts/a.bin").content == b"abc"
        assert listed(old)["expired"] is True
        assert service.client.get(f"/v1/jobs/{old}/results").json()["status"] == "succeeded"
