"""The ``creditlab`` command. Each role is imported when its command runs, so that ``--help`` is quick."""
# ruff: noqa: PLC0415, FBT002  (see above; flags are keywords on a command line)

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from creditlab import cli_datasets, cli_fleet, cli_jobs, cli_keys, cli_webhooks
from creditlab.shell import INVALID, Json, Spec, fail, load_settings, print_json, print_menu, read_spec

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Credit-assignment methods as a service: DFA and its relatives beside backprop, and how they align.",
)


def main() -> None:
    """Entry point of the ``creditlab`` script. A reader that closes the pipe early is no error."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---- running the service ---------------------------------------------------------------------------------------------


@app.command()
def up(
    host: str = "127.0.0.1",
    port: int = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="default: CREDITLAB_DATA_DIR, else ./.creditlab")] = None,
    workers: Annotated[int, typer.Option(min=1, help="worker processes that share the machine's cores")] = 1,
) -> None:
    """Run broker, API and workers in the foreground; Ctrl-C stops all of them."""
    from creditlab.up import UpError, serve

    if data_dir is not None:
        os.environ["CREDITLAB_DATA_DIR"] = str(data_dir)
    try:
        serve(host, port, load_settings(), workers)
    except UpError as error:
        fail(str(error))


@app.command()
def api(host: str = "127.0.0.1", port: int = 8000) -> None:
    """Run the API alone."""
    become("api", "--host", host, "--port", str(port))


@app.command()
def worker(
    concurrency: Annotated[int | None, typer.Option(min=1, help="jobs trained at the same time")] = None,
    gpus: Annotated[Literal["all", "none"], typer.Option(help="whether to use CUDA devices")] = "all",
) -> None:
    """Run a worker alone."""
    become("worker", "--gpus", gpus, *(("--concurrency", str(concurrency)) if concurrency else ()))


@app.command()
def migrate() -> None:
    """Bring the database's tables to this version."""
    from lab.db import Database
    from lab.errors import LabError

    settings = load_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        database = Database(settings.database_url)
        database.migrate()
        database.dispose()
    except (LabError, ValueError) as error:
        fail(str(error))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at everything that the service needs, and say what to do: exit status 1 where there is a problem."""
    from dataclasses import asdict

    from creditlab.doctor import examine

    found = examine(load_settings())
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            advice = f"\n{'':27}→ {finding.advice}" if finding.advice else ""
            typer.echo(f"{finding.state:8} {finding.check:17} {finding.detail}{advice}")
    raise typer.Exit(any(finding.state == "problem" for finding in found))


# ---- specs -----------------------------------------------------------------------------------------------------------


@app.command()
def validate(spec: Spec, as_json: Json = False) -> None:
    """Check a spec without sending it anywhere, and say what it would cost: exit status 0 valid, 2 invalid."""
    from lab import specs
    from lab.forecast import analytic

    chosen = read_spec(spec, as_json=as_json)
    cost = analytic(specs.resolve(chosen, threads=load_settings().threads))
    if as_json:
        print_json({"valid": True, "spec": specs.to_dict(chosen), "estimate": vars(cost)})
        return
    typer.echo("valid")
    typer.echo(f"parameters    {cost.parameters:,}")
    typer.echo(f"a step        {cost.flops_per_step:,} FLOPs, {cost.peak_memory_bytes:,} bytes at its peak")
    typer.echo(f"training      about {cost.estimated_seconds:.3g} s on a CPU, by arithmetic alone")


@app.command()
def run(
    spec: Spec,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder for weights, metrics, figures, report")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="16 for the seeds 0 to 15, or 3-7; in one computation where that is possible and quicker"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train in this process, without the service, and the controls after it; the numbers are the service's."""
    from creditlab import show

    if seeds is not None:
        run_seeds(spec, seeds, out, as_json=as_json)
        return
    chosen, settings = read_spec(spec), load_settings()
    local = importlib.import_module("creditlab.local")  # torch comes with it
    console = show.console(stderr=as_json)
    try:
        with show.Board(console) as board:
            results = local.run(chosen, settings, board.update, out)
    except local.RunError as error:
        fail(f"{error.code}: {error}")
    if as_json:
        print_json(results[0])
    else:
        show.print_all(console, show.results(results))
        if out:
            console.print(f"report: {out / 'report.html'}", soft_wrap=True)


def run_seeds(file: Spec, seeds: str, out: Path | None, *, as_json: bool) -> None:
    """``run`` with several seeds: exit status 1 where one of them failed."""
    from creditlab import seeds as several
    from creditlab import show

    try:
        wanted = several.parse(seeds)
    except ValueError as error:
        fail(f"--seeds: {error}", status=INVALID)
    chosen, settings = read_spec(file), load_settings()
    local = importlib.import_module("creditlab.local")
    console = show.console(stderr=as_json)
    try:
        with show.Board(console) as board:
            results = local.run_seeds(chosen, wanted, settings, board.update, out)
    except local.RunError as error:
        fail(f"{error.code}: {error}")
    if as_json:
        print_json(results)
    else:
        show.print_all(console, [several.table(results)])
    raise typer.Exit(any(one["status"] == "failed" for one in results))


app.add_typer(cli_jobs.app)
app.add_typer(cli_fleet.app)
app.add_typer(cli_keys.keys, name="keys")
app.add_typer(cli_keys.projects, name="projects")
app.add_typer(cli_webhooks.app, name="webhooks")


# ---- the menu --------------------------------------------------------------------------------------------------------


Name = Annotated[str | None, typer.Argument(help="one of them, with its options")]


@app.command()
def methods(name: Name = None, as_json: Json = False) -> None:
    """List the methods, or show one with its options."""
    print_menu("methods", name, as_json=as_json)


@app.command()
def models(name: Name = None, as_json: Json = False) -> None:
    """List the models, or show one with its options."""
    print_menu("models", name, as_json=as_json)


app.add_typer(cli_datasets.app, name="datasets")


def become(module: str, *arguments: str) -> NoReturn:
    """Turn this process into one of the service's, with its signals and its exit status."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
