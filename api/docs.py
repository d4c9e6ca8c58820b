"""The page at ``/docs``: every operation of the OpenAPI document on one page, without scripts and without a network."""

from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff; }
h2 { font: 600 1rem/1.4 ui-monospace, monospace; border-top: 1px solid #8c959f66; padding-top: 1rem;
     overflow-wrap: anywhere; }
h2 b, a { color: #0550ae; }
h2 b { display: inline-block; min-width: 4rem; }
table { border-collapse: collapse; }
td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
code { font: .9em ui-monospace, monospace; }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117; }
  h2 b, a { color: #79c0ff; }
}
"""


def page(document: dict[str, Any]) -> str:
    """The OpenAPI document as HTML."""
    info = document["info"]
    sections = [
        section(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        f'<p>For machines: <a href="/openapi.json">openapi.json</a></p>{"".join(sections)}</body></html>'
    )


def section(method: str, path: str, operation: dict[str, Any]) -> str:
    """One operation: what it does, what it takes, what it answers."""
    taken = [
        (f"{parameter['name']} ({parameter['in']})", parameter.get("description", ""))
        for parameter in operation.get("parameters", [])
    ]
    if "requestBody" in operation:
        taken.append(("body", "application/json"))
    answers = [(status, answer.get("description", "")) for status, answer in sorted(operation["responses"].items())]
    heading = f"<h2><b>{method.upper()}</b> {escape(path)}</h2>"
    return heading + f"<p>{escape(operation.get('description', ''))}</p>" + table(taken) + table(answers)


def table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{cells}</table>" if cells else ""
