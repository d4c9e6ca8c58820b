"""Errors that a user is told about: each carries its HTTP status and its code, and one handler renders them all."""
# ruff: noqa: N818  (they are named for the reason, not for being errors)

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

QUOTA_RETRY_SECONDS = 30
"""A quota is freed by jobs that start or are deleted, which nobody can foretell."""


class LabError(Exception):
    """An answer that is not a success.

    Attributes:
        status: HTTP status.
        code: stable name of the error, as http clients compare it.
        title: the same sentence for every error of this code.
        detail: what was wrong this time.
        extra: further members of the problem document.
        headers: that the answer has besides.
    """

    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, status: int, code: str, title: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.extra = extra


class MalformedJSON(LabError):
    """The body is not the JSON that this API reads."""

    def __init__(self, detail: str, pointer: str = "#") -> None:
        errors = [{"pointer": pointer, "detail": detail}]
        super().__init__(400, "malformed_json", "The body is not valid JSON", detail, errors=errors)


class BodyTooLarge(LabError):
    def __init__(self, limit: int) -> None:
        super().__init__(413, "body_too_large", "The body is too large", f"at most {limit} bytes are read")


class InvalidSpec(LabError):
    """The body is JSON, but not a job that can be trained."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        count = len(errors)
        detail = "1 field is wrong" if count == 1 else f"{count} fields are wrong"
        super().__init__(422, "invalid_spec", "The job spec is not valid", detail, errors=errors)


class InvalidFields(LabError):
    """The body is JSON, but not what the operation takes."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        detail = "1 field is wrong" if len(errors) == 1 else f"{len(errors)} fields are wrong"
        super().__init__(422, "invalid_body", "The body is not valid", detail, errors=errors)


class WebhookNotFound(LabError):
    def __init__(self, webhook_id: str) -> None:
        super().__init__(404, "not_found", "There is no such thing", f"no webhook has the id {webhook_id[:100]!r}")


class DeliveryNotFound(LabError):
    def __init__(self, webhook_id: str, delivery_id: str) -> None:
        detail = f"webhook {webhook_id[:100]!r} has no delivery {delivery_id[:100]!r}"
        super().__init__(404, "not_found", "There is no such thing", detail)


class JobNotFound(LabError):
    def __init__(self, job_id: str) -> None:
        super().__init__(404, "not_found", "There is no such thing", f"no job has the id {job_id[:100]!r}")


class DatasetNotFound(LabError):
    def __init__(self, key: str, hint: str = "") -> None:
        detail = f"no data set has the id or name {key[:100]!r}{hint}"
        super().__init__(404, "not_found", "There is no such thing", detail)


class InvalidDataset(LabError):
    """What was sent is no data set; ``parameter`` is the field of the form that is wrong."""

    def __init__(self, parameter: str, detail: str) -> None:
        errors = [{"parameter": parameter, "detail": detail}]
        super().__init__(422, "invalid_dataset", "The data set is not valid", f"{parameter}: {detail}", errors=errors)


class NameTaken(LabError):
    def __init__(self, name: str, owner: str) -> None:
        super().__init__(409, "name_taken", "The name is taken", f"{name!r} is the name of {owner}; choose another")


class DatasetInUse(LabError):
    def __init__(self, key: str, job_id: str) -> None:
        detail = f"{key[:100]!r} is used by {job_id}, which has not ended"
        super().__init__(409, "dataset_in_use", "The data set is in use", detail, job_id=job_id)


class BuiltIn(LabError):
    def __init__(self, name: str) -> None:
        super().__init__(409, "built_in", "The data set stays", f"{name!r} comes with CreditLab and cannot be deleted")


class ArtifactNotFound(LabError):
    def __init__(self, job_id: str, name: str) -> None:
        detail = f"job {job_id[:100]!r} has no artifact {name[:100]!r}"
        super().__init__(404, "not_found", "There is no such thing", detail)


class ArtifactExpired(LabError):
    def __init__(self, name: str, moment: str | None) -> None:
        detail = f"{name[:100]!r} was kept until {moment}; the job's results and metrics are still there"
        super().__init__(410, "artifact_expired", "The file has expired", detail)


