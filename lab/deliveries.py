"""Messages to webhooks: written once, sent until they are received or given up, and kept as a log."""

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from lab import cursors, tables
from lab.db import now, rfc3339
from lab.errors import DeliveryNotFound, LabError
from lab.ids import new_id

AGAIN_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000)
"""Until the next try, by how many have failed; after the last one the message is given up."""
JITTER = 0.2
CLAIM_SECONDS = 60
"""A sender that has not said how it went for so long is gone: the message is sent again, under the same id."""
KEPT = timedelta(days=30)
TRIES_KEPT = 20
"""Of one message: more only where it is sent again on request."""
GONE = 410


@dataclass(frozen=True)
class Errand:
    """One try to deliver a message, as its sender knows it."""

    id: str
    number: int
    webhook_id: str
    url: str
    secrets: list[str]
    """Sealed; more than one while the secret rotates."""
    body: bytes


def add(tx: Session, hook: tables.Webhook, type_: str, moment: datetime, data: dict[str, Any]) -> tables.Delivery:
    """Write a message, to be sent at once."""
    body = json.dumps({"type": type_, "timestamp": rfc3339(moment), "data": data})
    row = tables.Delivery(id=new_id("msg"), webhook_id=hook.id, type=type_, body=body, created_at=moment)
    row.status, row.next_at, row.attempts, row.failures = "pending", moment, 0, 0
    tx.add(row)
    tx.flush()
    return row


# ---- the user's side -------------------------------------------------------------------------------------------------


def log_of(tx: Session, webhook_id: str, limit: int, after: str | None, *, secret: str) -> dict[str, Any]:
    """A page of a webhook's messages, newest first. Raises BadCursor, CursorMismatch."""
    filters = {"webhook": webhook_id}
    wanted = select(tables.Delivery).where(tables.Delivery.webhook_id == webhook_id)
    if after is not None:
        wanted = wanted.where(tables.Delivery.id < cursors.read(secret, after, filters))
    rows = list(tx.scalars(wanted.order_by(tables.Delivery.id.desc()).limit(limit + 1)))
    page, has_more = rows[:limit], len(rows) > limit
    cursor = cursors.make(secret, page[-1].id, filters) if has_more else None
    return {"object": "list", "data": views(tx, page), "has_more": has_more, "next": cursor}


def again(tx: Session, hook: tables.Webhook, delivery_id: str) -> tables.Delivery:
    """Send a message once more, under the id that it had. Raises DeliveryNotFound, LabError."""
    refuse_disabled(hook)
    row = tx.get(tables.Delivery, delivery_id, with_for_update=True)
    if row is None or row.webhook_id != hook.id:
        raise DeliveryNotFound(hook.id, delivery_id)
    row.status, row.next_at, row.failures = "pending", now(tx), 0
    row.attempts += 1  # a try that is under way does not count any more
    return row


def refuse_disabled(hook: tables.Webhook) -> None:
    if not hook.enabled:
        detail = f"it was disabled: {hook.disabled_reason}; enable it first"
        raise LabError(409, "webhook_disabled", "The webhook is disabled", detail)


def views(tx: Session, rows: Sequence[tables.Delivery]) -> list[dict[str, Any]]:
    """Messages with their tries, the oldest try first; the tries of all of them are read at once."""
    tries: dict[str, list[dict[str, Any]]] = {row.id: [] for row in rows}
    known = select(tables.Try).where(tables.Try.delivery_id.in_(tries)).order_by(tables.Try.number)
    for one in tx.scalars(known):
        shown = {name: getattr(one, name) for name in ("number", "duration_ms", "answer_status", "error")}
        tries[one.delivery_id].append(shown | {"at": rfc3339(one.at)})
    return [view(row, tries[row.id]) for row in rows]


