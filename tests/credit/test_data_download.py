"""Downloads from a real server: complete, verified and in place, or an error and nothing left behind."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from credit.data import download
from credit.data.download import CHUNK, STALE_SECONDS, DownloadError, fetch, replacing
from credit.data.source import Remote

CONTENT = os.urandom(3 * CHUNK + 17)


class Server(ThreadingHTTPServer):
    """Answers every request with ``body``; counts them; waits at ``gate`` before the body where there is one."""

    daemon_threads = False
    status = 200
    body = CONTENT
    length: int | None = len(CONTENT)
    location: str | None = None
    requests = 0
    gate: threading.Barrier | None = None

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what some of these tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        if self.server.length is not None:
            self.send_header("Content-Length", str(self.server.length))
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        if self.server.gate:
            self.server.gate.wait(20)
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remote(server: Server, content: bytes = CONTENT) -> Remote:
    url = f"http://127.0.0.1:{server.server_port}/sets/images.gz"
    return Remote(url=url, size=len(content), checksum=hashlib.sha256(content).hexdigest())


def test_a_download_is_complete_under_its_own_name_and_tells_its_progress(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = fetch(remote(server), tmp_path / "new" / "folder", lambda done, size: told.append((done, size)))
    assert path == tmp_path / "new" / "folder" / "images.gz"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) >= 4


def test_a_server_that_announces_no_length_is_read_to_the_end(server: Server, tmp_path: Path) -> None:
    server.length = None
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_whose_size_nobody_publishes_is_verified_by_its_checksum(
    server: Server, tmp_path: Path, *, announced: bool
) -> None:
    server.length = len(CONTENT) if announced else None
    told: list[tuple[int, int]] = []
    official = replace(remote(server), size=None, checksum=hashlib.md5(CONTENT).hexdigest())
    fetch(official, tmp_path / "new", lambda done, size: told.append((done, size)))
    assert told[-1] == (len(CONTENT), len(CONTENT) if announced else 0)
    with pytest.raises(DownloadError, match=r"has the checksum \(md5\)"):
        fetch(replace(official, checksum="0" * 32), tmp_path)


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_of_unknown_size_ends_somewhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, announced: bool
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    server.length = len(CONTENT) if announced else None
    with pytest.raises(DownloadError, match="more than"):
        fetch(replace(remote(server), size=None), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"status": 404}, "404"),
        ({"status": 500}, "500"),
        ({"body": CONTENT[:-1] + b"?"}, "has the checksum (sha256)"),
        ({"body": CONTENT[:-5000]}, f"ended after {len(CONTENT) - 5000} of {len(CONTENT)} bytes"),
        ({"body": CONTENT[:-5000], "length": None}, f"ended after {len(CONTENT) - 5000} of {len(CONTENT)} bytes"),
        ({"body": CONTENT + b"more", "length": None}, f"sent more than {len(CONTENT)} bytes"),
        ({"length": 10**12}, f"has {10**12} bytes, not the official {len(CONTENT)}"),
        ({"status": 302, "location": "file:///etc/passwd"}, "302"),
    ],
)
def test_a_wrong_answer_is_named_and_leaves_nothing(
    server: Server, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(DownloadError) as failure:
        fetch(remote(server), tmp_path)
    assert remote(server).url in str(failure.value)
    assert problem in str(failure.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_leaves_the_file_that_was_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "images.gz").write_bytes(b"old")
    server.body = CONTENT[:100]
    with pytest.raises(DownloadError):
        fetch(remote(server), tmp_path)
    assert (tmp_path / "images.gz").read_bytes() == b"old"


def test_a_refused_connection_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/images.gz"
        with pytest.raises(DownloadError, match="refused"):
            fetch(Remote(url=address, size=1, checksum="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_given_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    server.gate = threading.Barrier(2)
    with pytest.raises(DownloadError, match="timed out"):
        fetch(remote(server), tmp_path)
    server.gate.abort()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def interrupt(_done: int, _size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(remote(server), tmp_path, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_downloads_of_the_same_file_at_once_do_not_meet(server: Server, tmp_path: Path) -> None:
    server.gate = threading.Barrier(3)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(remote(server), tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == server.requests == 3
    assert paths[0].read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [paths[0]]


def test_a_new_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "new") as part:
        part.write_bytes(b"")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_a_killed_process_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    stale, live = tmp_path / ".images.gz.1.part", tmp_path / ".images.gz.2.part"
    for part in (stale, live):
        part.touch()
    long_ago = stale.stat().st_mtime - STALE_SECONDS - 60
    os.utime(stale, (long_ago, long_ago))
    with replacing(tmp_path / "images.gz") as part:
        part.write_bytes(b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".images.gz.2.part", "images.gz"]
