"""Every answer from 400 up is ``application/problem+json`` (RFC 9457), whoever raised it."""
# ruff: noqa: N818  (errors are named for the reason, not for being errors)

import json
from http import HTTPMethod, HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from lab.errors import LabError

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
RETRY_AFTER_SECONDS = 5
MAX_ECHO = 100
MAX_ERRORS = 50

MEANING = {
    "artifact_expired": "The file was kept for the time that the service keeps files; results and metrics stay.",
    "bad_cursor": "The value of `after` was not made by this service, or was altered. Start again without it.",
    "bad_header": "A header is not what it should be; `errors` names it. Nothing was done.",
    "bad_host": "Without keys the service answers to loopback names alone, so that no web page can reach it.",
    "body_too_large": "The body is larger than this service reads.",
    "broker_unavailable": "The message broker does not answer. Nothing was stored; try again.",
    "built_in": "The data set comes with CreditLab and cannot be deleted.",
    "cursor_mismatch": "The cursor belongs to a list with other filters. Keep the filters while paging.",
    "database_unavailable": "The database does not answer. Try again.",
    "dataset_in_use": "A job that has not ended uses the data set; `job_id` names it.",
    "idempotency_mismatch": "The Idempotency-Key was used for another request. Nothing was done.",
    "internal_error": "A fault of this service, written to its log under the request id of `instance`.",
    "invalid_body": "The body is not what the operation takes, or it takes none; `errors` points at each wrong field.",
    "invalid_dataset": "What was sent is no data set that can be trained on; `errors` names the field and the reason.",
    "invalid_key": "The API key is mistyped, unknown, expired or revoked; `detail` says which.",
    "invalid_parameter": "A query parameter is unknown, repeated or out of range; `errors` names each of them.",
    "invalid_spec": "The job spec is JSON, but not a job that can be trained; `errors` points at each wrong field.",
    "malformed_form": "The body is not multipart/form-data as RFC 7578 has it.",
    "malformed_json": "The body is not JSON as RFC 8259 has it: no NaN, no repeated names, no numbers beyond 64 bits.",
    "method_not_allowed": "The address exists, but not with this method; the header `Allow` lists those it has.",
    "missing_key": "This service asks for a key: send `Authorization: Bearer clk_…`.",
    "missing_scope": "The key's scopes do not allow this; `required_scope` is the one that would.",
    "name_taken": "Another data set has the name.",
    "not_found": "There is nothing at this address, or nothing with this id.",
    "not_ready": "A part that the service needs does not answer; `checks` names it.",
    "precondition_required": "Send the ETag of what you have read as `If-Match`, so that no change of others is lost.",
    "quota_exceeded": "The project holds as much as it may; `violated-policies` names the quota. Nothing was stored.",
    "range_not_satisfiable": "The range begins beyond the end of the file.",
    "rate_limited": "The key, or its project, has asked too often; go on after `Retry-After` seconds.",
    "request_in_progress": "The first request with this Idempotency-Key is still being answered; try again.",
    "storage_unavailable": "The artifact store does not answer. Try again.",
    "too_many_webhooks": "There are as many webhooks as a project may have. Delete one first.",
    "unsupported_media_type": "Bodies are `application/json`, those with files `multipart/form-data`; none is encoded.",
    "version_mismatch": "It has changed since you have read it; read it again and repeat the change.",
    "webhook_disabled": "The webhook is disabled and is sent nothing. Enable it first.",
    "wrong_state": "The job's status does not allow the command; `allowed` lists the statuses that do.",
}
"""What each code means, for the page that its ``type`` leads to."""


class InvalidParameter(LabError):
    """Query parameters or headers that cannot be used as they are."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        detail = "1 parameter is wrong" if len(errors) == 1 else f"{len(errors)} parameters are wrong"
        super().__init__(422, "invalid_parameter", "A parameter is not valid", detail, errors=errors[:MAX_ERRORS])


class InvalidBody(LabError):
    """A body where none is taken, or another than is taken; ``errors`` point at its wrong fields."""

    def __init__(self, detail: str, errors: list[dict[str, Any]] | None = None) -> None:
        errors = errors or [{"pointer": "#", "detail": detail}]
        super().__init__(422, "invalid_body", "The body is not valid", detail, errors=errors[:MAX_ERRORS])


class NotFound(LabError):
    def __init__(self, detail: str) -> None:
        super().__init__(404, "not_found", "There is no such thing", detail)


def type_of(error: LabError) -> str:
    """The problem's type: a page of this service, or the registered type for a passing shortage or a limit."""
    registered = {
        HTTPStatus.SERVICE_UNAVAILABLE: REDUCED_CAPACITY,
        HTTPStatus.TOO_MANY_REQUESTS: QUOTA_EXCEEDED,
    }
    return registered.get(HTTPStatus(error.status)) or page_of(error.code)


def page_of(code: str) -> str:
    return f"/problems/{code.replace('_', '-')}"


def shorten(value: Any) -> str:
    """A received value as it may be echoed: on one line, at most 100 characters."""
    text = repr(value)
    return text if len(text) <= MAX_ECHO else text[: MAX_ECHO - 1] + "…"


def problem(scope: Scope, error: LabError, headers: dict[str, str] | None = None) -> Response:
    """The answer that tells of ``error``."""
    document = {
        "type": type_of(error),
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "instance": f"urn:creditlab:request:{scope['state']['request_id']}",
        **error.extra,
    }
    headers = {**error.headers, **(headers or {})}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    # a client's text may hold what UTF-8 cannot: an answer is given all the same
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, error.status, headers, media_type="application/problem+json")


def internal_error() -> LabError:
    """What a client learns of a bug: nothing but the request id, under which the log has it all."""
    return LabError(500, "internal_error", "The service has a fault", "the log has the details under this request id")


async def refused_by_router(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, and whatever else the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem(request.scope, NotFound(f"there is nothing at {shorten(request.scope['path'])}"), headers)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = methods_at(request)
        detail = f"{shorten(request.scope['path'])} takes {', '.join(allowed)}, not {shorten(request.method)}"
        refusal = LabError(405, "method_not_allowed", "The method is not allowed here", detail)
        return problem(request.scope, refusal, headers | {"Allow": ", ".join(allowed)})
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return problem(request.scope, LabError(error.status_code, code, phrase, str(error.detail)), headers)


def methods_at(request: Request) -> list[str]:
    """Every method of the requested path: the router itself would name those of its first route alone."""

    def matches(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    allowed = [method.value for method in HTTPMethod if matches(method.value)]
    return sorted({*allowed, "HEAD"} if "GET" in allowed else allowed)


async def refused_by_validation(request: Request, error: Exception) -> Response:
    """Query parameters and headers that do not fit their declaration."""
    assert isinstance(error, RequestValidationError)
    return problem(request.scope, InvalidParameter([located(fault) for fault in error.errors()]))


def located(fault: Any) -> dict[str, Any]:
    """One of the framework's findings as ``{"parameter" or "header", "detail", "allowed"?}``."""
    place, name = fault["loc"][:2]
    if fault["type"] == "missing":
        detail = "is required"
    else:
        message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        detail = f"{shorten(fault['input'])}: {message}"
    finding: dict[str, Any] = {"header" if place == "header" else "parameter": str(name), "detail": detail}
    if fault["type"] in {"literal_error", "enum"}:
        finding["allowed"] = [
            choice.strip("'") for choice in fault["ctx"]["expected"].replace(" or ", ", ").split(", ")
        ]
    return finding
