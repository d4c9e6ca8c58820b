"""The OpenAPI document: the framework's, with the job spec from ``credit.spec`` and every error as a problem."""

import json
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api.gate import GATED, scope_for
from api.middleware import WITH_BODY as METHODS_WITH_BODY
from api.schemas import Problem
from credit import spec
from lab import specs
from lab.idempotency import HEADER

SCHEMAS = "#/components/schemas/"
EVERYWHERE = (403, 422, 500, 503)
WITH_BODY = (400, 413, 415)
BARE = {"method": spec.Method, "model": spec.Model, "dataset": spec.Dataset}
SECURITY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "clk_…",
        "description": "An API key, with scopes read ⊂ write ⊂ admin",
    }
}
LIMITS = ("RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
RETRIED = {"429", "503"}
DESCRIBED = {
    "RateLimit-Policy": ("string", 'The limits, as `"burst";q=6000;w=60`: quota and window in seconds'),
    "RateLimit": ("string", 'What is left of them, as `"burst";r=5987;t=12`; absent while the broker is away'),
    "X-RateLimit-Limit": ("integer", "Requests of a minute"),
    "X-RateLimit-Remaining": ("integer", "Requests left in this minute"),
    "X-RateLimit-Reset": ("integer", "Seconds until the next minute"),
    "Retry-After": ("integer", "Seconds"),
    "WWW-Authenticate": ("string", "Bearer"),
    "ETag": ("string", "Of this version; for `If-None-Match` and `If-Match`"),
    "Location": ("string", "Address of what was made"),
    "X-Request-ID": ("string", "The one that was sent, else a new one; the log has it"),
    "Idempotent-Replayed": ("string", "`true` where the answer was given before"),
}
HEADERS = {name: {"description": text, "schema": {"type": kind}} for name, (kind, text) in DESCRIBED.items()}
SPEC_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": f"{SCHEMAS}JobCreate"},
                "examples": {
                    "three names": {"value": {"method": "dfa", "model": "mlp", "dataset": "fashion-mnist-mini"}},
                    "with controls": {
                        "value": {
                            "method": {"name": "dfa", "feedback": {"kind": "unified"}},
                            "model": {"name": "mlp", "hidden": [800, 800, 800]},
                            "dataset": {"name": "fashion-mnist-mini", "train_samples": 4000},
                            "training": {"epochs": 5, "seed": 0},
                            "controls": ["bp", "shallow"],
                        }
                    },
                },
            }
        },
    }
}


IF_MATCH = {
    "parameters": [
        {
            "name": "If-Match",
            "in": "header",
            "required": True,
            "schema": {"type": "string"},
            "description": "The ETag that was read; `*` for any",
        }
    ]
}
"""Of changes: asked for by ``api.etags.expected``, so that it can say 428 where there is none."""

UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "name"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "maxItems": 4,
                            "description": "One file, or the four of an idx set",
                        },
                        "name": {"type": "string", "pattern": "^(?!ds_)[a-z0-9][a-z0-9._-]{0,63}$"},
                        "description": {"type": "string", "maxLength": 2000},
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may fail with these, besides what every route may."""
    return {status: {"description": HTTPStatus(status).phrase} for status in statuses}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = made["components"]["schemas"]
        for of_the_framework in ("HTTPValidationError", "ValidationError"):
            schemas.pop(of_the_framework, None)
        schemas |= spec_schemas()
        schemas["Problem"], schemas["Fault"] = problem_schemas()
        for shown in ("Job", "Estimate"):
            schemas[shown]["properties"]["spec"] = {"$ref": f"{SCHEMAS}Spec"}
        for path, operations in made["paths"].items():
            for method, operation in operations.items():
                if path.startswith(f"{GATED}/"):
                    document_gate(operation)
                    if app.state.settings.auth == "required":
                        document_key(method, path, operation)
                document_errors(method, operation)
                document_headers(operation)
        document_links(made["paths"])
        if app.state.settings.auth == "required":
            made["components"]["securitySchemes"] = SECURITY
        made["components"]["headers"] = HEADERS
        app.openapi_schema = made
    return app.openapi_schema


def operation_id(route: APIRoute) -> str:
    """What generated clients call an operation: the subject and what is done, ``jobs_create``."""
    subject = route.endpoint.__module__.rpartition(".")[2]
    return f"{subject}_{route.name.removesuffix(f'_{subject}').removesuffix(f'_{subject[:-1]}')}"


def document_links(paths: dict[str, Any]) -> None:
    """From what was made to every operation on it, by its id."""
    for collection, operations in paths.items():
        made = operations.get("post", {}).get("responses", {})
        for path, below in paths.items():
            names = re.findall("{(.+?)}", path)
            if not path.startswith(f"{collection}/{{") or len(names) > 1:
                continue
            for operation in below.values():
                link = {"operationId": operation["operationId"], "parameters": {names[0]: "$response.body#/id"}}
                for status in {"201", "202"} & set(made):
                    made[status].setdefault("links", {})[operation["operationId"]] = link


def document_gate(operation: dict[str, Any]) -> None:
    """Behind the gate requests are counted."""
    operation["responses"].setdefault(str(int(HTTPStatus.TOO_MANY_REQUESTS)), {})
    for response in operation["responses"].values():
        reference(response, *LIMITS)


def document_key(method: str, path: str, operation: dict[str, Any]) -> None:
    """A key is asked for, before requests are counted."""
    operation["security"] = [{"key": [scope_for(method.upper(), path)]}]
    operation["responses"].setdefault(str(int(HTTPStatus.UNAUTHORIZED)), {})


def document_headers(operation: dict[str, Any]) -> None:
    """The headers that answers of a status have, whatever the operation."""
    takes_key = any(one["name"] == HEADER for one in operation.get("parameters", ()))
    for status, response in operation["responses"].items():
        reference(response, "X-Request-ID")
        if status == "200" and {"304", "412"} & set(operation["responses"]):
            reference(response, "ETag")
        if status == "201":
            reference(response, "ETag", "Location")
        if status in RETRIED:
            reference(response, "Retry-After")
        if status == str(HTTPStatus.UNAUTHORIZED):
            reference(response, "WWW-Authenticate")
        if takes_key and int(status) < HTTPStatus.BAD_REQUEST:
            reference(response, "Idempotent-Replayed")


def reference(response: dict[str, Any], *names: str) -> None:
    for name in names:
        response.setdefault("headers", {})[name] = {"$ref": f"#/components/headers/{name}"}


def document_errors(method: str, operation: dict[str, Any]) -> None:
    """Every status from 400 up is a problem document."""
    responses = operation["responses"]
    for status in EVERYWHERE + (WITH_BODY if method.upper() in METHODS_WITH_BODY else ()):
        responses.setdefault(str(status), {})
    for status, response in responses.items():
        if int(status) >= HTTPStatus.BAD_REQUEST:
            response["description"] = HTTPStatus(int(status)).phrase
            response["content"] = {"application/problem+json": {"schema": {"$ref": f"{SCHEMAS}Problem"}}}


def problem_schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    schema = Problem.model_json_schema(ref_template=SCHEMAS + "{model}")
    fault = schema.pop("$defs")["Fault"]
    return schema, fault


def spec_schemas() -> dict[str, Any]:
    """``Spec`` as it is answered, ``JobCreate`` as it may be sent, and their parts, ``Spec…``."""
    spec_schema = json.loads(json.dumps(specs.schema(spec.Run)).replace("#/$defs/", f"{SCHEMAS}Spec"))
    parts = {f"Spec{name}": with_name(part) for name, part in spec_schema.pop("$defs").items()}
    shorthand = dict(spec_schema["properties"])
    for name, union in BARE.items():
        bare: dict[str, Any] = {
            "type": "string",
            "enum": list(spec.menu(union)),
            "description": "The name alone: everything else by default",
        }
        if name == "dataset":
            bare = {"anyOf": [bare, {"type": "string", "description": "The id or name of a data set that was sent"}]}
        shorthand[name] = {"anyOf": [bare, shorthand[name]]}
    create = {**spec_schema, "title": "JobCreate", "properties": shorthand}
    return parts | {"Spec": {**spec_schema, "title": "Spec"}, "JobCreate": create}


def with_name(part: dict[str, Any]) -> dict[str, Any]:
    """The schema of a part that is told by its name, which therefore has to be given."""
    if part.get("title") == spec.Uploaded.__name__:  # the service fills in what it knows of it
        name = {**part["properties"]["name"], "not": {"enum": list(spec.menu(spec.Dataset))}}
        return {**part, "properties": {**part["properties"], "name": name}, "required": ["name"]}
    if "const" not in part["properties"].get("name", {}):
        return part
    return {**part, "required": ["name", *part.get("required", [])]}
