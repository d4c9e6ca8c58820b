"""Bodies of a few plain fields, as pydantic models: read with a pointer to each wrong field, described for OpenAPI."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.problems import InvalidBody, shorten
from lab.strict_json import pointer

Model = TypeVar("Model", bound=BaseModel)


def read(model: type[Model], body: Any) -> Model:
    """The body as ``model`` has it.

    Raises:
        InvalidBody: with a pointer to each wrong field.
    """
    try:
        return model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        faults = [explain(model, fault) for fault in error.errors(include_url=False, include_context=False)]
        detail = "1 field is wrong" if len(faults) == 1 else f"{len(faults)} fields are wrong"
        raise InvalidBody(detail, faults) from None


def explain(model: type[BaseModel], fault: Any) -> dict[str, Any]:
    """One of pydantic's findings: where it is, and what is wrong there."""
    match fault["type"]:
        case "missing":
            detail = "is required"
        case "extra_forbidden":
            detail = f"{shorten(fault['loc'][-1])} is not a field here; there are {', '.join(model.model_fields)}"
        case "model_type":
            detail = f"{shorten(fault['input'])} is not an object"
        case _:
            message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
            detail = f"{shorten(fault['input'])}: {message}"
    return {"pointer": pointer(fault["loc"]), "detail": detail}


def described(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a route for the OpenAPI document."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
