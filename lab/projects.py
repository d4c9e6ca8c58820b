"""Projects: whom a transaction is for, what it sees, and how much a project may have.

``Caller.of(database)`` is the database as a caller sees it: in its transactions every SELECT, UPDATE and DELETE of a
table with ``tables.OfProject`` is confined to the caller's project, whoever wrote the query, and inserted rows are the
project's. A worker and the reconciler have no caller and see everything.
"""

import functools
import re
from dataclasses import dataclass
from typing import Any, Self, cast

from sqlalchemy import ColumnElement, Row, Select, bindparam, event, func, select, true
from sqlalchemy.orm import ORMExecuteState, Session, aliased, object_session, with_loader_criteria
from sqlalchemy.orm.util import LoaderCriteriaOption

from lab import tables
from lab.db import Confining, Database, Tx, now
from lab.errors import QuotaExceeded
from lab.settings import Settings
from lab.states import HELD, State

DEFAULT = "default"
AMPLE = 500
"""Where a project has room for so many jobs more, those that are being submitted at this moment need not be waited for:
there are never so many at once."""
QUEUED = select(func.count(tables.Job.id)).where(tables.Job.status == State.QUEUED)
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True)
class Quotas:
    """How much a project may have; None: as much as it likes."""

    queued_jobs: int
    running_jobs: int | None
    stored_bytes: int | None
    requests_per_minute: int

    @classmethod
    def of(cls, project: tables.Project | Row[Any], settings: Settings) -> Self:
        """The project's own where it has them, else those of the settings."""
        given = {name: getattr(project, name) for name in cls.__dataclass_fields__}
        defaults = {name: getattr(settings, f"quota_{name}") for name in given}
        return cls(**{name: defaults[name] if own is None else own for name, own in given.items()})


@dataclass(frozen=True)
class Caller:
    """On whose behalf a transaction is."""

    project_id: str
    key_id: str | None
    scope: str
    quotas: Quotas

    def of(self, database: Database) -> Database:
        """The database as this caller sees it."""
        return database.seen_by(self)

    def own(self, statement: Select[Any]) -> Select[Any]:
        """A statement that finds rows of the project alone, for where no session confines it."""
        return owned(statement)


@functools.lru_cache(maxsize=64)
def owned(statement: Select[Any]) -> Select[Any]:
    """The statement, with the condition that what it selects is of the project that is bound as ``own``.

    One object for a statement that is asked again: SQLAlchemy then knows it without looking through it.
    """
    (table,) = statement.columns_clause_froms
    return statement.where(table.c.project_id == bindparam("own"))


@functools.lru_cache(maxsize=1024)
def owned_rows(project_id: str) -> LoaderCriteriaOption:
    """The same, as an option of every statement of a session."""
    return with_loader_criteria(tables.OfProject, lambda cls: cls.project_id == project_id, include_aliases=True)


@event.listens_for(Tx, "do_orm_execute")
def _confine(state: ORMExecuteState) -> None:
    caller = caller_of(state.session)
    if caller is not None and not state.is_column_load:
        state.statement = state.statement.options(owned_rows(caller.project_id))


@event.listens_for(tables.OfProject, "before_insert", propagate=True)
def _own(_mapper: object, _connection: object, row: tables.OfProject) -> None:
    if not row.project_id:
        row.project_id = project_of(cast("Session", object_session(row)))


def caller_of(tx: Session) -> Caller | None:
    """On whose behalf the transaction is; None for the service itself."""
    return cast("Caller | None", tx.info.get("caller"))


def project_of(tx: Session) -> str:
    """The project in which the transaction makes things."""
    return name_of(caller_of(tx))


def name_of(caller: Confining | None) -> str:
    """The project of whoever asks."""
    return caller.project_id if caller else DEFAULT


def get(tx: Session, name: str = DEFAULT) -> tables.Project | None:
    return tx.get(tables.Project, name)


def ensure(tx: Session, name: str) -> tables.Project:
    """The project of that name, made if there is none.

    Raises:
        ValueError: a project cannot have that name.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name[:100]!r} is not a project's name: at most 63 of a-z, 0-9, _ and -, no _ or - first")
    project = get(tx, name)
    if project is None:
        project = tables.Project(id=name, created_at=now(tx))
        tx.add(project)
        tx.flush()
    return project


# ---- quotas ----------------------------------------------------------------------------------------------------------


def admit_jobs(tx: Tx, count: int) -> int | None:
    """Make sure that the caller's project may queue so many jobs more; how many are left then, None without a caller.

    Raises:
        QuotaExceeded: it has too many queued, or stores too much.
    """
    caller = caller_of(tx)
    if caller is None:
        return None
    most = caller.quotas.queued_jobs
    left = most - queued_jobs(tx) - count
    if left < AMPLE:
        _lock(tx, tables.Project.id == caller.project_id)
        left = most - queued_jobs(tx) - count
    if left < 0:
        detail = f"{count} more would make {most - left} queued jobs; the project may have {most}"
        raise QuotaExceeded("queued-jobs", detail)
    admit_bytes(tx, 1)
    return left


def queued_jobs(tx: Tx) -> int:
    ((queued,),) = tx.rows(QUEUED)
    return cast("int", queued)


def admit_bytes(tx: Session, more: int) -> None:
    """Make sure that the caller's project may store so many bytes more. Raises QuotaExceeded."""
    caller = caller_of(tx)
    most = caller.quotas.stored_bytes if caller else None
    if most is not None and (stored := stored_bytes(tx)) + more > most:
        detail = f"the project stores {stored} bytes and may store {most}; delete jobs that have ended, or data sets"
        raise QuotaExceeded("stored-bytes", detail)


def stored_bytes(tx: Session) -> int:
    """How much the caller's project has stored."""
    artifacts = select(func.sum(tables.Artifact.size)).join(tables.Job, tables.Job.id == tables.Artifact.job_id)
    artifacts = artifacts.where(tables.Artifact.expired_at.is_(None))
    datasets = select(func.sum(tables.Dataset.bytes))
    return int(tx.scalar(artifacts) or 0) + int(tx.scalar(datasets) or 0)


def has_room(default: int | None) -> ColumnElement[bool]:
    """Whether the project of a job may have one more running; ``default`` is for projects without a limit."""
    other = aliased(tables.Job)
    running = (
        select(func.count()).select_from(other).where(other.project_id == tables.Job.project_id, other.status.in_(HELD))
    )
    limit = select(func.coalesce(tables.Project.running_jobs, default)).where(
        tables.Project.id == tables.Job.project_id
    )
    unlimited = limit.scalar_subquery().is_(None)
    return unlimited | (running.scalar_subquery() < limit.scalar_subquery())


def hold_limits(tx: Session, default: int | None) -> None:
    """Let no other claim count the running jobs of a limited project until this transaction ends."""
    _lock(tx, tables.Project.running_jobs.is_not(None) if default is None else true())


def _lock(tx: Session, which: ColumnElement[bool]) -> None:
    """Lock projects, in a fixed order and so that rows may still be put into them."""
    locked = select(tables.Project.id).where(which).order_by(tables.Project.id).with_for_update(key_share=True)
    tx.connection().execute(locked)