class WrongState(LabError):
    """The job is in a state that does not allow the command; ``allowed`` are the states that do."""

    def __init__(self, command: str, job_status: str, allowed: list[str]) -> None:
        detail = f"cannot {command} a job that is {job_status}, only one that is {', '.join(allowed)}"
        super().__init__(
            409, "wrong_state", "The job's state forbids this", detail, job_status=job_status, allowed=allowed
        )


class BadCursor(LabError):
    def __init__(self) -> None:
        super().__init__(400, "bad_cursor", "The cursor is not valid", "the cursor was not made by this service")


class CursorMismatch(LabError):
    def __init__(self) -> None:
        detail = "the cursor belongs to a list with other filters"
        super().__init__(400, "cursor_mismatch", "The cursor does not fit", detail)


class Unauthorized(LabError):
    """No key, or none that opens anything."""

    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class MissingKey(Unauthorized):
    def __init__(self) -> None:
        detail = "send a key of this service: Authorization: Bearer clk_…"
        super().__init__(401, "missing_key", "An API key is required", detail)


class InvalidKey(Unauthorized):
    def __init__(self, detail: str) -> None:
        super().__init__(401, "invalid_key", "The API key is not valid", detail)


class MissingScope(LabError):
    def __init__(self, scope: str, held: str) -> None:
        detail = f"this needs a key with the scope {scope}; this key has {held}"
        super().__init__(403, "missing_scope", "The key may not do this", detail, required_scope=scope)


class KeyNotFound(LabError):
    def __init__(self, key_id: str) -> None:
        super().__init__(404, "not_found", "There is no such thing", f"no key has the id {key_id[:100]!r}")


class RateLimited(LabError):
    """More requests than the project's quota allows in a minute."""

    def __init__(self, quota: int, seconds: int) -> None:
        detail = f"at most {quota} requests a minute; the next one is answered in {seconds} s"
        super().__init__(429, "rate_limited", "Too many requests", detail, **{"violated-policies": ["burst"]})
        self.headers = {"Retry-After": str(seconds)}


class QuotaExceeded(LabError):
    """The project holds as much as it may."""

    def __init__(self, policy: str, detail: str) -> None:
        super().__init__(
            429, "quota_exceeded", "The project is at its quota", detail, **{"violated-policies": [policy]}
        )
        self.headers = {"Retry-After": str(QUOTA_RETRY_SECONDS)}


class BadHeader(LabError):
    def __init__(self, header: str, detail: str) -> None:
        errors = [{"header": header, "detail": detail}]
        super().__init__(400, "bad_header", "A header is not valid", f"{header}: {detail}", errors=errors)


class IdempotencyMismatch(LabError):
    def __init__(self) -> None:
        detail = "this Idempotency-Key was used for another request; take a new key for a new request"
        super().__init__(422, "idempotency_mismatch", "The Idempotency-Key is taken", detail)


class RequestInProgress(LabError):
    headers = MappingProxyType({"Retry-After": "1"})

    def __init__(self) -> None:
        detail = "the request with this Idempotency-Key is still being answered; try again"
        super().__init__(409, "request_in_progress", "The request is in progress", detail)


class VersionMismatch(LabError):
    """The client has read another version than there is."""

    def __init__(self, tag: str) -> None:
        detail = f"it has changed since it was read: its ETag is {tag}"
        super().__init__(412, "version_mismatch", "It has changed", detail)


class PreconditionRequired(LabError):
    def __init__(self) -> None:
        detail = "send the ETag of what you have read as If-Match, so that no change of others is lost"
        super().__init__(428, "precondition_required", "If-Match is required", detail)


class DatabaseUnavailable(LabError):
    def __init__(self, detail: str = "the database does not answer; try again") -> None:
        super().__init__(503, "database_unavailable", "The database is away", detail)


class StoreUnavailable(LabError):
    """The artifact store does not answer, or does not do as it is told; ``reason`` is for operators."""

    def __init__(self, reason: str) -> None:
        detail = "the artifact store does not answer; try again"
        super().__init__(503, "storage_unavailable", "The artifact store is away", detail)
        self.reason = reason


class BrokerUnavailable(LabError):
    def __init__(self) -> None:
        detail = "the broker does not answer, so nothing was stored; try again"
        super().__init__(503, "broker_unavailable", "The broker is away", detail)
