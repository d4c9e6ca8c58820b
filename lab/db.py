"""One database, SQLite or PostgreSQL; what differs between the two ends in this file."""

import hashlib
import select as sockets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Self, cast

import sqlalchemy.exc
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic_core import from_json
from sqlalchemy import Connection, Engine, Row, Select, create_engine, event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from lab.columns import Moment
from lab.errors import DatabaseUnavailable

BUSY_MS = 10_000
STATEMENT_MS = 30_000
CLOCK = select(func.clock_timestamp())
MIGRATION_LOCK = 0x637265646974  # any number of our own
AWAY = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError)


class Confining(Protocol):
    """Somebody who sees the rows of one project."""

    @property
    def project_id(self) -> str: ...

    def own(self, statement: Select[Any]) -> Select[Any]:
        """A statement confined to rows of the project that is bound to it as ``own``."""


class Tx(Session):
    """One transaction: of a request, or of a batch of events."""

    def rows(self, statement: Select[Any], **values: Any) -> Sequence[Row[Any]]:
        """As ``Database.rows``, in this transaction; what it has not flushed is not seen."""
        return ask(self.connection(), self.info.get("caller"), statement, values)


class Database:
    """The engine, and transactions on it.

    Args:
        url: ``sqlite:///path`` or ``postgresql://…``.
        pool_size: connections kept open.
    """

    caller: Confining | None = None
    """On whose behalf its transactions are; see ``lab.projects``, which confines them to the caller's project."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
        self.engine: Engine
        self.reading: Engine
        self.asking: Engine
        if parsed.get_backend_name() == "postgresql":
            self.engine = postgresql(parsed.set(drivername="postgresql+psycopg"), pool_size)
            self.reading = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self.asking = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        elif parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}:
            self.reading = self.asking = self.engine = sqlite(parsed, pool_size)
        else:
            raise ValueError(
                f"{parsed.get_backend_name()} is not a database this service knows: sqlite:///file or postgresql://"
            )

    def seen_by(self, caller: Confining) -> Self:
        """The same database, on behalf of ``caller``."""
        view = copy(self)
        view.caller = caller
        return view

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that only reads, from one snapshot.

        Raises:
            DatabaseUnavailable: the database cannot be reached or is too busy.
        """
        with self._transaction(self.reading) as tx:
            yield tx

    def rows(self, statement: Select[Any], **values: Any) -> Sequence[Row[Any]]:
        """All rows of one statement, which is a snapshot of its own: without a session, and no transaction around it.

        On behalf of a caller the statement has to be about a table with projects, and finds rows of the caller's. What
        is asked often is best made once, with a ``bindparam`` for each of the ``values``.

        Raises:
            DatabaseUnavailable: the database cannot be reached or is too busy.
        """
        try:
            with self.asking.connect() as connection:
                return ask(connection, self.caller, statement, values)
        except AWAY as error:
            raise DatabaseUnavailable from error

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that writes: committed at the end of the block, rolled back by any exception.

        Raises:
            DatabaseUnavailable: the database cannot be reached or is too busy; nothing was written.
        """
        with self._transaction(self.engine.execution_options(writes=True)) as tx:
            yield tx

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Tx]:
        try:
            with Tx(engine, expire_on_commit=False, info={"caller": self.caller}) as tx, tx.begin():
                yield tx
        except AWAY as error:
            raise DatabaseUnavailable from error

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def migrate(self) -> None:
        """Bring the tables to this version. Everything happens in one transaction, and one process at a time does it.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        try:
            with migrating(self.engine) as connection:
                config = alembic_config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except AWAY as error:
            raise DatabaseUnavailable from error

    def is_current(self) -> bool:
        """Whether the tables are those of this version."""
        head = ScriptDirectory.from_config(alembic_config()).get_current_head()
        with self.read() as tx:
            return MigrationContext.configure(tx.connection()).get_current_revision() == head


def ask(
    connection: Connection, caller: Confining | None, statement: Select[Any], values: dict[str, Any]
) -> Sequence[Row[Any]]:
    """The rows that the caller sees."""
    if caller:
        statement, values = caller.own(statement), values | {"own": caller.project_id}
    return connection.execute(statement, values).all()


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", "lab:migrations")
    return config


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """The transaction of a migration; it holds the only lock that another migration would need."""
    with engine.execution_options(writes=True, migrates=True).connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        yield connection


def now(tx: Session) -> datetime:
    """The time of the database. A SQLite file has no clock but the one of its host, where all its processes run.

    A transaction asks once; what has passed since then it knows by its own clock.
    """
    if tx.get_bind().dialect.name != "postgresql":
        return datetime.now(UTC)
    if "clock" not in tx.info:
        tx.info["clock"] = cast("datetime", tx.connection().scalar(CLOCK)).astimezone(UTC), time.monotonic()
    moment, seen = tx.info["clock"]
    return cast("datetime", moment) + timedelta(seconds=time.monotonic() - seen)


class Clock(FunctionElement[datetime]):
    """``now`` as a column: the time beside what else a query asks for."""

    type = Moment()
    inherit_cache = True


@compiles(Clock, "postgresql")
def _clock_of_the_server(_element: Clock, _compiler: Any, **_: Any) -> str:
    return "clock_timestamp()"


@compiles(Clock, "sqlite")
def _clock_of_the_host(_element: Clock, _compiler: Any, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"


def take(tx: Session, name: str) -> None:
    """Let no other transaction take ``name`` until this one ends. (On SQLite writers wait in turn anyway.)"""
    if tx.get_bind().dialect.name == "postgresql":
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        tx.execute(select(func.pg_advisory_xact_lock(number)))


def rfc3339(moment: datetime | None) -> str | None:
    """A time as the API writes it: UTC with a Z, to the microsecond."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def sqlite(url: Any, pool_size: int) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=10,
        pool_timeout=BUSY_MS / 1000,
        hide_parameters=True,
        json_deserializer=from_json,
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver starts no transactions of its own
        for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("migrates"):  # a table that is rebuilt must not take the rows that point to it along
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        # A reader that turns writer would get SQLITE_BUSY at once; a writer from the start waits for its turn.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")

    @event.listens_for(engine, "checkin")
    def checkin(connection: Any, _record: Any) -> None:
        if connection is not None:
            connection.execute("PRAGMA foreign_keys=ON")

    return engine


def postgresql(url: Any, pool_size: int) -> Engine:
    limits = {"statement_timeout": STATEMENT_MS, "idle_in_transaction_session_timeout": STATEMENT_MS, "timezone": "UTC"}
    options = " ".join(f"-c {name}={value}" for name, value in limits.items())
    connect = {"connect_timeout": 5, "tcp_user_timeout": STATEMENT_MS, "client_encoding": "utf8", "options": options}
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=10,
        pool_timeout=BUSY_MS / 1000,
        hide_parameters=True,  # of errors: a traceback in the log would have what users sent
        json_deserializer=from_json,
        connect_args=connect,
    )

    @event.listens_for(engine, "checkout")
    def checkout(connection: Any, _record: Any, _proxy: Any) -> None:
        """A kept connection has nothing to say, but that its server has closed it; that is seen without a question."""
        poll = sockets.poll()
        poll.register(connection.pgconn.socket, sockets.POLLIN)
        if poll.poll(0):
            raise sqlalchemy.exc.DisconnectionError

    return engine


def ping(database: Database) -> None:
    """Ask the database for anything at all.

    Raises:
        DatabaseUnavailable: it does not answer.
    """
    with database.read() as tx:
        tx.execute(text("SELECT 1"))
