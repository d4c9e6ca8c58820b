"""The commands about the service itself: who works, and what waits."""
# ruff: noqa: PLC0415, FBT002  (imported when its command runs; flags are keywords on a command line)

import socket
from typing import Annotated

import typer

from creditlab.cli_keys import database
from creditlab.shell import Json, fail, print_json, print_table, service
from creditlab.show import JSON

app = typer.Typer()


@app.command()
def workers(as_json: Json = False) -> None:
    """List the workers, the jobs that they train, and their GPUs."""
    with service() as client:
        told = client.workers()
    if as_json:
        print_json(told)
        return
    rows = []
    for worker in told["data"]:
        state = "gone" if not worker["alive"] else "draining" if worker["draining"] else "alive"
        busy = [slot for slot in worker["slots"] if slot["busy"]]
        slots = f"{len(busy)} of {len(worker['slots'])}"
        job_ids = [job_id for slot in busy for job_id in slot["job_ids"]]
        first, *more = [*job_ids, *map(gpu_row, worker["gpus"])] or ["–"]
        beat = worker["last_heartbeat_at"][:19]
        rows.append((worker["id"], worker["host"], worker["version"], state, slots, beat, first))
        rows += [("", "", "", "", "", "", one) for one in more]
    heads = ("worker", "host", "version", "state", "slots in use", "heartbeat (UTC)", "jobs and GPUs")
    print_table(*heads, rows=rows)


def gpu_row(gpu: JSON) -> str:
    """A GPU in a line; what its driver does not tell is left out."""
    parts = [f"GPU {gpu['index']} {gpu['name'] or ''}".strip()]
    if gpu["utilization"] is not None:
        parts.append(f"{100 * gpu['utilization']:.0f} % busy")
    if gpu["memory_total_bytes"]:
        parts.append(f"{gpu['memory_used_bytes'] / 2**30:.1f} of {gpu['memory_total_bytes'] / 2**30:.1f} GiB")
    if gpu["temperature_celsius"] is not None:
        parts.append(f"{gpu['temperature_celsius']} °C")
    if gpu["power_watts"] is not None:
        parts.append(f"{gpu['power_watts']:.0f} W")
    return ", ".join(parts)


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
        (
            one["position"],
            one["job_id"],
            (one["reason"] or "about to start").replace("_", " "),
            one["queued_at"][:19],
            (one["estimated_start_at"] or "–")[:19],
        )
        for one in page["data"]
    ]
    print_table("position", "job", "reason", "queued (UTC)", "starts about (UTC)", rows=rows)
    if page["has_more"]:
        typer.echo(f"more: creditlab queue --after {page['next']}", err=True)


@app.command()
def alive() -> None:
    """Say by the exit status whether a worker of this host beats in the database: a container's health check."""
    from lab import fleet

    with database() as db, db.read() as tx:
        if not fleet.beats(tx, socket.gethostname()):
            fail(f"no worker of {socket.gethostname()} is alive")
