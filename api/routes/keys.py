"""API keys of the caller's project, for its admins."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from api.bodies import described, read
from api.deps import STRICT, Body, Db, PageOf, SettingsOf
from api.etags import expected
from api.openapi import IF_MATCH, problems
from api.problems import InvalidBody, shorten
from api.schemas import Key, KeyChange, KeyCreate, KeyMade, KeyPage
from lab import keys
from lab.db import Tx, now
from lab.tables import SCOPES

router = APIRouter(tags=["keys"], dependencies=STRICT)


@router.post("/v1/keys", status_code=201, response_model=KeyMade, openapi_extra=described(KeyCreate))
def create(body: Body, db: Db, response: Response) -> Any:
    """Make a key. Its secret, `key`, is shown in this answer and never again."""
    wanted = read(KeyCreate, body)
    with db.write() as tx:
        refuse_past(tx, wanted.expires_at)
        key, secret = keys.create(tx, wanted.name, widest(wanted.scopes), wanted.expires_at)
        view = keys.view(key)
    response.headers.update({"Location": f"/v1/keys/{key.id}", "ETag": keys.tag_of(key), "Cache-Control": "no-store"})
    return view | {"key": secret}


@router.get("/v1/keys", response_model=KeyPage, responses=problems(400))
def list_keys(db: Db, settings: SettingsOf, page: PageOf) -> Any:
    """Keys of the project, newest first; those that were revoked or have expired, too."""
    with db.read() as tx:
        return keys.page(tx, page.limit, page.after, secret=settings.secret_key)


@router.get("/v1/keys/{key_id}", response_model=Key, responses=problems(404))
def show(key_id: str, db: Db, response: Response) -> Any:
    """One key."""
    with db.read() as tx:
        return stamped(response, keys.get(tx, key_id))


@router.patch(
    "/v1/keys/{key_id}",
    response_model=Key,
    responses=problems(404, 412, 428),
    openapi_extra=described(KeyChange) | IF_MATCH,
)
def change(key_id: str, body: Body, request: Request, response: Response, db: Db) -> Any:
    """Change name, scopes or expiry of a key; what is not named stays. `If-Match` has to hold its ETag."""
    wanted = read(KeyChange, body)
    changes = wanted.model_dump(include=wanted.model_fields_set)
    if "scopes" in changes:
        changes["scope"] = widest(changes.pop("scopes"))
    is_current = expected(request)
    with db.write() as tx:
        refuse_past(tx, changes.get("expires_at"))
        key = keys.change(tx, key_id, changes, is_current)
        return stamped(response, key)


@router.delete("/v1/keys/{key_id}", status_code=204, response_model=None, responses=problems(404))
def revoke(key_id: str, db: Db) -> None:
    """Revoke a key: it opens nothing from the next request on. It stays in the list, since events name it."""
    with db.write() as tx:
        keys.revoke(tx, key_id)


def widest(scopes: Iterable[str]) -> str:
    return max(scopes, key=SCOPES.index)


def refuse_past(tx: Tx, expires_at: datetime | None) -> None:
    """Raises InvalidBody."""
    if expires_at is not None and expires_at <= now(tx):
        fault = {"pointer": "#/expires_at", "detail": f"{shorten(expires_at.isoformat())} is not in the future"}
        raise InvalidBody("1 field is wrong", [fault])


def stamped(response: Response, key: Any) -> dict[str, Any]:
    """The key, its ETag in the header."""
    response.headers.update({"ETag": keys.tag_of(key), "Cache-Control": "private, no-cache"})
    return keys.view(key)
