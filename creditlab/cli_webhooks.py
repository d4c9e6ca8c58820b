"""The commands about webhooks: who is told of what happens to jobs."""
# ruff: noqa: FBT002  (flags are keywords on a command line)

from typing import Annotated, Any

import typer

from creditlab.shell import Json, print_json, print_table, service
from creditlab.show import JSON

app = typer.Typer(no_args_is_help=True, help="List, make, delete and try out webhooks, and see what was sent.")

Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="id of a webhook")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the webhooks, newest first."""
    with service() as client:
        told = client.webhooks()
    if as_json:
        print_json(told)
        return
    rows = [
        (hook["id"], "enabled" if hook["enabled"] else hook["disabled_reason"], hook["url"], " ".join(hook["types"]))
        for hook in told["data"]
    ]
    print_table("webhook", "state", "url", "types", rows=rows)


@app.command()
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://… at a public address")],
    types: Annotated[
        list[str] | None, typer.Option("--type", help="such as job.failed; may be given more than once; default: all")
    ] = None,
    description: str | None = None,
    as_json: Json = False,
) -> None:
    """Have a URL told of what happens to jobs; prints id and secret, which is not shown again."""
    with service() as client:
        made = client.create_webhook(url, types, description=description)
    if as_json:
        print_json(made)
    else:
        typer.echo(made["id"])
        typer.echo(made["secret"])


@app.command()
def delete(webhook: Webhook) -> None:
    """Delete a webhook with its log."""
    with service() as client:
        client.delete_webhook(webhook)


@app.command("test")
def try_out(webhook: Webhook, as_json: Json = False) -> None:
    """Send a message of type webhook.test; prints its id. `deliveries` says how it went."""
    with service() as client:
        sent = client.test_webhook(webhook)
    print_json(sent) if as_json else typer.echo(sent["id"])


@app.command()
def deliveries(
    webhook: Webhook,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option(help="cursor that the page before ended with")] = None,
    tries: Annotated[bool, typer.Option(help="show every try of a message")] = False,
    as_json: Json = False,
) -> None:
    """List what was sent to a webhook, newest first."""
    with service() as client:
        page = client.deliveries(webhook, limit=limit, after=after)
    if as_json:
        print_json(page)
        return
    heads = ("message", "type", "status", "tries", "answer", "created (UTC)")
    rows = [row for sent in page["data"] for row in (message(sent), *(map(attempt, sent["tries"]) if tries else ()))]
    print_table(*heads, rows=rows)
    if page["has_more"]:
        typer.echo(f"more: creditlab webhooks deliveries {webhook} --after {page['next']}", err=True)


def message(sent: JSON) -> tuple[Any, ...]:
    answer = sent["answer_status"] or sent["error"] or "–"
    return sent["id"], sent["type"], sent["status"], sent["attempts"], answer, sent["created_at"][:19]


def attempt(one: JSON) -> tuple[Any, ...]:
    """A row for one try, below its message."""
    took = "no answer yet" if one["duration_ms"] is None else f"{one['duration_ms']:.0f} ms"
    return "", "", took, one["number"], one["answer_status"] or one["error"] or "–", one["at"][:19]
