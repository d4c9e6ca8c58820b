"""A bad network in front of the real service: connections that are cut, and answers of something in between."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

LOST = 0
"""The service gets the request and does what it says; its answer is lost."""


def answer(status: int, *headers: str) -> bytes:
    """An answer that is no service's."""
    lines = (f"HTTP/1.1 {status} Of the network", *headers, "Content-Length: 0", "Connection: close", "", "")
    return "\r\n".join(lines).encode()


class Network:
    """Passes connections on. The plan says for each in turn after how many bytes of answers it is cut, or is an answer
    that comes in the service's place; connections beyond the plan are left alone.
    """

    def __init__(self, url: str, plan: Iterable[int | bytes]) -> None:
        self.target = urlsplit(url).hostname, urlsplit(url).port
        self.plan = iter(plan)
        self.connections = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.server.accept()
                self.connections += 1
                threading.Thread(target=self.connect, args=(client, next(self.plan, None)), daemon=True).start()

    def connect(self, client: socket.socket, fate: int | bytes | None) -> None:
        with client, suppress(OSError):
            if isinstance(fate, bytes):
                client.recv(65536)
                client.sendall(fate)
                return
            with socket.create_connection(self.target) as service:
                threading.Thread(target=pump, args=(client, service, None), daemon=True).start()
                pump(service, client, fate)


def pump(source: socket.socket, target: socket.socket, most: int | None) -> None:
    """Pass bytes on until they end, or so many; then the connection is at its end for both."""
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk if most is None else chunk[:most])
            if most is not None and (most := most - len(chunk)) <= 0:
                break
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def flaky(url: str, *plan: int | bytes) -> Iterator[Network]:
    network = Network(url, plan)
    try:
        yield network
    finally:
        network.server.shutdown(socket.SHUT_RDWR)
        network.server.close()
