"""API keys: made, checked, changed, revoked.

A key is ``clk_``, 22 random characters (130 bits) and the CRC-32 of these as 6 more, so that a scanner, and the API
before any query, tells a key from a typo. Only its SHA-256 is stored: what is guessed by nobody needs no slow hash.
"""

import hashlib
import secrets
import zlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.orm import Session

from lab import cursors, projects, tables
from lab.db import Clock, Database, now, rfc3339
from lab.errors import DatabaseUnavailable, InvalidKey, KeyNotFound, MissingScope, VersionMismatch
from lab.ids import new_id
from lab.projects import Caller, Quotas
from lab.settings import Settings
from lab.tables import SCOPES

PREFIX = "clk_"
RANDOM, CHECK = 22, 6
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
OWNER = (
    select(tables.Key.id, tables.Key.project_id, tables.Key.scope)
    .add_columns(tables.Key.revoked_at, tables.Key.expires_at, tables.Key.last_used_at, Clock().label("moment"))
    .add_columns(*(getattr(tables.Project, quota) for quota in Quotas.__dataclass_fields__))
    .join_from(tables.Key, tables.Project, tables.Project.id == tables.Key.project_id)
    .where(tables.Key.sha256 == bindparam("sha256"))
)
"""What every request asks of its key."""
USED_AFTER = timedelta(minutes=1)
"""A use within a minute of the last one is not written: reading with a key must not become writing."""


def make_secret() -> str:
    """A new key, for nobody yet."""
    drawn = "".join(secrets.choice(BASE62) for _ in range(RANDOM))
    return f"{PREFIX}{drawn}{checksum(drawn)}"


def checksum(drawn: str) -> str:
    """CRC-32 of the random part, in base 62."""
    crc = zlib.crc32(drawn.encode())
    return "".join(BASE62[crc // 62**place % 62] for place in reversed(range(CHECK)))


def is_wellformed(secret: str) -> bool:
    """Whether this could be a key at all."""
    drawn = secret[len(PREFIX) : -CHECK]
    return (
        secret.startswith(PREFIX)
        and len(secret) == len(PREFIX) + RANDOM + CHECK
        and set(drawn) <= set(BASE62)
        and secret.endswith(checksum(drawn))
    )


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


# ---- who calls -------------------------------------------------------------------------------------------------------


def caller_with(database: Database, secret: str, settings: Settings) -> Caller:
    """Whose key this is.

    Raises:
        InvalidKey: nobody's, or it is not valid any more.
    """
    if not is_wellformed(secret):
        raise InvalidKey("this is not a key of this service: clk_ and 28 letters and digits, the last six a checksum")
    (key,) = database.rows(OWNER, sha256=hash_of(secret)) or (None,)
    if key is None:
        raise InvalidKey("no such key was made here")
    if key.revoked_at is not None:
        raise InvalidKey(f"the key was revoked at {rfc3339(key.revoked_at)}")
    if key.expires_at is not None and key.expires_at <= key.moment:
        raise InvalidKey(f"the key expired at {rfc3339(key.expires_at)}")
    if key.last_used_at is None or key.last_used_at <= key.moment - USED_AFTER:
        with suppress(DatabaseUnavailable):  # not worth an answer
            note_use(database, key.id)
    return Caller(key.project_id, key.id, key.scope, Quotas.of(key, settings))


def note_use(database: Database, key_id: str) -> None:
    """Write when the key was used, unless somebody did within the minute."""
    with database.write() as tx:
        moment = now(tx)
        unnoted = or_(tables.Key.last_used_at.is_(None), tables.Key.last_used_at <= moment - USED_AFTER)
        tx.execute(update(tables.Key).where(tables.Key.id == key_id, unnoted).values(last_used_at=moment))


def caller_without(database: Database, settings: Settings) -> Caller:
    """Whoever reaches a service that asks for no key: everything is allowed in the default project."""
    with database.read() as tx:
        project = projects.get(tx) or tables.Project(id=projects.DEFAULT)
    return Caller(projects.DEFAULT, None, SCOPES[-1], Quotas.of(project, settings))


def require(caller: Caller, scope: str) -> None:
    """Raises MissingScope."""
    if SCOPES.index(caller.scope) < SCOPES.index(scope):
        raise MissingScope(scope, caller.scope)


# ---- the keys of a project -------------------------------------------------------------------------------------------


def create(
    tx: Session, name: str, scope: str, expires_at: datetime | None = None, project: str | None = None
) -> tuple[tables.Key, str]:
    """A new key, of the caller's project where none is named; with its secret, which nobody can read again."""
    secret = make_secret()
    key = tables.Key(
        id=new_id("key"),
        project_id=project,
        name=name,
        scope=scope,
        sha256=hash_of(secret),
        last4=secret[-4:],
        created_at=now(tx),
        expires_at=expires_at,
    )
    tx.add(key)
    tx.flush()
    return key, secret


def first(tx: Session) -> str | None:
    """An admin's key for a service that has no keys at all, else None."""
    if tx.scalar(select(tables.Key.id).limit(1)) is not None:
        return None
    projects.ensure(tx, projects.DEFAULT)
    return create(tx, "first", SCOPES[-1])[1]


def get(tx: Session, key_id: str) -> tables.Key:
    """The key. Raises KeyNotFound."""
    key = tx.get(tables.Key, key_id)
    if key is None:
        raise KeyNotFound(key_id)
    return key


def change(tx: Session, key_id: str, changes: Mapping[str, Any], is_current: Any) -> tables.Key:
    """Change name, scope or expiry of a key.

    Args:
        tx: the transaction to write in.
        key_id: which.
        changes: new values by column.
        is_current: whether a tag is one that the client has seen.

    Raises:
        KeyNotFound: there is none.
        VersionMismatch: it is another than the client has seen; nothing was changed.
    """
    key = tx.scalar(select(tables.Key).where(tables.Key.id == key_id).with_for_update())
    if key is None:
        raise KeyNotFound(key_id)
    if not is_current(tag_of(key)):
        raise VersionMismatch(tag_of(key))
    for column, value in changes.items():
        setattr(key, column, value)
    key.version += 1
    return key


def revoke(tx: Session, key_id: str) -> tables.Key:
    """Make the key open nothing from the next request on; its row stays, since events name it. Raises KeyNotFound."""
    key = get(tx, key_id)
    if key.revoked_at is None:
        key.revoked_at = now(tx)
        key.version += 1
    return key


def page(tx: Session, limit: int, after: str | None, *, secret: str) -> dict[str, Any]:
    """Keys, newest first. Raises BadCursor, CursorMismatch."""
    made_for = {"list": "keys", "project": projects.project_of(tx)}
    wanted = select(tables.Key).order_by(tables.Key.id.desc()).limit(limit + 1)
    if after is not None:
        wanted = wanted.where(tables.Key.id < cursors.read(secret, after, made_for))
    rows = list(tx.scalars(wanted))
    shown, has_more = rows[:limit], len(rows) > limit
    cursor = cursors.make(secret, shown[-1].id, made_for) if has_more else None
    return {"object": "list", "data": [view(key) for key in shown], "has_more": has_more, "next": cursor}


def tag_of(key: tables.Key) -> str:
    return f'"{key.version}"'


def view(key: tables.Key) -> dict[str, Any]:
    """The key as the API shows it."""
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "project": key.project_id,
        "scopes": list(SCOPES[: SCOPES.index(key.scope) + 1]),
        "last4": key.last4,
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at),
        "revoked_at": rfc3339(key.revoked_at),
        "last_used_at": rfc3339(key.last_used_at),
    }
