"""The service's menus as text: one table of everything, or one entry with its options."""

import json
from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from creditlab import show

JSON = dict[str, Any]


def methods(rows: list[JSON]) -> Table:
    told = [(row["name"], row["title"], row["flow"], ", ".join(row["needs"]), ", ".join(row["losses"])) for row in rows]
    return show.table("name", "", "flow", "needs", "losses", rows=told)


def models(rows: list[JSON]) -> Table:
    return show.table("name", "", rows=[(row["name"], row["summary"]) for row in rows])


def datasets(rows: list[JSON]) -> Table:
    told = [
        (
            row["name"],
            row["id"] or row["title"] + (" (refused)" if row["refusal"] else " (bundled)" if row["bundled"] else ""),
            " × ".join(map(str, row["shape"])),
            row["classes"],
            row["train_images"],
            row["validation_images"] or "–",
            row["test_images"],
            row["licence"] or ("" if row["id"] else "none stated"),
        )
        for row in rows
    ]
    return show.table("name", "", "shape", "classes", "train", "validation", "test", "licence", rows=told)


def entry(row: JSON) -> list[Table | Text]:
    """One entry of a menu: what is known of it, then its options."""
    facts = show.table("", "", rows=[(name.replace("_", " "), value) for name, value in known(row)])
    facts.show_header = False
    options = list(flat(row["options"], row["options"]))
    shown: list[Table | Text] = [Text(row["summary"]), facts]
    if options:
        shown.append(show.table("option", "default", "allowed", "", rows=options))
    return shown


def known(row: JSON) -> Iterator[tuple[str, str]]:
    for name, value in row.items():
        if name in {"object", "summary", "options"} or value is None:
            continue
        for cited in value if name == "citations" else [value] if name == "citation" else ():
            yield "source", f"{cited['authors']}: {cited['title']}. {cited['venue']}, {cited['year']}. {cited['url']}"
        if name not in {"citation", "citations"}:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def flat(schema: JSON, whole: JSON, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Path, default, what is allowed and meaning of every option of a JSON Schema, nested ones by their path."""
    for name, option in schema.get("properties", {}).items():
        target = resolved(option, whole)
        if "const" in option:
            continue
        if "properties" in target:
            yield from flat(target, whole, f"{path}{name}.")
            continue
        default = json.dumps(option["default"], ensure_ascii=False) if "default" in option else "required"
        text = " ".join(option.get("description", "").split())
        yield path + name, default if len(default) < 40 else "…", allowed(option, whole), text


def allowed(option: JSON, whole: JSON) -> str:
    """``gaussian | uniform``, ``number > 0, ≤ 100``."""
    option = resolved(option, whole)
    if "const" in option:
        return str(option["const"])
    if "enum" in option:
        return " | ".join(map(str, option["enum"]))
    for either in ("anyOf", "oneOf"):
        if either in option:
            return " | ".join(dict.fromkeys(allowed(one, whole) for one in option[either]))
    if "properties" in option:
        return str(option["properties"].get("name", {}).get("const", "object"))
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = ", ".join(f"{sign} {option[bound]:g}" for bound, sign in signs.items() if bound in option)
    inner = f" of {allowed(option['items'], whole)}" if "items" in option else ""
    return " ".join(filter(None, (option.get("type", ""), bounds))) + inner


def resolved(option: JSON, whole: JSON) -> JSON:
    """The part of the schema that an option refers to, or the option itself."""
    reference = option.get("$ref")
    found: JSON = whole["$defs"][reference.rpartition("/")[2]] if reference else option
    return found
