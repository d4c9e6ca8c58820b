"""Sends messages to webhooks, from a few threads of the worker that wait for their receivers."""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from ssl import SSLContext
from typing import Any

import httpcore

from lab import addresses, deliveries, signatures
from lab.db import Database
from lab.deliveries import Errand
from lab.errors import DatabaseUnavailable
from lab.settings import Settings
from lab.ticker import Ticker

TICK_SECONDS = 1.0
MOST_AT_ONCE = 4
LIMIT_SECONDS = 15.0
MAX_ANSWER_BYTES = 64 * 1024
TIDY_SECONDS = 3600.0
SUCCESS = range(200, 300)

log = logging.getLogger(__name__)


class Courier(Ticker):
    """One candidate for every message that is due; of several, one takes it.

    Args:
        database: where the messages are.
        settings: of the service.
    """

    duty = "courier"

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(TICK_SECONDS)
        self.database = database
        self.settings = settings
        self.tidy_at = 0.0
        self._errands: dict[str, threading.Thread] = {}

    def tick(self) -> list[threading.Thread]:
        """Start what is due, one message of a webhook at a time: a slow receiver delays nobody but itself.

        What is under way when the process ends may be sent again by another one, under the same id.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        self._errands = {hook: thread for hook, thread in self._errands.items() if thread.is_alive()}
        if time.monotonic() >= self.tidy_at:
            with self.database.write() as tx:
                deliveries.forget(tx)
            self.tidy_at = time.monotonic() + TIDY_SECONDS
        with self.database.read() as tx:
            due = deliveries.due(tx, self._errands, MOST_AT_ONCE - len(self._errands))
        if not due:
            return []
        with self.database.write() as tx:
            errands = deliveries.claim(tx, due)
        started = [threading.Thread(target=self._deliver, args=(errand,), daemon=True) for errand in errands]
        for errand, thread in zip(errands, started, strict=True):
            self._errands[errand.webhook_id] = thread
            thread.start()
        return started

    def _deliver(self, errand: Errand) -> None:
        began = time.monotonic()
        status, error = self._try(errand)
        seconds = time.monotonic() - began
        try:
            with self.database.write() as tx:
                deliveries.settle(tx, errand, status, error, seconds)
        except DatabaseUnavailable:
            log.warning("the database is away; message %s will be sent again", errand.id)
        else:
            log.info("message %s, try %d: %s", errand.id, errand.number, error or "delivered")

    def _try(self, errand: Errand) -> tuple[int | None, str | None]:
        """The status of the answer, and what went wrong."""
        try:
            headers = signed(errand, self.settings.secret_key)
            status = post(errand.url, headers, errand.body, self.settings.webhook_networks)
        except (addresses.Refused, ValueError) as error:
            return None, str(error)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            return None, f"{type(error).__name__}: {error}"[:500]
        return status, None if status in SUCCESS else f"the receiver answered {status}"


def signed(errand: Errand, service_secret: str) -> list[tuple[str, str]]:
    """The headers of a message. Raises ValueError where its secret cannot be read."""
    moment = int(time.time())
    secrets = [signatures.unseal(service_secret, sealed) for sealed in errand.secrets]
    return [
        ("Content-Type", "application/json"),
        ("User-Agent", "CreditLab"),
        ("webhook-id", errand.id),
        ("webhook-timestamp", str(moment)),
        ("webhook-signature", " ".join(signatures.sign(one, errand.id, moment, errand.body) for one in secrets)),
    ]


def post(url: str, headers: list[tuple[str, str]], body: bytes, allowed: Sequence[addresses.Network]) -> int:
    """Send a body and return the status of the answer: no redirects, no proxy, no address that was not checked.

    Raises:
        addresses.Refused: the URL leads where the service does not connect to.
        httpcore.NetworkError: and its kin: it could not be sent, or was not answered in time.
    """
    host = addresses.split(url).netloc
    guard = Guarded(url, allowed, time.monotonic() + LIMIT_SECONDS)
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), LIMIT_SECONDS)
    with (
        httpcore.ConnectionPool(network_backend=guard) as pool,
        pool.stream(
            "POST", url, headers=[("Host", host), *headers], content=body, extensions={"timeout": timeouts}
        ) as answer,
    ):
        received = 0
        for chunk in answer.iter_stream():
            received += len(chunk)
            if received > MAX_ANSWER_BYTES:
                break
        return answer.status


class Guarded(httpcore.NetworkBackend):
    """Connects to addresses that were checked a moment before, and to nothing else."""

    def __init__(self, url: str, allowed: Sequence[addresses.Network], deadline: float) -> None:
        self.url, self.allowed, self.deadline = url, allowed, deadline
        self.network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002  (of the URL, which is looked up here, once)
        port: int,
        timeout: float | None = None,  # noqa: ARG002  (the deadline stands for it)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception | None = None
        for address in addresses.checked(self.url, self.allowed):
            try:
                left = remaining(self.deadline)
                stream = self.network.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return Hurried(stream, self.deadline)
        assert failure is not None
        raise failure


class Hurried(httpcore.NetworkStream):
    """A connection with one deadline for everything: a receiver that drips its answer gains nothing."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self.stream, self.deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self.stream.read(max_bytes, remaining(self.deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self.stream.write(buffer, remaining(self.deadline))

    def close(self) -> None:
        self.stream.close()

    def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        secured = self.stream.start_tls(ssl_context, server_hostname, remaining(self.deadline))
        return Hurried(secured, self.deadline)

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


def remaining(deadline: float) -> float:
    """Seconds until the deadline. Raises httpcore.ReadTimeout where it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout(f"no answer within {LIMIT_SECONDS:g} s")
    return left
