"""Errors that a user is told about: each carries its HTTP status and its code, and one handler renders them all."""
# ruff: noqa: N818  (they are named for the reason, not for being errors)

from typing import Any


class LabError(Exception):
    """An answer that is not a success.

    Attributes:
        status: HTTP status.
        code: stable name of the error, as http clients compare it.
        title: the same sentence for every error of this code.
        detail: what was wrong this time.
        extra: further members of the problem document.
    """

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


class DatabaseUnavailable(LabError):
    def __init__(self, detail: str = "the database does not answer; try again") -> None:
        super().__init__(503, "database_unavailable", "The database is away", detail)


class BrokerUnavailable(LabError):
    def __init__(self) -> None:
        detail = "the broker does not answer, so nothing was stored; try again"
        super().__init__(503, "broker_unavailable", "The broker is away", detail)
