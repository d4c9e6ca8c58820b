"""One exercise for both kinds of stores, a folder and a bucket of a real server; and what only one of them has."""

import os
import threading
from pathlib import Path

import pytest

from lab.errors import StoreUnavailable
from lab.files import PART_BYTES, Folder, Store, location_of, open_store
from lab.settings import Settings
from tests.s3 import S3Server

ESCAPES = ["", ".", "..", "../other", "job/../../other", "/etc/passwd", "job//file", "job/.hidden", "job/", "job\\file"]
MEANT_OTHERWISE = [
    "job/*",
    "job/[ab]",
    "job/a?versionId=1",
    "job/a#b",
    "job/a\0",
    "job/a\n",
    "job/~",
    "job/ä",
    "s3://a/b",
]


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    given = {} if request.param == "folder" else request.getfixturevalue("s3_server").settings()
    return open_store(Settings(data_dir=tmp_path / "data", **given))


def put(store: Store, folder: Path, location: str, content: bytes = b"content") -> None:
    file = folder / "file"
    file.write_bytes(content)
    store.put(file, location)
    assert not file.exists()


def test_exercise(store: Store, tmp_path: Path) -> None:
    location = location_of("job_1", 1, "model.safetensors")
    with pytest.raises(FileNotFoundError):
        store.size(location)
    with pytest.raises(FileNotFoundError):
        store.read(location, 0, 1)
    with pytest.raises(FileNotFoundError):
        store.fetch(location, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    store.remove(location)
    put(store, tmp_path, location, b"0123456789")
    assert (store.size(location), store.has(location, 10), store.has(location, 9)) == (10, True, False)
    assert [store.read(location, 0, 10), store.read(location, 3, 5)] == [b"0123456789", b"34"]
    store.fetch(location, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"0123456789"
    put(store, tmp_path, location, b"another")
    assert store.read(location, 0, 7) == b"another"
    for folder in ("job_1", "job_1/attempt-1"):
        with pytest.raises(FileNotFoundError):
            store.size(folder)
    store.remove(location)
    assert not store.has(location, 7)
    store.probe()


def test_a_file_that_goes_up_in_parts_arrives_whole(store: Store, tmp_path: Path) -> None:
    content = os.urandom(2 * PART_BYTES + 12_345)
    put(store, tmp_path, "job_1/attempt-1/large", content)
    assert store.size("job_1/attempt-1/large") == len(content)
    assert (
        store.read("job_1/attempt-1/large", PART_BYTES - 3, PART_BYTES + 3) == content[PART_BYTES - 3 : PART_BYTES + 3]
    )
    store.fetch("job_1/attempt-1/large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_what_no_row_names_is_pruned_and_nothing_else(store: Store, tmp_path: Path) -> None:
    names = [(1, "a"), (2, "kept"), (2, "b"), (10, "c"), (11, "later")]
    for fence, name in names:
        put(store, tmp_path, location_of("job_1", fence, name))
    put(store, tmp_path, location_of("job_12", 1, "of-another"))
    store.prune("job_1", 10, {location_of("job_1", 2, "kept")})
    left = [(fence, name) for fence, name in names if store.has(location_of("job_1", fence, name), 7)]
    assert left == [(2, "kept"), (11, "later")]
    store.forget("job_1")
    assert not any(store.has(location_of("job_1", fence, name), 7) for fence, name in names)
    assert store.has(location_of("job_12", 1, "of-another"), 7)
    store.prune("job_1", 99, set())
    store.forget("job_1")


def test_no_location_leads_out_or_means_more_than_one_file(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "job/file")
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    for location in (*ESCAPES, *MEANT_OTHERWISE):
        for use in (store.size, store.remove, store.forget, lambda at: store.read(at, 0, 1)):
            with pytest.raises(ValueError, match="is no location"):
                use(location)
        with pytest.raises(ValueError, match="is no location"):
            store.put(file, location)
        with pytest.raises(ValueError, match="is no location"):
            store.fetch(location, tmp_path / "copy")
    assert file.read_bytes() == b"mine"
    assert store.has("job/file", 7)


def test_many_threads_share_one(store: Store, tmp_path: Path) -> None:
    def work(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        put(store, folder, f"job_{number}/attempt-1/file", b"%d" % number)
        assert store.read(f"job_{number}/attempt-1/file", 0, 1) == b"%d" % number

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(store.has(f"job_{number}/attempt-1/file", 1) for number in range(8))


def test_a_folder_has_links_and_no_copies(tmp_path: Path) -> None:
    store = Folder(tmp_path / "store")
    put(store, tmp_path, "job_1/attempt-1/file")
    store.fetch("job_1/attempt-1/file", tmp_path / "copy")
    assert (tmp_path / "copy").samefile(store.path("job_1/attempt-1/file"))
    store.prune("job_1", 1, set())
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert not store.path("job_1/attempt-1").exists()


def test_a_server_that_is_away_or_refuses_is_told_from_a_file_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with S3Server(tmp_path / "s3.log") as server:
        given = server.settings()
        store = open_store(Settings(**given))
        put(store, tmp_path, "job/other")
        nowhere = open_store(Settings(**given | {"artifact_url": "s3://no-such-bucket"}))
        file.write_bytes(b"content")
        with pytest.raises(StoreUnavailable) as refused:
            nowhere.put(file, "job/file")
        assert "bucket does not exist" in refused.value.reason
        server.kill()
        for use in (
            lambda: store.put(file, "job/file"),
            lambda: store.size("job/other"),
            lambda: store.read("job/other", 0, 1),
            lambda: store.fetch("job/other", tmp_path / "copy"),
            lambda: store.prune("job", 1, set()),
        ):
            with pytest.raises(StoreUnavailable) as away:
                use()
            assert "Could not connect" in away.value.reason
            assert given["s3_secret_access_key"] not in str(away.value.reason)
    assert file.exists()
