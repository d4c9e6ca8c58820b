"""The commands about the jobs of a service."""
# ruff: noqa: PLC0415, FBT002  (imported when its command runs; flags are keywords on a command line)

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from creditlab.shell import Job, Json, Spec, fail, print_json, print_table, read_json, service

if TYPE_CHECKING:
    from creditlab.client import Client

EXITS = {"succeeded": 0, "failed": 1, "cancelled": 3}
TIMED_OUT = 4
POLL_SECONDS = 1.0

app = typer.Typer()


@app.command()
def submit(
    spec: Spec, wait: Annotated[bool, typer.Option("--wait", help="until it has ended")] = False, as_json: Json = False
) -> None:
    """Send a job; prints its id. With --wait, the exit status is that of `creditlab wait`."""
    body = read_json(spec)
    with service() as client:
        job = client.submit(body)
        print_json(job) if as_json and not wait else typer.echo(job["id"], err=as_json)
        if wait:
            await_end(client, job["id"], None, as_json=as_json)


@app.command()
def wait(
    job: Job,
    timeout: Annotated[float | None, typer.Option(min=0, help="seconds")] = None,
    as_json: Json = False,
) -> None:
    """Wait until a job has ended: exit status 0 succeeded, 1 failed, 3 cancelled, 4 timed out."""
    with service() as client:
        await_end(client, job, timeout, as_json=as_json)


@app.command("list")
def list_(
    status: Annotated[list[str] | None, typer.Option(help="may be given more than once")] = None,
    method: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    label: Annotated[list[str] | None, typer.Option(help="key:value; may be given more than once")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option(help="cursor that the page before ended with")] = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    filters = {"status": status, "method": method, "model": model, "dataset": dataset, "label": label}
    with service() as client:
        page = client.page(limit=limit, after=after, **filters)
    if as_json:
        print_json(page)
        return
    rows = []
    for job in page["data"]:
        method, dataset = job["spec"]["method"]["name"], job["spec"]["dataset"]["name"]
        rows.append((job["id"], job["status"], method, dataset, job["created_at"][:19], job["name"] or ""))
    print_table("job", "status", "method", "data set", "created (UTC)", "name", rows=rows)
    if page["has_more"]:
        typer.echo(f"more: creditlab list --after {page['next']}", err=True)


@app.command()
def show(job: Job, as_json: Json = False) -> None:
    """Show where a job is."""
    with service() as client:
        told = client.get(job)
    if as_json:
        print_json(told)
        return
    from creditlab.show import standing

    spec, twins = told["spec"], [f"{twin['method']} {twin['job_id']}" for twin in told["twins"]]
    rows = [("id", told["id"]), ("name", told["name"] or "–"), ("status", standing(told)),
            ("trains", f"{spec['method']['name']}, {spec['model']['name']}, {spec['dataset']['name']}"),
            ("seed", spec["training"]["seed"]), ("attempt", told["attempt"]), ("created", told["created_at"]),
            ("started", told["started_at"] or "–"), ("finished", told["finished_at"] or "–"),
            ("twins", ", ".join(twins) or "–")]  # fmt: skip
    print_table("", "", rows=rows)


@app.command()
def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="until the job has ended")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="begin with the last so many lines")] = None,
    as_json: Json = False,
) -> None:
    """Print what happened to a job; with --json one event per line."""

    def show_event(event: dict[str, Any]) -> None:
        line = f"{event['at'][:19]}Z {event['level']:7} {event['message']}"
        typer.echo(json.dumps(event) if as_json else line)

    with service() as client:
        known = list(client.events(job))
        for event in known if tail is None else known[len(known) - min(tail, len(known)) :]:
            show_event(event)
        if follow:
            for event in client.stream(job, after_seq=known[-1]["seq"] if known else 0):
                show_event(event)


