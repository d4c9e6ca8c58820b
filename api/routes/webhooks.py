"""Webhooks: who is told of what happens to jobs, with the log of what was sent (Standard Webhooks 1.0)."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.deps import COMMAND, STRICT, Body, Db, PageOf, SettingsOf
from api.etags import HEADERS, expected
from api.fleet_schemas import Delivery, DeliveryPage, Webhook, WebhookList, WebhookWithSecret
from api.openapi import IF_MATCH, problems
from lab import deliveries, webhooks

FIELDS: dict[str, Any] = {
    "url": {
        "type": "string",
        "maxLength": 2000,
        "description": "https://… at a public address; further ones are allowed by CREDITLAB_WEBHOOK_ALLOW",
    },
    "types": {
        "type": "array",
        "minItems": 1,
        "items": {"enum": webhooks.TYPES},
        "description": "Of which events to be told; of all by default",
    },
    "description": {"type": "string", "maxLength": webhooks.MAX_DESCRIPTION},
    "enabled": {"type": "boolean", "default": True},
}

router = APIRouter(tags=["webhooks"], dependencies=STRICT)


def taking(*required: str) -> dict[str, Any]:
    """The request body of an operation."""
    schema = {"type": "object", "properties": FIELDS, "required": list(required), "additionalProperties": False}
    example = {"url": "https://example.org/creditlab", "types": ["job.succeeded", "job.failed"]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


def tagged(response: Response, hook: Any) -> dict[str, Any]:
    response.headers.update({"ETag": webhooks.tag_of(hook), **HEADERS})
    return webhooks.view(hook)


@router.post(
    "/v1/webhooks",
    status_code=201,
    response_model=WebhookWithSecret,
    responses=problems(409),
    openapi_extra=taking("url"),
)
def create(body: Body, db: Db, settings: SettingsOf, response: Response) -> Any:
    """Tell a URL of what happens to jobs. The answer alone shows the secret that checks the signatures."""
    wishes = webhooks.parse(body, settings.webhook_networks, new=True)
    with db.write() as tx:
        hook, secret = webhooks.create(tx, wishes, service_secret=settings.secret_key)
    response.headers["Location"] = f"/v1/webhooks/{hook.id}"
    return tagged(response, hook) | {"secret": secret}


@router.get("/v1/webhooks", response_model=WebhookList)
def list_webhooks(db: Db) -> Any:
    """All webhooks, newest first."""
    with db.read() as tx:
        return webhooks.list_all(tx)


@router.get("/v1/webhooks/{webhook_id}", response_model=Webhook, responses=problems(404))
def show(webhook_id: str, db: Db, response: Response) -> Any:
    """One webhook."""
    with db.read() as tx:
        return tagged(response, webhooks.get(tx, webhook_id))


@router.patch(
    "/v1/webhooks/{webhook_id}",
    response_model=Webhook,
    responses=problems(404, 412, 428),
    openapi_extra=taking() | IF_MATCH,
)
def change(webhook_id: str, body: Body, request: Request, db: Db, settings: SettingsOf, response: Response) -> Any:
    """Change a webhook; what is not named stays. Enabling it again sends nothing of what was given up."""
    is_current = expected(request)
    wishes = webhooks.parse(body, settings.webhook_networks, new=False)
    with db.write() as tx:
        return tagged(response, webhooks.change(tx, webhook_id, wishes, is_current))


@router.delete("/v1/webhooks/{webhook_id}", status_code=204, response_model=None, responses=problems(404))
def delete(webhook_id: str, db: Db) -> None:
    """Delete a webhook with its log."""
    with db.write() as tx:
        webhooks.delete(tx, webhook_id)


@router.post(
    "/v1/webhooks/{webhook_id}/rotate",
    response_model=WebhookWithSecret,
    responses=problems(404),
    dependencies=COMMAND,
)
def rotate(webhook_id: str, db: Db, settings: SettingsOf, response: Response) -> Any:
    """A new secret. For a day messages carry a signature by the one before, too."""
    with db.write() as tx:
        hook, secret = webhooks.rotate(tx, webhook_id, service_secret=settings.secret_key)
    return tagged(response, hook) | {"secret": secret}


@router.post(
    "/v1/webhooks/{webhook_id}/test",
    status_code=202,
    response_model=Delivery,
    responses=problems(404, 409),
    dependencies=COMMAND,
)
def test(webhook_id: str, db: Db) -> Any:
    """Send a message of type `webhook.test`; the log says how it went."""
    with db.write() as tx:
        return deliveries.views(tx, [webhooks.test(tx, webhook_id)])[0]


@router.get("/v1/webhooks/{webhook_id}/deliveries", response_model=DeliveryPage, responses=problems(400, 404))
def log(webhook_id: str, response: Response, db: Db, settings: SettingsOf, page: PageOf) -> Any:
    """What was sent, newest first, with every try; kept for 30 days."""
    with db.read() as tx:
        webhooks.get(tx, webhook_id)
        found = deliveries.log_of(tx, webhook_id, page.limit, page.after, secret=settings.secret_key)
    if found["next"]:
        there = f"/v1/webhooks/{webhook_id}/deliveries?limit={page.limit}&after={found['next']}"
        response.headers["Link"] = f'<{there}>; rel="next"'
    return found


@router.post(
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=Delivery,
    responses=problems(404, 409),
    dependencies=COMMAND,
)
def redeliver(webhook_id: str, delivery_id: str, db: Db) -> Any:
    """Send a message once more, under the id that it had."""
    with db.write() as tx:
        return deliveries.views(tx, [deliveries.again(tx, webhooks.get(tx, webhook_id), delivery_id)])[0]
