"""Who is alive and on what; where a job stands in the queue, and why it waits."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.deps import STRICT, CallerOf, PageOf, SettingsOf, WholeDb
from api.fleet_schemas import QueuePage, WorkerList
from api.openapi import problems
from lab import fleet

router = APIRouter(tags=["operations"], dependencies=STRICT)


@router.get("/v1/workers", response_model=WorkerList)
def workers(db: WholeDb, caller: CallerOf) -> Any:
    """The workers, each with its slots and the jobs in them; another project's job takes a slot without its name."""
    with db.read() as tx:
        return fleet.workers(tx, caller.project_id)


@router.get("/v1/queue", response_model=QueuePage, responses=problems(400, 404))
def queue(
    response: Response,
    db: WholeDb,
    caller: CallerOf,
    settings: SettingsOf,
    page: PageOf,
    job: Annotated[str | None, Query(max_length=100, description="Only this job; none where it does not wait")] = None,
) -> Any:
    """The jobs that wait, in the order in which they will be trained, each with its position and its reason.

    Positions count the jobs of all projects.
    """
    view = fleet.View(caller.project_id, settings.quota_running_jobs)
    with db.read() as tx:
        if job is not None:
            return fleet.queued(tx, job, view=view)
        found = fleet.queue(tx, page.limit, page.after, secret=settings.secret_key, view=view)
    if found["next"]:
        response.headers["Link"] = f'</v1/queue?limit={page.limit}&after={found["next"]}>; rel="next"'
    return found