@app.command()
def metrics(
    job: Job,
    series: Annotated[str, typer.Option(help="names, separated by commas; default: all")] = "",
    from_step: int | None = None,
    to_step: int | None = None,
    max_points: Annotated[int | None, typer.Option(min=1, help="per series; minima and maxima are kept")] = None,
    as_json: Json = False,
) -> None:
    """Print metric points, tab-separated: series, layer, step, epoch, value."""
    names = [name for name in series.split(",") if name]
    with service() as client:
        told = client.metrics(job, names, from_step=from_step, to_step=to_step, max_points=max_points)
    if as_json:
        print_json(told)
        return
    typer.echo("series\tlayer\tstep\tepoch\tvalue")
    for one in told["series"]:
        for step, epoch, value in one["points"]:
            typer.echo(f"{one['name']}\t{one['layer'] or ''}\t{step}\t{epoch}\t{'' if value is None else value}")


@app.command()
def results(job: Job, as_json: Json = False) -> None:
    """Show accuracy, cost and alignment of a job, beside those of its twins."""
    from creditlab import show

    with service() as client:
        own = client.results(job)
        twins = [] if as_json else [client.results(twin["job_id"]) for twin in own["pairing"]["twins"]]
    if as_json:
        print_json(own)
    else:
        show.print_all(show.console(), show.results([own, *twins]))


@app.command()
def cancel(job: Job, as_json: Json = False) -> None:
    """Cancel a job; its training process ends."""
    with service() as client:
        tell(client.cancel(job), as_json=as_json)


@app.command()
def pause(job: Job, as_json: Json = False) -> None:
    """Have a job store its state and rest; it holds no worker then."""
    with service() as client:
        tell(client.pause(job), as_json=as_json)


@app.command()
def resume(job: Job, as_json: Json = False) -> None:
    """Let a paused job go on where it was."""
    with service() as client:
        tell(client.resume(job), as_json=as_json)


@app.command()
def retry(job: Job, as_json: Json = False) -> None:
    """Try a failed or cancelled job once more, from its last checkpoint."""
    with service() as client:
        tell(client.retry(job), as_json=as_json)


def tell(job: dict[str, Any], *, as_json: bool) -> None:
    print_json(job) if as_json else typer.echo(job["status"])


@app.command()
def artifacts(
    job: Job,
    download: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="fetch all files into it")
    ] = None,
    as_json: Json = False,
) -> None:
    """List a job's files, or fetch them."""
    with service() as client:
        told = client.artifacts(job)
        if download:
            download.mkdir(parents=True, exist_ok=True)
            for artifact in told["data"]:
                if not artifact.get("expired"):
                    client.download(job, artifact["name"], download)
    if as_json:
        print_json(told)
    else:
        heads = ("name", "bytes", "sha256", "kept until")
        rows = [(one["name"], one["size"], one["sha256"], kept_until(one)) for one in told["data"]]
        print_table(*heads, rows=rows)


def kept_until(artifact: dict[str, Any]) -> str:
    return "expired" if artifact.get("expired") else artifact.get("expires_at") or ""


@app.command()
def report(
    job: Job, out: Annotated[Path, typer.Option(dir_okay=False, metavar="FILE", help="the HTML file to write")]
) -> None:
    """Write the report of a job and its twins as one HTML page."""
    from credit.report import write

    with service() as client:
        own = client.record(job)
        twins = [client.record(twin["job_id"]) for twin in own["results"]["pairing"]["twins"]]
    write(out, [own, *twins])
    typer.echo(str(out))


def await_end(client: "Client", job_id: str, timeout: float | None, *, as_json: bool) -> NoReturn:
    """Show the job's progress until it has ended, and leave with the status that says how."""
    from creditlab import show

    deadline = float("inf") if timeout is None else time.monotonic() + timeout
    with show.Board(show.console(stderr=as_json)) as board:
        while True:
            job = client.get(job_id, wait=max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))
            board.update(job)
            if job["status"] in EXITS or time.monotonic() >= deadline:
                break
    if as_json:
        print_json(job)
    if job["status"] not in EXITS:
        fail(f"{job_id} is {job['status']} after {timeout:g} s", status=TIMED_OUT)
    raise typer.Exit(EXITS[job["status"]])
