"""The commands about data sets: list, show one, send one, delete one."""
# ruff: noqa: FBT002  (flags are keywords on a command line)

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from creditlab.shell import Json, print_json, print_menu, service

Key = Annotated[str, typer.Argument(metavar="NAME", help="name or id of a data set")]


class Menu(TyperGroup):
    """What is no command is the name of a data set: ``creditlab datasets mnist`` shows it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=Menu, help="List the data sets, show one (by its name), send one, delete one.")


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List the data sets, show one (by its name), send one, delete one."""
    if context.invoked_subcommand is None:
        print_menu("datasets", None, as_json=as_json)


@app.command()
def show(name: Key, as_json: Json = False) -> None:
    """Show one with its options; the word show may be left out."""
    print_menu("datasets", name, as_json=as_json)


@app.command()
def upload(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="what it is to be called")],
    description: str | None = None,
    as_json: Json = False,
) -> None:
    """Send one: npz, CIFAR's binary .tar.gz, a zip of class folders, parquet, or four idx files; prints its id."""
    with service() as client:
        told = client.upload_dataset(*files, name=name, description=description)
    print_json(told) if as_json else typer.echo(told["id"])


@app.command()
def delete(name: Key) -> None:
    """Delete one that was sent."""
    with service() as client:
        client.delete_dataset(name)
