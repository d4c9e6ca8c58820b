"""The tables. Impossible rows are refused by the database itself; every time is database time in UTC."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lab.states import HELD, TERMINAL, State

QUEUES = ("default", "cuda")


class Moment(TypeDecorator[datetime]):
    """A time in UTC, to the microsecond, on databases with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: Moment,
        dict[str, Any]: JSON(none_as_null=True),
        int: BigInteger().with_variant(Integer, "sqlite"),
        bytes: LargeBinary,
        str: Text,
    }


def of_job(**options: Any) -> Mapped[str]:
    return mapped_column(String(32), ForeignKey("jobs.id", ondelete="CASCADE"), **options)


def one_of(column: str, values: Any) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in sorted(values))})"


class Job(Base):
    """A job and all that its current state needs."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("status", State), name="status"),
        CheckConstraint(one_of("queue", QUEUES), name="queue"),
        CheckConstraint(f"({one_of('status', TERMINAL)}) = (finished_at IS NOT NULL)", name="finished"),
        CheckConstraint(f"({one_of('status', HELD)}) = (lease_expires_at IS NOT NULL)", name="leased"),
        CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_why"),
        CheckConstraint("status <> 'succeeded' OR results IS NOT NULL", name="succeeded_with_results"),
        Index("ix_jobs_claim", "status", "priority", "id"),
        Index("ix_jobs_status_id", "status", "id"),
        Index("ix_jobs_method_id", "method", "id"),
        Index("ix_jobs_model_id", "model", "id"),
        Index("ix_jobs_dataset_id", "dataset", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str | None]
    status: Mapped[str] = mapped_column(String(16))
    status_reason: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    spec_sha256: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(64))
    dataset: Mapped[str] = mapped_column(String(64))
    queue: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int]
    progress: Mapped[dict[str, Any]]
    results: Mapped[dict[str, Any] | None]
    """What the run itself has measured so far; twins are looked up when it is read."""
    error: Mapped[dict[str, Any] | None]
    version: Mapped[int] = mapped_column(default=1)
    """Counts every write that the job's JSON shows."""
    status_changes: Mapped[int] = mapped_column(default=1)
    last_seq: Mapped[int] = mapped_column(default=1)
    """Of its events; the next one is taken under the lock of this row, so the log has no gaps."""
    fence: Mapped[int] = mapped_column(default=0)
    """Raised by every claim; writes that carry an older one are refused."""
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that were lost; preempted ones are not counted."""
    lease_expires_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    rung_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Label(Base):
    __tablename__ = "labels"
    __table_args__ = (Index("ix_labels_key_value_job_id", "key", "value", "job_id"),)

    job_id: Mapped[str] = of_job(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))


class Twin(Base):
    """A control of a job: the same spec under another method, a job of its own."""

    __tablename__ = "twins"

    job_id: Mapped[str] = of_job(primary_key=True)
    method: Mapped[str] = mapped_column(String(64), primary_key=True)
    twin_id: Mapped[str] = of_job(index=True)


class Attempt(Base):
    __tablename__ = "attempts"

    job_id: Mapped[str] = of_job(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(String(32))
    started_at: Mapped[datetime]
    trained_from: Mapped[datetime | None]
    """When the run said that it is about to take its first step."""
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    environment: Mapped[dict[str, Any] | None]


class Event(Base):
    """The numbered log of a job: 1, 2, 3 … without gaps."""

    __tablename__ = "events"
    __table_args__ = (CheckConstraint("level IN ('info', 'warning', 'error')", name="level"),)

    job_id: Mapped[str] = of_job(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(32))
    level: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime]
    attempt: Mapped[int]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]


class Series(Base):
    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("job_id", "name", "layer"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = of_job()
    name: Mapped[str] = mapped_column(String(128))
    layer: Mapped[str] = mapped_column(String(128))
    """Empty for series of the whole net."""
    total_points: Mapped[int] = mapped_column(default=0)


class Chunk(Base):
    """A stretch of a series, packed; see ``lab.series``."""

    __tablename__ = "points"

    series_id: Mapped[int] = mapped_column(ForeignKey("series.id", ondelete="CASCADE"), primary_key=True)
    chunk: Mapped[int] = mapped_column(primary_key=True)
    points: Mapped[int]
    first_step: Mapped[int]
    last_step: Mapped[int]
    steps: Mapped[bytes]
    epochs: Mapped[bytes]
    values: Mapped[bytes]


class Artifact(Base):
    __tablename__ = "artifacts"

    job_id: Mapped[str] = of_job(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    attempt: Mapped[int]
    size: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(128))
    location: Mapped[str]
    """Path below the artifact store."""
    created_at: Mapped[datetime]


class Dataset(Base):
    """A data set that a user has sent; its file is known by its hash."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str | None]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    format: Mapped[str] = mapped_column(String(32))
    channels: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    classes: Mapped[int]
    class_names: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    train_images: Mapped[int]
    test_images: Mapped[int]
    bytes: Mapped[int]
    created_at: Mapped[datetime]


class Worker(Base):
    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str] = mapped_column(String(32))
    slots: Mapped[int]
    cuda: Mapped[bool]
    draining: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime] = mapped_column(index=True)


class Lease(Base):
    """A duty that one process at a time has."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    until: Mapped[datetime]
