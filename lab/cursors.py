"""Cursors of lists: opaque and signed, good for the filters they were made with and for no others."""

import hashlib
from typing import Any

import rfc8785
from itsdangerous import BadSignature, URLSafeSerializer

from lab.errors import BadCursor, CursorMismatch


def make(secret: str, last_id: str, filters: dict[str, Any]) -> str:
    """The cursor of the page after the one that ends with ``last_id``."""
    return _serializer(secret).dumps([last_id, fingerprint(filters)])


def read(secret: str, cursor: str, filters: dict[str, Any]) -> str:
    """The last id of the page before.

    Raises:
        BadCursor: not made by this service.
        CursorMismatch: made for other filters.
    """
    serializer = _serializer(secret)
    try:
        last_id, made_for = serializer.loads(cursor)
    except (BadSignature, ValueError):
        raise BadCursor from None
    if serializer.dumps([last_id, made_for]) != cursor:  # base64 is read leniently
        raise BadCursor
    if made_for != fingerprint(filters):
        raise CursorMismatch
    return str(last_id)


def fingerprint(filters: dict[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(filters)).hexdigest()[:16]


def _serializer(secret: str) -> URLSafeSerializer:
    return URLSafeSerializer(secret, salt="cursor", signer_kwargs={"digest_method": hashlib.sha256})
