"""Webhooks: who is told of what happens to jobs. The messages are written in the transaction of what they tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lab import addresses, deliveries, signatures, tables
from lab.db import now, rfc3339
from lab.errors import InvalidFields, LabError, VersionMismatch, WebhookNotFound
from lab.ids import new_id
from lab.progress import Note
from lab.states import State

OF_STATUS = {
    State.RUNNING: "job.started",
    State.PAUSED: "job.paused",
    State.SUCCEEDED: "job.succeeded",
    State.FAILED: "job.failed",
    State.CANCELLED: "job.cancelled",
}
TYPES = [*OF_STATUS.values(), "job.diagnosed"]
TEST = "webhook.test"
BY_USER = "disabled by its user"
MOST = 50
MAX_DESCRIPTION = 500
MAX_TEXT = 2000
"""Of one text of a message, which has to stay below 20 kB."""
OLD_SECRET_LASTS = timedelta(hours=24)


@dataclass(frozen=True)
class Wishes:
    """What a user wants of a webhook; None: nothing said."""

    url: str | None = None
    types: list[str] | None = None
    description: str | None = None
    enabled: bool | None = None


def parse(body: Any, allowed: Sequence[addresses.Network], *, new: bool) -> Wishes:
    """The wishes in a body, its URL looked up and found to be one that may be connected to.

    Raises:
        InvalidFields: with every field that is wrong.
    """
    if not isinstance(body, dict):
        raise InvalidFields([{"pointer": "#", "detail": "should be an object"}])
    known = {"url": url_fault, "types": types_fault, "description": description_fault, "enabled": enabled_fault}
    faults = [
        {"pointer": f"#/{pointer(name)}", "detail": f"is not a field of a webhook; there are {', '.join(known)}"}
        for name in body
        if name not in known
    ]
    for name, fault_of in known.items():
        if name in body and (fault := fault_of(body[name], allowed)):
            faults.append({"pointer": f"#/{name}", "detail": fault})
    if new and "url" not in body:
        faults.append({"pointer": "#/url", "detail": "is required"})
    if faults:
        raise InvalidFields(faults[:50])
    return Wishes(**body)


def pointer(name: str) -> str:
    return name[:100].replace("~", "~0").replace("/", "~1")


def url_fault(value: Any, allowed: Sequence[addresses.Network]) -> str | None:
    if not isinstance(value, str):
        return "should be a text"
    try:
        addresses.checked(value, allowed)
    except addresses.Refused as refusal:
        return str(refusal)
    return None


def types_fault(value: Any, _allowed: Any) -> str | None:
    right = isinstance(value, list) and value and all(isinstance(item, str) and item in TYPES for item in value)
    return None if right else f"should be a list of some of {', '.join(TYPES)}"


def description_fault(value: Any, _allowed: Any) -> str | None:
    right = isinstance(value, str) and len(value) <= MAX_DESCRIPTION
    return None if right else f"should be a text of at most {MAX_DESCRIPTION} characters"


def enabled_fault(value: Any, _allowed: Any) -> str | None:
    return None if isinstance(value, bool) else "should be true or false"


# ---- the user's side -------------------------------------------------------------------------------------------------


def create(tx: Session, wishes: Wishes, *, service_secret: str) -> tuple[tables.Webhook, str]:
    """A new webhook and its secret, which is not shown again."""
    if (tx.scalar(select(func.count()).select_from(tables.Webhook)) or 0) >= MOST:
        raise LabError(409, "too_many_webhooks", "There are enough webhooks", f"there are {MOST} already, the most")
    secret, moment = signatures.new_secret(), now(tx)
    hook = tables.Webhook(
        id=new_id("wh"),
        url=wishes.url or "",
        types=sorted(set(wishes.types or TYPES)),
        description=wishes.description,
        secret=signatures.seal(service_secret, secret),
        enabled=wishes.enabled is not False,
        disabled_reason=BY_USER if wishes.enabled is False else None,
        created_at=moment,
        updated_at=moment,
    )
    tx.add(hook)
    tx.flush()
    return hook, secret


def get(tx: Session, webhook_id: str, *, lock: bool = False) -> tables.Webhook:
    """Raises WebhookNotFound."""
    hook = tx.get(tables.Webhook, webhook_id, with_for_update=lock)
    if hook is None:
        raise WebhookNotFound(webhook_id)
    return hook


def list_all(tx: Session) -> dict[str, Any]:
    hooks = tx.scalars(select(tables.Webhook).order_by(tables.Webhook.id.desc()))
    return {"object": "list", "data": [view(hook) for hook in hooks], "has_more": False, "next": None}


def change(tx: Session, webhook_id: str, wishes: Wishes, is_current: Callable[[str], bool]) -> tables.Webhook:
    """Change what is wished, if the tag of the webhook is one that the client has seen.

    Raises:
        WebhookNotFound: there is none.
        VersionMismatch: somebody else has changed it.
    """
    hook = get(tx, webhook_id, lock=True)
    if not is_current(tag_of(hook)):
        raise VersionMismatch(tag_of(hook))
    if wishes.url is not None:
        hook.url = wishes.url
    if wishes.types is not None:
        hook.types = sorted(set(wishes.types))
    if wishes.description is not None:
        hook.description = wishes.description
    if wishes.enabled:
        hook.enabled, hook.disabled_reason = True, None
    elif wishes.enabled is False:
        deliveries.disable(tx, hook, BY_USER)
    touch(tx, hook)
    return hook


def rotate(tx: Session, webhook_id: str, *, service_secret: str) -> tuple[tables.Webhook, str]:
    """A new secret; for a day messages are signed with the one before, too. Raises WebhookNotFound."""
    hook = get(tx, webhook_id, lock=True)
    secret = signatures.new_secret()
    hook.old_secret, hook.old_secret_until = hook.secret, now(tx) + OLD_SECRET_LASTS
    hook.secret = signatures.seal(service_secret, secret)
    touch(tx, hook)
    return hook, secret


def delete(tx: Session, webhook_id: str) -> None:
    """Raises WebhookNotFound."""
    tx.delete(get(tx, webhook_id))


def test(tx: Session, webhook_id: str) -> tables.Delivery:
    """A message that says nothing. Raises WebhookNotFound, LabError."""
    hook = get(tx, webhook_id)
    deliveries.refuse_disabled(hook)
    return deliveries.add(tx, hook, TEST, now(tx), {"webhook_id": hook.id})


def tag_of(hook: tables.Webhook) -> str:
    return f'"{hook.version}"'


def touch(tx: Session, hook: tables.Webhook) -> None:
    hook.version += 1
    hook.updated_at = now(tx)


def view(hook: tables.Webhook) -> dict[str, Any]:
    here = f"/v1/webhooks/{hook.id}"
    shown = {name: getattr(hook, name) for name in ("id", "url", "types", "description", "enabled", "disabled_reason")}
    times = {"created_at": rfc3339(hook.created_at), "updated_at": rfc3339(hook.updated_at)}
    return {"object": "webhook", **shown, **times, "links": {"self": here, "deliveries": f"{here}/deliveries"}}


# ---- what happens to jobs --------------------------------------------------------------------------------------------


def announce(tx: Session, job: tables.Job, moment: datetime, note: Note) -> None:
    """Write a message for every webhook that wants to know of this event of a job."""
    if (type_ := type_of(note)) is None:
        return
    of_project = select(tables.Webhook).where(tables.Webhook.project_id == job.project_id, tables.Webhook.enabled)
    for hook in [hook for hook in tx.scalars(of_project) if type_ in hook.types]:
        deliveries.add(tx, hook, type_, moment, message(job, note))


def type_of(note: Note) -> str | None:
    if note.type == "diagnosis":
        return "job.diagnosed"
    return OF_STATUS.get(note.data["status"]) if note.type == "status" else None


def message(job: tables.Job, note: Note) -> dict[str, Any]:
    links = {"self": f"/v1/jobs/{job.id}", "results": f"/v1/jobs/{job.id}/results"}
    told: dict[str, Any] = {"job_id": job.id, "name": job.name, "status": job.status, "attempt": job.attempt}
    if job.error:
        told["error"] = {name: str(text)[:MAX_TEXT] for name, text in job.error.items()}
    if note.type == "diagnosis":
        shown = ("code", "layer", "evidence", "advice")
        told["diagnosis"] = {name: note.data[name] and str(note.data[name])[:MAX_TEXT] for name in shown}
    return told | {"links": links}
