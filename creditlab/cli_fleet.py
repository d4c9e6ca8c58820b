"""The commands about the service itself: who works, and what waits."""
# ruff: noqa: PLC0415, FBT002  (imported when its command runs; flags are keywords on a command line)

import socket
from typing import Annotated

import typer

from creditlab.cli_keys import database
from creditlab.shell import Json, fail, print_json, print_table, service

app = typer.Typer()


@app.command()
def workers(as_json: Json = False) -> None:
    """List the workers and the jobs that they train."""
    with service() as client:
        told = client.workers()
    if as_json:
        print_json(told)
        return
    rows = []
    for worker in told["data"]:
        state = "gone" if not worker["alive"] else "draining" if worker["draining"] else "alive"
        busy = [slot["job_id"] for slot in worker["slots"] if slot["job_id"]]
        slots = f"{len(busy)} of {len(worker['slots'])}"
        rows.append(
            (worker["id"], worker["host"], worker["version"], state, slots, worker["last_heartbeat_at"][:19], *busy[:1])
            + (() if busy else ("–",))
        )
        rows += [("", "", "", "", "", "", job_id) for job_id in busy[1:]]
    print_table("worker", "host", "version", "state", "slots in use", "heartbeat (UTC)", "jobs", rows=rows)


@app.command()
def queue(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="only this job")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option(help="cursor that the page before ended with")] = None,
    as_json: Json = False,
) -> None:
    """List the jobs that wait, in the order in which they will be trained, and why they wait."""
    with service() as client:
        page = client.queue(job=job, limit=limit, after=after)
    if as_json:
        print_json(page)
        return
    rows = [
        (one["position"], one["job_id"], (one["reason"] or "about to start").replace("_", " "), one["queued_at"][:19])
        for one in page["data"]
    ]
    print_table("position", "job", "reason", "queued (UTC)", rows=rows)
    if page["has_more"]:
        typer.echo(f"more: creditlab queue --after {page['next']}", err=True)


@app.command()
def alive() -> None:
    """Say by the exit status whether a worker of this host beats in the database: a container's health check."""
    from lab import fleet

    with database() as db, db.read() as tx:
        if not fleet.beats(tx, socket.gethostname()):
            fail(f"no worker of {socket.gethostname()} is alive")
