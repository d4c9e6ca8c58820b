"""What the commands share: reading specs, reaching the service, printing, failing with a sentence."""
# ruff: noqa: PLC0415  (what a command does not need is not imported, so that it starts quickly)

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from credit.spec import Run
    from creditlab.client import Client
    from lab.settings import Settings

INVALID = 2

Spec = Annotated[typer.FileBinaryRead, typer.Argument(metavar="SPEC|-", help="a job spec in JSON; - is standard input")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="id of a job")]
Json = Annotated[bool, typer.Option("--json", help="print the API's own JSON")]


@contextmanager
def service() -> Iterator["Client"]:
    """A client of the service that the settings name; its errors end the command with a sentence."""
    from creditlab.client import ApiError, Client, Retries, Unreachable

    settings = load_settings()
    try:
        with Client(settings.api_url, settings.api_key, retries=Retries(times=2, longest=5.0)) as client:
            yield client
    except ApiError as error:
        fail(str(error), error.problem.get("errors", ()), status=INVALID if error.code == "invalid_spec" else 1)
    except Unreachable as error:
        fail(f"{error}; start one by `creditlab up`, or set CREDITLAB_API_URL")


def read_json(file: Any) -> Any:
    """The JSON of a file or of standard input."""
    from lab import strict_json
    from lab.errors import LabError

    try:
        return strict_json.loads(file.read())
    except LabError as error:
        fail(error.title, error.extra.get("errors", ()), status=INVALID)


def read_spec(file: Any, *, as_json: bool = False) -> "Run":
    """The run that a file asks for; if it is none, the command ends with each error and its pointer."""
    from lab import specs
    from lab.errors import InvalidSpec

    try:
        return specs.parse(read_json(file))
    except InvalidSpec as error:
        if as_json:
            print_json({"valid": False, "errors": error.extra["errors"]})
        fail(f"{error.title}: {error.detail}", error.extra["errors"], status=INVALID)


def load_settings() -> "Settings":
    """The settings of this process; where they are wrong, the command ends."""
    from lab.settings import Settings

    try:
        return Settings.load()
    except ValueError as error:
        fail(f"the settings are wrong: {error}", status=INVALID)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(*heads: str, rows: list[tuple[Any, ...]]) -> None:
    from creditlab import show

    show.console().print(show.table(*heads, rows=rows))


def print_menu(kind: Literal["methods", "models", "datasets"], name: str | None, *, as_json: bool) -> None:
    """Print one of the service's menus, or one entry of it by its name or id."""
    with service() as client:
        whole = getattr(client, kind)()
    rows = {row["name"]: row for row in whole["data"]}
    by_id = {row["id"]: row for row in whole["data"] if row.get("id")}
    if name is not None and name not in rows | by_id:
        fail(f"{name!r} is none of the {kind}; there are {', '.join(rows)}")
    if as_json:
        print_json((rows | by_id)[name] if name else whole)
        return
    from creditlab import menu, show

    out = show.console()
    if name:
        show.print_all(out, menu.entry((rows | by_id)[name]))
    else:
        out.print(getattr(menu, kind)(whole["data"]))


def fail(message: str, errors: Any = (), *, status: int = 1) -> NoReturn:
    """End the command with a message, and with a line for each error of a body."""
    typer.echo(message, err=True)
    for error in errors:
        place = error.get("pointer") or error.get("parameter") or error.get("header", "")
        typer.echo(f"  {place}: {error['detail']}", err=True)
    raise typer.Exit(status)
