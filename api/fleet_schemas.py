"""What the API answers about the service itself: workers, the queue, webhooks."""

from datetime import datetime
from typing import Any, Literal

from api.schemas import Answer


class Slot(Answer):
    device: str
    job_id: str | None
    """The job that is trained in it; null also where it is another project's."""
    busy: bool


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
    payload: dict[str, Any]


class DeliveryPage(Answer):
    """Messages, newest first."""

    object: Literal["list"]
    data: list[Delivery]
    has_more: bool
    next: str | None
