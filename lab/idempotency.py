"""Commands that are sent twice and done once: the answer is kept in the transaction of what it tells of.

As Stripe has it: a key is good for one request of one project, for a day. Answers that are given before anything is
done are not kept, so the key stays free for the corrected request.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import rfc8785
from sqlalchemy import BigInteger, Row, Table, bindparam, delete, func, insert, select
from sqlalchemy.orm import Session

from lab import projects, specs, tables
from lab.db import Clock, Database, Tx, now
from lab.errors import BadHeader, IdempotencyMismatch, RequestInProgress

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
MAX_LENGTH = 255
QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
BARE = re.compile(r"[!#-~][ -~]*")
PATTERN = rf'^(?:[!#-~][ -~]{{0,{MAX_LENGTH - 1}}}|"(?:[ !#-\[\]-~]|\\["\\]){{1,{MAX_LENGTH}}}")$'
"""Both of them with their length, as the documentation has it."""
RECORD = tables.IdempotencyRecord
KNOWN = select(RECORD.fingerprint, RECORD.status, RECORD.headers, RECORD.body, RECORD.expires_at).add_columns(
    Clock().label("moment")
)
KNOWN = KNOWN.where(*(getattr(RECORD, name) == bindparam(name) for name in ("method", "path", "key")))
KEEP = insert(cast("Table", RECORD.__table__))
TRY_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("number", type_=BigInteger)))


@dataclass(frozen=True)
class Answer:
    """What was answered, to be answered again."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Request:
    """A command that may have been sent before."""

    method: str
    path: str
    key: str
    fingerprint: str

    def find(self, where: Database | Tx) -> Answer | None:
        """What was answered to this request before, as far as can be seen there.

        Raises:
            IdempotencyMismatch: the key was used for another one.
        """
        found = self._kept(where)
        return None if found is None or found.expires_at <= found.moment else self._answer(found)

    def begin(self, tx: Tx) -> Answer | None:
        """As ``find``, at the begin of the transaction that will answer; nobody else answers it meanwhile.

        Raises:
            IdempotencyMismatch: the key was used for another one.
            RequestInProgress: another transaction is about to answer. (On SQLite it has ended: writers wait in turn.)
        """
        if tx.get_bind().dialect.name == "postgresql":
            identity = "\0".join([projects.project_of(tx), *self._identity.values()]).encode()
            number = int.from_bytes(hashlib.sha256(identity).digest()[:8], "big", signed=True)
            if not tx.connection().scalar(TRY_LOCK, {"number": number}):
                raise RequestInProgress
        found = self._kept(tx)
        if found is not None and found.expires_at <= found.moment:
            tx.execute(delete(tables.IdempotencyRecord).filter_by(**self._identity))
            return None
        return None if found is None else self._answer(found)

    def keep(self, tx: Tx, answer: Answer) -> None:
        """Keep the answer for a day, together with what it tells of."""
        moment = now(tx)
        kept = {"fingerprint": self.fingerprint, "created_at": moment, "expires_at": moment + KEPT}
        row = {"project_id": projects.project_of(tx)} | self._identity | vars(answer) | kept
        tx.connection().execute(KEEP, row)

    def _kept(self, where: Database | Tx) -> Row[Any] | None:
        (found,) = where.rows(KNOWN, **self._identity) or (None,)
        return found

    def _answer(self, found: Row[Any]) -> Answer:
        if found.fingerprint != self.fingerprint:
            raise IdempotencyMismatch
        return Answer(found.status, found.headers, found.body)

    @property
    def _identity(self) -> dict[str, str]:
        return {"method": self.method, "path": self.path, "key": self.key}


def key_of(values: list[str]) -> str | None:
    """The key in the header's values, bare or as a quoted string, which are the same key.

    Raises:
        BadHeader: there are several, or it is not 1 to 255 printable ASCII characters.
    """
    if not values:
        return None
    if len(values) > 1:
        raise BadHeader(HEADER, "is given more than once")
    quoted = QUOTED.fullmatch(values[0])
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else values[0]
    if not 1 <= len(key) <= MAX_LENGTH or not (quoted or BARE.fullmatch(key)):
        raise BadHeader(HEADER, f"should be 1 to {MAX_LENGTH} printable ASCII characters, bare or in double quotes")
    return key


def fingerprint(query: Iterable[tuple[str, str]], body: Any) -> str:
    """SHA-256 of query and body; the order of parameters and fields does not count, nor does white space."""
    canonical = rfc8785.dumps(specs.canonical([sorted(map(list, query)), body]))
    return hashlib.sha256(canonical).hexdigest()


def expire(tx: Session) -> int:
    """Forget the answers whose day is over; how many those were."""
    table = tables.IdempotencyRecord
    gone = delete(table).where(table.expires_at <= now(tx)).returning(table.key)
    return len(tx.scalars(gone).all())
