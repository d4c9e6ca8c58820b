"""Messages reach real receivers, signed; what fails, hangs, redirects or leads elsewhere harms nobody."""

import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select, update

from lab import addresses, tables, webhooks
from lab.db import Database, now
from lab.settings import Settings
from tests.service import Service, eventually
from worker import courier
from worker.courier import Courier

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Receiver:
    url: str
    answer: Answer
    got: list[tuple[dict[str, str], str]] = field(default_factory=list)


def status(number: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(number)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An HTTP server on loopback that keeps what it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            made.got.append((dict(self.headers), body))
            made.answer(self)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            """A sender may hang up."""

    server = Quiet(("127.0.0.1", 0), Handler)
    made = Receiver(f"http://127.0.0.1:{server.server_port}/hook?a=b", status(204))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def open_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allow": "127.0.0.0/8"})


@pytest.fixture
def sender(database: Database, open_settings: Settings) -> Courier:
    return Courier(database, open_settings)


def add_hook(database: Database, settings: Settings, url: str) -> tuple[str, str]:
    """A webhook with a message that waits; its id and its secret."""
    with database.write() as tx:
        hook, secret = webhooks.create(tx, webhooks.Wishes(url=url), service_secret=settings.secret_key)
        webhooks.test(tx, hook.id)
        return hook.id, secret


def send(sender: Courier) -> int:
    """Send what is due and wait until it is; how many messages that were."""
    with sender.database.write() as tx:
        tx.execute(update(tables.Delivery).where(tables.Delivery.status == "pending").values(next_at=now(tx)))
    threads = sender.tick()
    for thread in threads:
        thread.join()
    return len(threads)


def row(database: Database) -> tables.Delivery:
    with database.read() as tx:
        return tx.scalars(select(tables.Delivery)).one()


def test_received_and_signed(database: Database, sender: Courier, receiver: Receiver) -> None:
    hook_id, secret = add_hook(database, sender.settings, receiver.url)
    assert send(sender) == 1
    ((headers, body),) = receiver.got
    assert headers["Host"] == receiver.url.split("/")[2]
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-id"] == row(database).id
    assert standardwebhooks.Webhook(secret).verify(body, headers) == json.loads(row(database).body)
    assert (row(database).status, row(database).answer_status, row(database).error) == ("delivered", 204, None)
    assert send(sender) == 0
    with database.write() as tx:
        _, new_secret = webhooks.rotate(tx, hook_id, service_secret=sender.settings.secret_key)
        webhooks.test(tx, hook_id)
    send(sender)
    headers, body = receiver.got[-1]
    for either in (secret, new_secret):
        standardwebhooks.Webhook(either).verify(body, headers)


@pytest.mark.parametrize("number", [400, 404, 500, 503])
def test_a_receiver_that_fails_is_tried_again(
    database: Database, sender: Courier, receiver: Receiver, number: int
) -> None:
    add_hook(database, sender.settings, receiver.url)
    receiver.answer = status(number)
    send(sender)
    assert (row(database).status, row(database).answer_status) == ("pending", number)
    receiver.answer = status(200)
    send(sender)
    assert (row(database).status, row(database).attempts) == ("delivered", 2)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_no_redirect_is_followed(database: Database, sender: Courier, receiver: Receiver) -> None:
    add_hook(database, sender.settings, receiver.url)
    receiver.answer = status(307, Location=receiver.url)
    send(sender)
    assert len(receiver.got) == 1
    assert (row(database).status, row(database).answer_status) == ("pending", 307)


def test_410_ends_it(database: Database, sender: Courier, receiver: Receiver) -> None:
    hook_id, _ = add_hook(database, sender.settings, receiver.url)
    receiver.answer = status(410)
    send(sender)
    with database.read() as tx:
        assert webhooks.get(tx, hook_id).disabled_reason == "its receiver answered 410"
    assert (row(database).status, row(database).error) == ("failed", "the receiver answered 410")


def test_a_receiver_that_hangs_or_drips_is_left(
    database: Database, sender: Courier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LIMIT_SECONDS", 0.5)
    add_hook(database, sender.settings, receiver.url)
    over = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not over.wait(0.05):
            request.wfile.write(b"x")
            request.wfile.flush()

    for answer in (lambda request: over.wait(20) and None, drip):
        receiver.answer = answer
        assert send(sender) == 1
        assert row(database).status == "pending"
        assert "ReadTimeout" in str(row(database).error)
    over.set()


def test_a_slow_receiver_delays_no_other(database: Database, sender: Courier, receiver: Receiver) -> None:
    over = threading.Event()
    receiver.answer = lambda request: over.wait(20) and status(200)(request)
    slow, _ = add_hook(database, sender.settings, receiver.url)
    (thread,) = sender.tick()
    eventually(lambda: len(receiver.got) == 1)
    with database.write() as tx:
        webhooks.test(tx, slow)
    assert sender.tick() == [], "one message of a webhook at a time"
    other = f"http://localhost:{receiver.url.split(':')[2]}"
    add_hook(database, sender.settings, other)
    (second,) = sender.tick()
    eventually(lambda: len(receiver.got) == 2)
    over.set()
    thread.join()
    second.join()


def test_an_endless_answer_is_not_read_to_its_end(database: Database, sender: Courier, receiver: Receiver) -> None:
    add_hook(database, sender.settings, receiver.url)
    hung_up = threading.Event()

    def pour(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b"x" * 65536)
        except OSError:
            hung_up.set()

    receiver.answer = pour
    send(sender)
    assert hung_up.wait(20)
    assert row(database).status == "delivered"


def test_a_name_that_leads_elsewhere_the_second_time(
    database: Database, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when the webhook is made, loopback when it is called. No socket is opened."""
    answers = [[ipaddress.ip_address("8.8.8.8")], [ipaddress.ip_address("127.0.0.1")]]
    monkeypatch.setattr(addresses, "lookup", lambda host, port: answers.pop(0))
    url = f"https://rebound.example:{receiver.url.split(':')[2].split('/')[0]}/"
    wishes = webhooks.parse({"url": url}, settings.webhook_networks, new=True)
    add_hook(database, settings, str(wishes.url))
    opened: list[Any] = []
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **_: opened.append(arguments))
    assert send(Courier(database, settings)) == 1
    assert not opened
    assert not answers
    assert "not a public address" in str(row(database).error)


def test_the_environments_proxy_is_not_used(
    database: Database, sender: Courier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    add_hook(database, sender.settings, receiver.url)
    send(sender)
    assert row(database).status == "delivered"


def test_tls_asks_for_the_name_and_checks_the_certificate(database: Database, sender: Courier, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    names: list[str | None] = []
    context.sni_callback = lambda connection, name, _: names.append(name)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=accept)
        thread.start()
        add_hook(database, sender.settings, f"https://localhost:{server.getsockname()[1]}/")
        send(sender)
        thread.join()
    assert names == ["localhost"]
    assert "CERTIFICATE_VERIFY_FAILED" in str(row(database).error)


def certificate(folder: Path) -> Path:
    """A certificate that its owner has signed, for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(today)
    signed = made.not_valid_after(today + dt.timedelta(days=1)).sign(key, hashes.SHA256())
    path = folder / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_another_secret_key_is_said_and_nothing_is_sent(
    database: Database, open_settings: Settings, receiver: Receiver
) -> None:
    add_hook(database, open_settings, receiver.url)
    other = open_settings.model_copy(update={"given_secret_key": "another secret of a service"})
    send(Courier(database, other))
    assert receiver.got == []
    assert "CREDITLAB_SECRET_KEY" in str(row(database).error)


# ---- in a worker -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_killed_while_sending_sends_nothing_twice_under_two_ids(
    own_service: Service, receiver: Receiver
) -> None:
    service = own_service
    service.settings = service.settings.model_copy(update={"webhook_allow": "127.0.0.0/8"})
    database, over = service.database, threading.Event()
    receiver.answer = lambda request: over.wait(60) and status(200)(request)
    worker = service.start_worker()
    with database.write() as tx:
        webhooks.create(
            tx,
            webhooks.Wishes(url=receiver.url, types=["job.succeeded"]),
            service_secret=service.settings.secret_key,
        )
    job_id = service.submit()
    eventually(lambda: len(receiver.got) == 1)  # it has been sent, and nobody has recorded it
    worker.kill()
    worker.wait()
    over.set()
    assert row(database).status == "pending"
    assert service.job(job_id)["status"] == "succeeded"
    service.start_worker()
    with database.write() as tx:
        tx.execute(update(tables.Delivery).values(next_at=now(tx)))
    eventually(lambda: row(database).status == "delivered")
    assert len(receiver.got) == 2
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {row(database).id}
    assert json.loads(receiver.got[0][1])["data"]["job_id"] == job_id
