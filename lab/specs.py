"""JSON to ``credit.spec.Run`` and back; every wrong field is named by its JSON pointer, with what is allowed there."""

import difflib
import functools
import json
import secrets
import threading
import types
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from hashlib import sha256 as sha256_of
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types as marks
import rfc8785
from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import DataclassSchema

from credit import spec
from lab.errors import InvalidSpec
from lab.strict_json import pointer

MAX_ERRORS = 50
MAX_ECHO = 100
BARE = ("method", "model", "dataset")
SAFE_INTEGER = 2**53

Path = tuple[str | int, ...]


def parse(body: Any) -> spec.Run:
    """The run that a JSON value asks for. ``method``, ``model`` and ``dataset`` may be bare names.

    Raises:
        InvalidSpec: with a pointer to each wrong field.
    """
    if not isinstance(body, dict):
        raise InvalidSpec([{"pointer": "#", "detail": f"{show(body)} is not an object"}])
    bare = {name for name in BARE if isinstance(body.get(name), str)}
    expanded = {name: {"name": value} if name in bare else value for name, value in body.items()}
    try:
        return from_dict(expanded)
    except ValidationError as error:
        faults: dict[str, dict[str, Any]] = {}
        for details in error.errors(include_url=False):
            path, fault = explain(details)
            at = pointer(path[:1] if path and path[0] in bare else path)
            if details["type"] == "too_short" and any(known.startswith(f"{at}/") for known in faults):
                continue  # pydantic counts the items that are right
            faults.setdefault(at, {"pointer": at} | fault)  # branches of one union fail at one pointer
        raise InvalidSpec(list(faults.values())[:MAX_ERRORS]) from None


def resolve(run: spec.Run, *, threads: int, seed: int | None = None) -> spec.Run:
    """The run with nothing left to chance or to the host: seed drawn, threads filled in."""
    training = run.training
    if training.seed is None:
        training = replace(training, seed=secrets.randbelow(2**32) if seed is None else seed)
    if training.threads is None:
        training = replace(training, threads=threads)
    return replace(run, training=training)


def to_dict(run: spec.Run) -> dict[str, Any]:
    """The spec as JSON values, every default written out."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(run)))
    return values


def from_dict(values: dict[str, Any]) -> spec.Run:
    """The run that ``to_dict`` wrote. Raises pydantic's ValidationError."""
    run: spec.Run = adapter(spec.Run).validate_json(json.dumps(values))
    return run


def sha256(run: spec.Run) -> str:
    """SHA-256 of the canonical JSON (RFC 8785) of the spec; integers from 2⁵³ on, which it cannot write, as text."""
    return sha256_of(rfc8785.dumps(canonical(asdict(run)))).hexdigest()


def schema(cls: Any) -> dict[str, Any]:
    """JSON Schema of one spec class."""
    return adapter(cls).json_schema(schema_generator=Described)


class Described(GenerateJsonSchema):
    """Describes an option that a spec inherits as the class does that it comes from."""

    def dataclass_schema(self, schema: DataclassSchema) -> dict[str, Any]:
        made = super().dataclass_schema(schema)
        for base in schema["cls"].__mro__[1:]:
            for name, option in adapter(base).json_schema().get("properties", {}).items() if is_dataclass(base) else ():
                if "description" in option:
                    made["properties"][name].setdefault("description", option["description"])
        return made


def adapter(cls: Any) -> TypeAdapter[Any]:
    """Built at first need, by one thread at a time: two that compile so deep trees at once end in a SystemError."""
    with _building:
        return _adapter(cls)


