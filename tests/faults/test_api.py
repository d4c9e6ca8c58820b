"""The API is killed at the worst moment: what it has stored is there, once, whoever asks again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_connection

import httpx
from sqlalchemy import func, select

from creditlab.broker import free_port
from lab import tables
from tests.factories import TINY
from tests.service import eventually

KEYS = [f"key-{number}" for number in range(20)]


@contextmanager
def serving_http(service, port: int) -> Iterator[subprocess.Popen]:
    """``creditlab api`` in a process of its own."""
    command = [sys.executable, "-m", "creditlab.cli", "api", "--host", "127.0.0.1", "--port", str(port)]
    with (service.settings.data_dir / "api.log").open("ab") as log:
        process = subprocess.Popen(command, env=os.environ | service.settings.environment(), stdout=log, stderr=log)
    try:
        eventually(lambda: answers(port))
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except httpx.TransportError:
        return False


def stored(service) -> int:
    with service.database.read() as tx:
        return tx.scalar(select(func.count()).select_from(tables.Job))


def test_jobs_that_were_stored_and_not_answered_are_answered_when_asked_again(service):
    port, body = free_port(), httpx.Request("POST", "http://a", json=TINY).content
    with serving_http(service, port) as process:
        sockets = []
        for key in KEYS:
            head = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: {key}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            sockets.append(create_connection(("127.0.0.1", port)))
            sockets[-1].sendall(head.encode() + body)
        eventually(lambda: stored(service))
        process.kill()
        process.wait()
        for socket in sockets:  # whatever it was going to say, nobody has read it
            socket.close()
    known = stored(service)
    with serving_http(service, port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        said = [client.post("/v1/jobs", json=TINY, headers={"Idempotency-Key": key}) for key in KEYS]
        assert {answer.status_code for answer in said} == {202}
        assert len({answer.json()["id"] for answer in said}) == stored(service) == len(KEYS)
        assert sum("idempotent-replayed" in answer.headers for answer in said) == known > 0
        assert {client.get(answer.headers["location"]).json()["status"] for answer in said} == {"queued"}
