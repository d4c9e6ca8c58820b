"""What can be trained: methods and models."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from fastapi import APIRouter

from api import catalog
from api.deps import STRICT
from api.openapi import problems
from api.problems import NotFound, shorten
from api.schemas import Method, MethodList, ModelList
from credit import spec

router = APIRouter(tags=["catalogue"], dependencies=STRICT)


@router.get("/v1/methods", response_model=MethodList)
async def list_methods() -> Any:
    """Credit-assignment methods: equation, citations, what each needs and trains, and its options as JSON Schema."""
    return listed(catalog.method(name) for name in spec.menu(spec.Method))


@router.get("/v1/methods/{name}", response_model=Method, responses=problems(404))
async def show_method(name: str) -> Any:
    """One method."""
    return catalog.method(known(name, spec.Method, "method"))


@router.get("/v1/models", response_model=ModelList)
async def list_models() -> Any:
    """Models, each with its options as JSON Schema."""
    return listed(catalog.model(name) for name in spec.menu(spec.Model))


def listed(rows: Iterable[Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(rows), "has_more": False, "next": None}


def known(name: str, union: Any, what: str) -> str:
    """The name, if the menu has it.

    Raises:
        NotFound: with the nearest name there is.
    """
    names = list(spec.menu(union))
    if name not in names:
        near = get_close_matches(name[:100], names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise NotFound(f"{shorten(name)} is not a {what}; {hint}")
    return name
