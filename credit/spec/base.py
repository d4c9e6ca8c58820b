"""What every part of a spec is made of: ranges, strictness, and unions told apart by name."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args

from annotated_types import Ge, Gt, Le, Lt

MAX_SEED = 2**63 - 1

Seed = Annotated[int, Ge(0), Le(MAX_SEED)]
Positive = Annotated[float, Gt(0), Le(1e6)]
Rate = Annotated[float, Gt(0), Le(100)]
Probability = Annotated[float, Ge(0), Lt(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Width = Annotated[int, Ge(1), Le(65_536)]
Count = Annotated[int, Ge(1), Le(10_000_000)]


class Incompatible(ValueError):  # noqa: N818  (it names what the parts are, not that an error happened)
    """Parts of a spec that are right alone and wrong together.

    Attributes:
        pointer: JSON pointer (RFC 6901, without ``#``) of the field to change.
    """

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of every part of a spec: strict types, no unknown fields, no NaN."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }


class ByName:
    """Marks a union of specs that are told apart by their ``name``.

    Speaks pydantic's protocol without importing it, so that the JSON layer reports an unknown name once, with the
    names there are, instead of one error per member of the union. One member may have many names instead of one: all
    that begin with its ``prefix``, by which it is known then.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        choices = {_tag(member): handler.generate_schema(member) for member in get_args(source)}
        tells = _told_by(choices) if any(_is_open(member) for member in get_args(source)) else "name"
        return {"type": "tagged-union", "discriminator": tells, "choices": choices}


def menu(union: Any) -> dict[str, type[Spec]]:
    """The members of a ``ByName`` union by name: ``menu(Method)["dfa"] is DFA``; those of many names left out."""
    return {member.name: member for member in get_args(get_args(union)[0]) if not _is_open(member)}


def tagged(union: Any) -> dict[str, type[Spec]]:
    """All members of a ``ByName`` union by what they are told by: a name, or a prefix of names."""
    return {_tag(member): member for member in get_args(get_args(union)[0])}


def member(union: Any, name: str) -> type[Spec]:
    """The member of a ``ByName`` union that a name belongs to. Raises KeyError."""
    members = tagged(union)
    return members[_tag_of(name, members)]


def _tag_of(name: str, tags: Collection[str]) -> str:
    """The name, or the prefix that it begins with, where that is a tag."""
    prefix = name[: name.find("_") + 1]
    return prefix if prefix in tags else name


def _is_open(member: Any) -> bool:
    return not hasattr(member, "name")


def _tag(member: Any) -> str:
    tag: str = member.prefix if _is_open(member) else member.name
    return tag


def _told_by(choices: Collection[str]) -> Callable[[Any], str | None]:
    """What finds the tag of a JSON object: its name or the prefix of it; None where it has no name."""

    def tag(values: Any) -> str | None:
        if not isinstance(values, dict) or "name" not in values:
            return None
        return _tag_of(str(values["name"]), choices)

    return tag