def view(row: tables.Delivery, tries: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("id", "webhook_id", "type", "status", "attempts", "answer_status", "error")
    times = ("created_at", "attempted_at", "delivered_at")
    return {
        "object": "delivery",
        **{name: getattr(row, name) for name in names},
        **{name: rfc3339(getattr(row, name)) for name in times},
        "next_attempt_at": rfc3339(row.next_at),
        "tries": tries,
        "payload": json.loads(row.body),
    }


# ---- the sender's side -----------------------------------------------------------------------------------------------


def due(tx: Session, busy: Collection[str], limit: int) -> list[str]:
    """The oldest message that is due of each webhook but the busy ones."""
    ready = (tables.Delivery.status == "pending", tables.Delivery.next_at <= now(tx))
    oldest = select(func.min(tables.Delivery.id)).where(*ready, tables.Delivery.webhook_id.not_in(list(busy)))
    return list(tx.scalars(oldest.group_by(tables.Delivery.webhook_id).limit(limit)))


def claim(tx: Session, ids: Collection[str]) -> list[Errand]:
    """Take these messages to send them, but for those that somebody else has taken."""
    moment = now(tx)
    ready = (tables.Delivery.id.in_(list(ids)), tables.Delivery.status == "pending", tables.Delivery.next_at <= moment)
    both = select(tables.Delivery, tables.Webhook).join(tables.Webhook, tables.Webhook.id == tables.Delivery.webhook_id)
    taken = both.where(*ready).with_for_update(skip_locked=True, of=tables.Delivery)
    errands = []
    for row, hook in tx.execute(taken):
        row.attempts += 1
        row.attempted_at, row.next_at = moment, moment + timedelta(seconds=CLAIM_SECONDS)
        rotating = hook.old_secret_until is not None and hook.old_secret_until > moment
        secrets = [hook.secret] + ([hook.old_secret] if rotating and hook.old_secret else [])
        errands.append(Errand(row.id, row.attempts, hook.id, hook.url, secrets, row.body.encode()))
        tx.add(tables.Try(delivery_id=row.id, number=row.attempts, at=moment))
        older = (tables.Try.delivery_id == row.id, tables.Try.number <= row.attempts - TRIES_KEPT)
        tx.execute(delete(tables.Try).where(*older))
    return errands


def settle(tx: Session, errand: Errand, status: int | None, error: str | None, seconds: float) -> bool:
    """Write how a try went and how long it took; False where the message is not this sender's any more."""
    this = (tables.Try.delivery_id == errand.id, tables.Try.number == errand.number)
    went = {"answer_status": status, "error": error, "duration_ms": round(1000 * seconds, 3)}
    tx.execute(update(tables.Try).where(*this).values(went))
    mine = (tables.Delivery.attempts == errand.number, tables.Delivery.status == "pending")
    row = tx.scalar(select(tables.Delivery).where(tables.Delivery.id == errand.id, *mine).with_for_update())
    if row is None:
        return False
    row.answer_status, row.error = status, error
    if error is None:
        row.status, row.delivered_at, row.next_at = "delivered", now(tx), None
        return True
    row.failures += 1
    if status == GONE:
        disable(tx, tx.get_one(tables.Webhook, row.webhook_id, with_for_update=True), "its receiver answered 410")
    elif row.failures > len(AGAIN_SECONDS):
        row.status, row.next_at = "failed", None
    else:
        delay = AGAIN_SECONDS[row.failures - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311  (spreads the load)
        row.next_at = now(tx) + timedelta(seconds=delay)
    return True


def disable(tx: Session, hook: tables.Webhook, reason: str) -> None:
    """Send a webhook nothing more, not even what waits for it."""
    hook.enabled, hook.disabled_reason = False, reason
    hook.version += 1
    tx.flush()
    waiting = update(tables.Delivery).where(tables.Delivery.webhook_id == hook.id, tables.Delivery.status == "pending")
    tx.execute(waiting.values(status="failed", next_at=None, error=func.coalesce(tables.Delivery.error, reason)))


def forget(tx: Session) -> None:
    """Delete what was settled long ago."""
    old = tables.Delivery.created_at < now(tx) - KEPT
    tx.execute(delete(tables.Delivery).where(tables.Delivery.status != "pending", old))