_building = threading.Lock()


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: canonical(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= SAFE_INTEGER:
        return str(value)
    return value


# ---- errors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What a field takes: its annotation, split into the type and the marks on it."""

    type: Any
    limits: tuple[Any, ...] = ()
    by_name: bool = False

    @classmethod
    def of(cls, annotation: Any) -> "Kind":
        if get_origin(annotation) is not Annotated:
            return cls(annotation)
        inner, *metadata = get_args(annotation)
        return cls(inner, tuple(metadata), any(isinstance(mark, spec.ByName) for mark in metadata))

    def inner(self) -> "Kind":
        """The spec class where the kind is one or null, else the kind itself: null adds no step to a location."""
        leaves = [leaf for leaf in self.branches() if leaf.type is not types.NoneType]
        return leaves[0] if len(leaves) == 1 and is_dataclass(leaves[0].type) else self

    def branches(self) -> list["Kind"]:
        """The members of a union, else the kind alone."""
        if get_origin(self.type) not in {Union, types.UnionType}:
            return [self]
        return [leaf for member in get_args(self.type) for leaf in Kind.of(member).branches()]


def explain(error: ErrorDetails) -> tuple[Path, dict[str, Any]]:
    """Where a pydantic error is, without the names of union branches, and what to say about it."""
    path, kind, field = locate(error["loc"])
    names = choices(kind)
    match error["type"]:
        case "value_error":  # raised by a spec's own __post_init__
            fault = error["ctx"]["error"]
            inner = fault.pointer.split("/")[1:] if isinstance(fault, spec.Incompatible) else []
            return (*path, *inner), {"detail": str(fault)}
        case "union_tag_invalid":
            path, said = (*path, "name"), f"is not {a(field)}{suggestion(error['ctx']['tag'], names)}"
            return path, {"detail": f"{show(error['ctx']['tag'])} {said}"} | names
        case "union_tag_not_found":
            path, said = (*path, "name"), f"required: the {field}'s name, one of {listed(names)}"
            return path, {"detail": said} | names
        case "unexpected_keyword_argument":
            names = {"allowed": known_fields(error["loc"])}
            return path, {"detail": f"{show(path[-1])} is not a field here{suggestion(path[-1], names)}"} | names
        case "missing":
            return path, {"detail": f"required: {describe(kind, field)}"} | names
    return path, {"detail": f"{show(error['input'])} {misfit(error, kind, field)}"} | names


def misfit(error: ErrorDetails, kind: Kind, field: str) -> str:
    """Why a value of a known field does not fit."""
    if error["type"] in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        return "is out of range: " + " or ".join(filter(None, (bounds(leaf, field) for leaf in kind.branches())))
    if error["type"] in {"too_long", "too_short", "string_too_long", "string_too_short"}:
        return f"has the wrong length: {describe(kind, field)}"
    hint = "" if kind.by_name else suggestion(error["input"], choices(kind))
    return f"is not {describe(kind, field)}{hint}"


def locate(location: tuple[str | int, ...]) -> tuple[Path, Kind, str]:
    """Follow pydantic's location through the types: the path in the JSON, the kind at its end, the field's name."""
    path: list[str | int] = []
    kind, field, rest = Kind(spec.Run), "spec", list(location)
    while rest:
        step, kind = rest.pop(0), kind.inner()
        if kind.by_name:
            kind = Kind(spec.tagged(kind_union(kind))[str(step)])
        elif is_dataclass(kind.type):
            hints = get_type_hints(kind.type, include_extras=True)
            kind, field = Kind.of(hints.get(str(step), Any)), str(step)
            path.append(step)
        elif get_origin(kind.type) is tuple:
            kind = Kind.of(get_args(kind.type)[0])
            field = field.removesuffix("s") if kind.by_name else field
            path.append(step)
        elif get_origin(kind.type) is dict:
            of_key = rest[:1] == ["[key]"]
            kind, rest = Kind.of(get_args(kind.type)[0 if of_key else 1]), rest[of_key:]
            path.append(step)
        # else: the name of a branch of a plain union, which is no place in the JSON
    return tuple(path), kind, field


def kind_union(kind: Kind) -> Any:
    return Annotated[kind.type, spec.ByName()]


def known_fields(location: tuple[str | int, ...]) -> list[str]:
    _, kind, _ = locate(location[:-1])
    return [member.name for member in fields(kind.inner().type)]


def describe(kind: Kind, field: str) -> str:
    """What a field takes, in words."""
    if kind.by_name:
        return f'an object with the "name" of {a(field)}, one of {listed(choices(kind))}'
    return " or ".join(dict.fromkeys(describe_one(leaf, field) for leaf in kind.branches()))


def describe_one(kind: Kind, field: str) -> str:
    if get_origin(kind.type) is Literal:
        return f"one of {listed(choices(kind))}"
    if get_origin(kind.type) is tuple:
        return f"a list{lengths(kind, 'items')}, each {describe(Kind.of(get_args(kind.type)[0]), field)}"
    if get_origin(kind.type) is dict:
        return f"an object{lengths(kind, 'members')}, each a text"
    if is_dataclass(kind.type):
        return "an object"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}
    limits = bounds(kind, field)
    return words[kind.type] + lengths(kind, "characters") + (f" ({limits})" if limits else "")


def bounds(kind: Kind, field: str) -> str:
    """The range of a number: ``0 < lr <= 100``; empty where there is none."""
    low = high = ""
    for limit in kind.limits:
        if isinstance(limit, marks.Gt | marks.Ge):
            low = f"{limit.gt} < " if isinstance(limit, marks.Gt) else f"{limit.ge} <= "
        if isinstance(limit, marks.Lt | marks.Le):
            high = f" < {limit.lt}" if isinstance(limit, marks.Lt) else f" <= {limit.le}"
    return f"{low}{field}{high}" if low or high else ""


def lengths(kind: Kind, unit: str) -> str:
    least = max((limit.min_length for limit in kind.limits if isinstance(limit, marks.MinLen)), default=0)
    most = [limit.max_length for limit in kind.limits if isinstance(limit, marks.MaxLen)]
    if not most:
        return ""
    return f" of {least} to {most[0]} {unit}" if least else f" of at most {most[0]} {unit}"


def choices(kind: Kind) -> dict[str, list[Any]]:
    """``{"allowed": …}`` where a field takes one of a list of names."""
    if kind.by_name:
        return {"allowed": list(spec.menu(kind_union(kind)))}
    literals = [value for leaf in kind.branches() if get_origin(leaf.type) is Literal for value in get_args(leaf.type)]
    return {"allowed": literals} if literals else {}


def suggestion(given: Any, names: dict[str, list[Any]]) -> str:
    """``; did you mean …?`` where a text is close to an allowed name."""
    if not isinstance(given, str):
        return ""
    near = difflib.get_close_matches(given[:MAX_ECHO], [str(name) for name in names.get("allowed", [])], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def listed(names: dict[str, list[Any]]) -> str:
    return ", ".join(str(name) for name in names["allowed"])


def show(value: Any) -> str:
    """A value as it may be echoed: JSON, texts in quotes, at most 100 characters."""
    text = repr(value[: MAX_ECHO + 1]) if isinstance(value, str) else json.dumps(value, default=repr)
    text = text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
    return text if len(text) <= MAX_ECHO else text[: MAX_ECHO - 1] + "…"
