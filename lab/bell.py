"""The bell: a Celery message says "there may be work in this queue" and nothing else. The database is the truth.

A bell that is lost, doubled or late is harmless: whoever hears one claims a job by a guarded UPDATE, and the reconciler
rings again for jobs that nobody claimed.
"""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu.exceptions
from celery import Celery
from redis.exceptions import RedisError
from sqlalchemy import event
from sqlalchemy.orm import Session

from lab.db import Tx
from lab.settings import Settings

log = logging.getLogger(__name__)

TASK = "work"
PING_SECONDS = 2.0
QUICK = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0, "max_retries": 0, "interval_start": 0}
OPTIONS = {
    "visibility_timeout": 3600,
    "socket_keepalive": True,
    "health_check_interval": 25,
    "global_keyprefix": "creditlab:",
}
AWAY = (kombu.exceptions.OperationalError, RedisError, OSError)

app = Celery("creditlab")
app.conf.update(
    task_ignore_result=True,
    result_backend=None,
    task_acks_late=False,  # a running job has no unacknowledged message that could be delivered again
    task_serializer="json",
    accept_content=["json"],
    task_default_queue="default",
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)


def configure(settings: Settings) -> None:
    """Tell the bell which broker to use; once per process, before anything else here."""
    url = settings.broker_url or ""
    app.conf.broker_url = settings.broker_url
    app.conf.broker_transport_options = folders(url) if url.startswith("filesystem://") else OPTIONS
    _pulse.forget()
    _cord.forget()


def folders(url: str) -> dict[str, str]:
    """Messages as files, where there is no server: slower, but the database is the truth here too."""
    places = {name: Path(urlsplit(url).path) / name for name in ("messages", "read", "control")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    paths = {name: str(place) for name, place in places.items()}
    return {
        "data_folder_in": paths["messages"],
        "data_folder_out": paths["messages"],
        "processed_folder": paths["read"],
        "control_folder": paths["control"],
    }


def ring_after_commit(tx: Session, queue: str) -> None:
    """Ring for ``queue`` when the transaction has committed, once per call; a rollback forgets it."""
    tx.info.setdefault("bells", []).append(queue)


@event.listens_for(Tx, "after_commit")
def _ring(tx: Session) -> None:
    if queues := tx.info.pop("bells", ()):
        ring(queues)


@event.listens_for(Tx, "after_rollback")
def _forget(tx: Session) -> None:
    tx.info.pop("bells", None)


def ring(queues: Sequence[str]) -> None:
    """Send one message each, without retries. A failure is logged: the queued rows are there, somebody rings again."""
    try:
        _cord.pull(queues)
    except AWAY as error:
        log.warning("a bell was not heard: %s", error)


class Cord:
    """The connection that bells are rung through, one ring at a time; making one takes longer than many rings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._producer: Any = None

    def forget(self) -> None:
        """Close the connection, if there is one; the next ring makes another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(*AWAY):
                producer.connection.close()

    def pull(self, queues: Sequence[str]) -> None:
        """Raises what ``AWAY`` names. A connection that was kept may have been lost meanwhile: then a new one rings."""
        with self._lock:
            kept = self._producer is not None
            try:
                self._send(queues)
            except AWAY:
                self.forget()
                if not kept:
                    raise
                self._send(queues)

    def _send(self, queues: Sequence[str]) -> None:
        if self._producer is None:
            self._producer = app.amqp.Producer(quick_connection(), auto_declare=False)
        for queue in queues:
            app.send_task(TASK, kwargs={"queue": queue}, queue=queue, producer=self._producer, retry=False)


_cord = Cord()


def alive() -> bool:
    """Whether the broker answered a ping at most two seconds ago; pings where that is not known."""
    return _pulse.beats()


def quick_connection() -> Any:
    """A connection that gives up after a second instead of waiting for the broker to come back.

    Raises:
        kombu.exceptions.OperationalError: no broker is configured.
    """
    if not app.conf.broker_url:
        raise kombu.exceptions.OperationalError("no broker is configured")
    return app.connection_for_write(connect_timeout=1, transport_options=QUICK)


class Pulse:
    """The last ping and its answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._answer = False

    def forget(self) -> None:
        self._at = float("-inf")

    def beats(self) -> bool:
        with self._lock:
            if time.monotonic() - self._at > PING_SECONDS:
                self._answer = ping()
                self._at = time.monotonic()
            return self._answer


_pulse = Pulse()


def ping() -> bool:
    try:
        with quick_connection() as connection:
            connection.ensure_connection(max_retries=0)
    except AWAY:
        return False
    return True
