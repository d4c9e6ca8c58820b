"""The commands about keys and projects. They work on the database itself, on the host, and need no key."""
# ruff: noqa: PLC0415, FBT002  (imported when its command runs; flags are keywords on a command line)

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from creditlab.shell import Json, fail, load_settings, print_json, print_table

if TYPE_CHECKING:
    from lab.db import Database

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
BAD_USAGE = 2

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys, on the host of the service.")
projects = typer.Typer(no_args_is_help=True, help="List projects and set their quotas, on the host of the service.")

ProjectName = Annotated[str, typer.Option("--project", help="made if there is none of that name")]
Quota = Annotated[int | None, typer.Option(min=0, help="0: that of the settings again")]


@contextmanager
def database() -> Iterator["Database"]:
    """The service's database, migrated; where it cannot be used, the command ends with a sentence."""
    from lab.db import Database
    from lab.errors import LabError

    try:
        opened = Database(load_settings().database_url)
        if not opened.is_current():
            fail("the tables are not those of this version; run creditlab migrate")
        yield opened
        opened.dispose()
    except LabError as error:
        fail(f"{error.title}: {error.detail}")
    except ValueError as error:
        fail(str(error), status=BAD_USAGE)


# ---- keys ------------------------------------------------------------------------------------------------------------


@keys.command()
def create(
    project: ProjectName = "default",
    scope: Annotated[Literal["read", "write", "admin"], typer.Option(help="each holds those before it")] = "write",
    name: Annotated[str, typer.Option(help="what it is for")] = "made on the host",
    expires: Annotated[str | None, typer.Option(metavar="30d|RFC3339", help="m, h or d from now, or a time")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it: it is stored hashed and cannot be shown again."""
    from lab import keys as lab_keys
    from lab import projects as lab_projects

    with database() as db, db.write() as tx:
        ends = None if expires is None else moment(expires)
        row, secret = lab_keys.create(tx, name, scope, ends, lab_projects.ensure(tx, project).id)
        shown = lab_keys.view(row) | {"key": secret}
    print_json(shown) if as_json else typer.echo(secret)


@keys.command("list")
def list_keys(
    project: Annotated[str | None, typer.Option(help="of this project alone")] = None, as_json: Json = False
) -> None:
    """List all keys, oldest first, without their secrets."""
    from sqlalchemy import select

    from lab import keys as lab_keys
    from lab import tables

    with database() as db, db.read() as tx:
        rows = [lab_keys.view(key) for key in tx.scalars(select(tables.Key).order_by(tables.Key.id))]
    rows = [row for row in rows if project in {None, row["project"]}]
    if as_json:
        print_json({"object": "list", "data": rows, "has_more": False, "next": None})
        return
    moments = ("expires_at", "revoked_at", "last_used_at")
    columns = ("id", "project", "scope", "name", "last4", *(column.removesuffix("_at") for column in moments))
    lines = [
        (
            row["id"],
            row["project"],
            row["scopes"][-1],
            row["name"],
            row["last4"],
            *((row[m] or "")[:10] for m in moments),
        )
        for row in rows
    ]
    print_table(*columns, rows=lines)


@keys.command()
def revoke(key: Annotated[str, typer.Argument(metavar="KEY", help="id of a key")]) -> None:
    """Revoke a key: it opens nothing from the next request on."""
    from lab import keys as lab_keys

    with database() as db, db.write() as tx:
        lab_keys.revoke(tx, key)


def moment(text: str) -> datetime:
    """A time in the future, given as such or from now on. Raises ValueError."""
    span = re.fullmatch(r"(\d{1,6})([mhd])", text, re.ASCII)
    try:
        ends = datetime.now(UTC) + timedelta(**{UNITS[span[2]]: int(span[1])}) if span else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(f"--expires: {text[:100]!r} is neither a span such as 30d nor a time as in RFC 3339") from None
    ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
    if ends <= datetime.now(UTC):
        raise ValueError(f"--expires: {text} is not in the future")
    return ends


# ---- projects --------------------------------------------------------------------------------------------------------


@projects.command("list")
def list_projects(as_json: Json = False) -> None:
    """List the projects with their quotas; empty: that of the settings."""
    from sqlalchemy import select

    from lab import tables

    with database() as db, db.read() as tx:
        found = list(tx.scalars(select(tables.Project).order_by(tables.Project.id)))
    columns = ("queued_jobs", "running_jobs", "stored_bytes", "requests_per_minute")
    rows: list[dict[str, Any]] = [
        {"name": row.id} | {column: getattr(row, column) for column in columns} for row in found
    ]
    if as_json:
        print_json({"object": "list", "data": rows, "has_more": False, "next": None})
        return
    print_table("name", *columns, rows=[tuple("" if v is None else v for v in row.values()) for row in rows])


@projects.command("set")
def set_quotas(
    name: Annotated[str, typer.Argument(metavar="PROJECT", help="made if there is none of that name")],
    queued_jobs: Quota = None,
    running_jobs: Quota = None,
    stored_bytes: Quota = None,
    requests_per_minute: Quota = None,
) -> None:
    """Set quotas of a project; those that are not named stay."""
    from lab import projects as lab_projects

    given = {
        "queued_jobs": queued_jobs,
        "running_jobs": running_jobs,
        "stored_bytes": stored_bytes,
        "requests_per_minute": requests_per_minute,
    }
    with database() as db, db.write() as tx:
        project = lab_projects.ensure(tx, name)
        for quota, value in given.items():
            if value is not None:
                setattr(project, quota, value or None)
