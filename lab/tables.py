"""The tables. Impossible rows are refused by the database itself; every time is database time in UTC."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from lab.columns import Base, of_job, one_of
from lab.states import HELD, TERMINAL, State

metadata = Base.metadata
QUEUES = ("default", "cuda")
SCOPES = ("read", "write", "admin")
"""What a key may do; each one holds those before it."""
DELIVERY = ("pending", "delivered", "failed")
SOME = text("together IS NOT NULL")
"""Jobs that may train together are some of many."""


class Project(Base):
    """What keys, jobs and all that they leave belong to. A quota that is null is the one of the settings."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    """Its name."""
    queued_jobs: Mapped[int | None]
    running_jobs: Mapped[int | None]
    stored_bytes: Mapped[int | None]
    requests_per_minute: Mapped[int | None]
    created_at: Mapped[datetime]


class OfProject:
    """Mixin of rows that belong to one project: a caller's transaction sees those of its own; see ``lab.projects``."""

    project_id: Mapped[str] = mapped_column(String(63), ForeignKey("projects.id"))


class Key(OfProject, Base):
    """An API key: its hash, never the key."""

    __tablename__ = "keys"
    __table_args__ = (
        CheckConstraint(one_of("scope", SCOPES), name="scope"),
        Index("ix_keys_project_id_id", "project_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str]
    scope: Mapped[str] = mapped_column(String(8))
    """The widest of its scopes."""
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    last4: Mapped[str] = mapped_column(String(4))
    version: Mapped[int] = mapped_column(default=1)
    """Counts changes by its owners; being used is none."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """To the minute."""


class IdempotencyRecord(OfProject, Base):
    """The answer to a command that came with an Idempotency-Key; see ``lab.idempotency``."""

    __tablename__ = "idempotency_records"

    project_id: Mapped[str] = mapped_column(String(63), ForeignKey("projects.id"), primary_key=True)
    method: Mapped[str] = mapped_column(String(8), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Job(OfProject, Base):
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
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_project_id_status_id", "project_id", "status", "id"),
        Index("ix_jobs_status_id", "status", "id"),
        Index("ix_jobs_project_id_method_id", "project_id", "method", "id"),
        Index("ix_jobs_project_id_model_id", "project_id", "model", "id"),
        Index("ix_jobs_project_id_dataset_id", "project_id", "dataset", "id"),
        Index("ix_jobs_together", "together", "status", "id", sqlite_where=SOME, postgresql_where=SOME),
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
    together: Mapped[str | None] = mapped_column(String(64))
    """What it has in common with jobs that it may train with as one computation; null: it trains alone."""
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
    ran_seconds: Mapped[float] = mapped_column(default=0.0)
    """How long its attempts have run; ``max_runtime_seconds`` limits the sum."""
    lease_expires_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    rung_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(String(55))
    """The trace of its submission (W3C); its attempts are parts of it."""


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
    together_with: Mapped[str | None] = mapped_column(String(32))
    """The first of the jobs whose attempts are one computation, in one slot; null: it trains alone."""
    started_at: Mapped[datetime]
    trained_from: Mapped[datetime | None]
    """When the run said that it is about to take its first step."""
    first_step: Mapped[int] = mapped_column(default=0)
    """Steps that were done by then: those of the checkpoint it went on from."""
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    environment: Mapped[dict[str, Any] | None]
    batches: Mapped[int] = mapped_column(default=0)
    """Of its events that are stored: one whose commit was not acknowledged is not stored twice."""
    refused_writes: Mapped[int] = mapped_column(default=0)
    """Writes that came after the job had been given to another attempt."""


class Checkpoint(Base):
    """The state of a run after a step, in the artifact store."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = of_job(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    location: Mapped[str]
    """Path below the artifact store."""
    size: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


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
    key_id: Mapped[str | None] = mapped_column(String(32))
    """The key that gave the command; null for what the service does by itself."""


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
    outline: Mapped[bytes | None]
    """Points that keep the shape of a full chunk; null while it is not full, or where a value is undefined."""


class Artifact(Base):
    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_expired_at_created_at", "expired_at", "created_at"),)

    job_id: Mapped[str] = of_job(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    attempt: Mapped[int]
    size: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(128))
    location: Mapped[str]
    """Path below the artifact store."""
    created_at: Mapped[datetime]
    expired_at: Mapped[datetime | None]
    """When its file was removed since its time was over."""


class Dataset(OfProject, Base):
    """A data set that a user has sent; its file is known by its hash."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project_id", "name"), UniqueConstraint("project_id", "sha256"))

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    description: Mapped[str | None]
    sha256: Mapped[str] = mapped_column(String(64), index=True)
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
    gpus: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """What its GPUs were doing at the last heartbeat; see ``worker.gpus``."""
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime] = mapped_column(index=True)


class Lease(Base):
    """A duty that one process at a time has."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    until: Mapped[datetime]


class Counter(Base):
    """How often something has happened since the database was made; see ``lab.counters``."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[int]


class Webhook(OfProject, Base):
    """Whom to tell of what happens to jobs."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    url: Mapped[str]
    types: Mapped[list[str]]
    description: Mapped[str | None]
    secret: Mapped[str]
    """Sealed; see ``lab.signatures``."""
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[datetime | None]
    enabled: Mapped[bool]
    disabled_reason: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Delivery(Base):
    """A message to a webhook, written in the transaction of the event that it tells of."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(one_of("status", DELIVERY), name="status"),
        CheckConstraint("(status = 'pending') = (next_at IS NOT NULL)", name="due"),
        Index("ix_deliveries_webhook_id_id", "webhook_id", "id"),
        Index("ix_deliveries_status_next_at", "status", "next_at"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(String(32), ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(32))
    body: Mapped[str]
    status: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    """Raised by every claim; a sender that carries an older number may not write any more."""
    failures: Mapped[int]
    next_at: Mapped[datetime | None]
    attempted_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    answer_status: Mapped[int | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime]


class Try(Base):
    """One try to deliver a message: written when it begins, and how it went when that is known."""

    __tablename__ = "delivery_tries"

    delivery_id: Mapped[str] = mapped_column(
        String(32), ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    duration_ms: Mapped[float | None]
    """Null while it lasts, and where its sender was killed."""
    answer_status: Mapped[int | None]
    error: Mapped[str | None]
