"""Standard Webhooks 1.0: how a message is signed, and how the secrets for it are kept."""

import base64
import hashlib
import hmac
import secrets

from cryptography.fernet import Fernet, InvalidToken

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(secret: str, identity: str, timestamp: int, body: bytes) -> str:
    """The signature of a message, as the receiver computes it again."""
    signed = f"{identity}.{timestamp}.".encode() + body
    digest = hmac.digest(base64.b64decode(secret.removeprefix(PREFIX)), signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def seal(service_secret: str, secret: str) -> str:
    """A webhook's secret as the database keeps it: of no use without the service's own."""
    return _box(service_secret).encrypt(secret.encode()).decode()


def unseal(service_secret: str, sealed: str) -> str:
    """The secret again. Raises ValueError where it was sealed with another secret of the service."""
    try:
        return _box(service_secret).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise ValueError("the webhook's secret was stored under another CREDITLAB_SECRET_KEY") from None


def _box(service_secret: str) -> Fernet:
    key = hmac.digest(service_secret.encode(), b"secrets of webhooks", hashlib.sha256)
    return Fernet(base64.urlsafe_b64encode(key))
