"""What the API answers about the service itself: workers, the queue, webhooks."""

from datetime import datetime
from typing import Any, Literal

from api.schemas import Answer


class Slot(Answer):
    device: str
    job_id: str | None
    """The job that is trained in it, the first of several; null also where it is another project's."""
    job_ids: list[str]
    """All jobs that are trained in it as one computation; empty also where they are another project's."""
    busy: bool


class Gpu(Answer):
    """A GPU of a worker's machine; null is what its driver does not tell."""

    index: int
    uuid: str | None
    name: str | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    utilization: float | None
    """Share of the last sample period in which a kernel ran, from 0 to 1."""
    temperature_celsius: int | None
    power_watts: float | None
    energy_joules: float | None
    """Since the driver was loaded."""


class Worker(Answer):
    id: str
    object: Literal["worker"]
    host: str
    version: str
    alive: bool
    """Its heart has beaten lately."""
    draining: bool
    """It takes no more jobs."""
    started_at: datetime
    last_heartbeat_at: datetime
    slots: list[Slot]
    gpus: list[Gpu]
    """As they were at its last heartbeat; none where it uses none or is not alive."""


class WorkerList(Answer):
    object: Literal["list"]
    data: list[Worker]
    has_more: bool
    next: str | None


class QueuedJob(Answer):
    object: Literal["queued_job"]
    job_id: str
    position: int
    """1 is the next one."""
    reason: Literal["no_free_slot", "no_worker", "needs_cuda", "project_quota", "retry_backoff"] | None
    """Why it waits; null where a slot is free for it, so that it starts at any moment."""
    priority: int
    queued_at: datetime
    estimated_start_at: datetime | None
    """By how long what runs and what is before it will take; an estimate that moves."""
    estimate_missing: Literal["no_worker", "needs_cuda", "project_quota", "too_far_back"] | None
    """Why there is no estimate: nobody could train it, its project may run none, or 200 wait before it."""


class QueuePage(Answer):
    """Jobs in the order in which they will be trained."""

    object: Literal["list"]
    data: list[QueuedJob]
    has_more: bool
    next: str | None


class Webhook(Answer):
    """Whom to tell of what happens to jobs."""

    id: str
    object: Literal["webhook"]
    url: str
    types: list[str]
    description: str | None
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime
    links: dict[str, str]


class WebhookWithSecret(Webhook):
    secret: str
    """Checks the signatures (Standard Webhooks); it is not shown again."""


class WebhookList(Answer):
    object: Literal["list"]
    data: list[Webhook]
    has_more: bool
    next: str | None


class Try(Answer):
    """One try to deliver a message; of the receiver's answer its status alone is kept."""

    number: int
    at: datetime
    duration_ms: float | None
    """Null while it lasts, and where its sender was killed."""
    answer_status: int | None
    error: str | None


class Delivery(Answer):
    """A message to a webhook, and how its last try went."""

    id: str
    """The header ``webhook-id``, the same in every try."""
    object: Literal["delivery"]
    webhook_id: str
    type: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    answer_status: int | None
    error: str | None
    created_at: datetime
    attempted_at: datetime | None
    delivered_at: datetime | None
    next_attempt_at: datetime | None
    tries: list[Try]
    """The oldest first; of one message the last 20 are kept."""
    payload: dict[str, Any]


class DeliveryPage(Answer):
    """Messages, newest first."""

    object: Literal["list"]
    data: list[Delivery]
    has_more: bool
    next: str | None
