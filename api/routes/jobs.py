"""Jobs: submit, list, look at, wait for, cancel, pause, resume, retry, delete."""

import logging
import math
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, StringConstraints
from starlette.concurrency import run_in_threadpool

from api.deps import COMMAND, STRICT, Body, Db, PageOf, SettingsOf, StoreOf, Wait, WatcherOf, seconds
from api.etags import Position, is_known, known_changes, not_modified, position_of, stamp, tag_of
from api.gate import also_left
from api.idempotent import Once, OnceOf
from api.openapi import SPEC_BODY, problems
from api.problems import InvalidParameter, shorten
from api.schemas import Estimate, Job, JobPage
from api.stream import is_news
from api.times import Moment
from lab import bell, datasets, forecast, jobs, projects, reads, specs
from lab.db import Database, Tx
from lab.errors import BrokerUnavailable
from lab.reads import Filters
from lab.states import State

POLL_SECONDS = 2
Labels = list[Annotated[str, StringConstraints(max_length=400), Field(json_schema_extra={"pattern": "^[^:]+:"})]]

log = logging.getLogger("creditlab.api")
router = APIRouter(tags=["jobs"], dependencies=STRICT)


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=Job,
    responses={
        200: {"model": Estimate, "description": "Of a dry run"},
        202: {"headers": {"Location": {"$ref": "#/components/headers/Location"}}},
        **problems(409),
    },
    openapi_extra=SPEC_BODY,
)
def create(
    body: Body,
    db: Db,
    settings: SettingsOf,
    once: OnceOf,
    request: Request,
    dry_run: Annotated[bool, Query(description="Check and estimate; store nothing")] = False,  # noqa: FBT002
) -> Any:
    """Submit a job. Only `method`, `model` and `dataset` are required, and each may be given as its bare name."""
    if datasets.named(body) is not None:
        with db.read() as tx:
            body = datasets.pinned(tx, body)
    run = specs.resolve(specs.parse(body), threads=settings.threads)
    limit = settings.memory_limit_bytes
    if dry_run:
        with db.read() as tx:
            cost = forecast.forecast(tx, run, memory_limit=limit)
        told = Estimate(object="estimate", spec=specs.to_dict(run), **vars(cost))
        return Response(told.model_dump_json(), media_type="application/json")
    with db.read() as tx:
        forecast.check(tx, run, memory_limit=limit)
    require_broker()
    with db.write() as tx:
        once.begin(tx)
        also_left(request, "queued-jobs", projects.admit_jobs(tx, 1 + len(run.controls)))
        datasets.hold(tx, run)
        job_id = jobs.submit(tx, run).id
        log.info("submitted", extra={"job_id": job_id})
        headers = {"Location": f"/v1/jobs/{job_id}", "Retry-After": str(POLL_SECONDS)}
        return once.answer(tx, 202, Job.model_validate(reads.job_view(tx, job_id)), headers)


@router.get("/v1/jobs", response_model=JobPage, responses=problems(400))
def list_jobs(
    request: Request,
    response: Response,
    db: Db,
    settings: SettingsOf,
    page: PageOf,
    status: Annotated[list[State], Query(description="Repeatable: any of these")] = [],  # noqa: B006
    method: Annotated[str | None, Query(max_length=200)] = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
    dataset: Annotated[str | None, Query(max_length=200)] = None,
    study: Annotated[str | None, Query(max_length=200)] = None,
    label: Annotated[Labels, Query(description="key:value; repeatable: all of these")] = [],  # noqa: B006
    created_after: Annotated[Moment | None, Query(description="RFC 3339, with its offset")] = None,
) -> Any:
    """Jobs, newest first. Filters apply before the page is cut."""
    if study is not None:  # there are no studies yet, so no job belongs to one
        return {"object": "list", "data": [], "has_more": False, "next": None}
    filters = Filters(
        status=tuple(sorted(set(status))),
        method=method,
        model=model,
        dataset=dataset,
        labels=tuple(sorted({pair_of(text) for text in label})),
        created_after=created_after,
    )
    found = reads.list_jobs(db, filters, page.limit, page.after, secret=settings.secret_key)
    if found["next"]:
        query = [(name, value) for name, value in request.query_params.multi_items() if name != "after"]
        response.headers["Link"] = f'</v1/jobs?{urlencode([*query, ("after", found["next"])])}>; rel="next"'
    return found


def pair_of(label: str) -> tuple[str, str]:
    key, colon, value = label.partition(":")
    if not key or not colon:
        raise InvalidParameter([{"parameter": "label", "detail": f"{shorten(label)} is not key:value"}])
    return key, value


@router.get("/v1/jobs/{job_id}", response_model=Job, responses={304: {"description": "Not modified"}, **problems(404)})
async def show(job_id: str, request: Request, response: Response, db: Db, watcher: WatcherOf, wait: Wait) -> Any:
    """One job. With `wait`, answers at the next change of its status or at the limit, at once if it has ended."""
    if wait:
        position = await run_in_threadpool(locate, db, job_id)
        response.headers["Preference-Applied"] = f"wait={seconds(wait)}"
        seen = known_changes(request) or {position.status_changes}
        if not is_news(position, seen):
            await watcher.until_news(job_id, seen, wait, request)
    return await run_in_threadpool(read, db, job_id, request, response)


def locate(db: Database, job_id: str) -> Position:
    with db.read() as tx:
        return position_of(tx, job_id)


def read(db: Database, job_id: str, request: Request, response: Response) -> Any:
    """The job, or 304 if the client has this version of it."""
    job = reads.shown(db, job_id)
    tag = tag_of(Position(job.version, job.status_changes, job.status))
    if is_known(request, tag):
        return not_modified(tag, response.headers)
    view = reads.view(job)
    stamp(response, tag)
    if not view["finished_at"]:
        eta = view["progress"]["eta_seconds"] or POLL_SECONDS
        response.headers["Retry-After"] = str(max(1, min(60, math.ceil(eta))))
    return view


def command(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The route of a command on a job."""
    return router.post(
        f"/v1/jobs/{{job_id}}/{name}",
        status_code=202,
        response_model=Job,
        responses=problems(404, 409),
        dependencies=COMMAND,
    )


@command("cancel")
def cancel(job_id: str, db: Db, once: OnceOf) -> Any:
    """Cancel a job: a queued one at once, a running one within two seconds."""
    return carry_out(jobs.cancel, job_id, db, once)


@command("pause")
def pause(job_id: str, db: Db, once: OnceOf) -> Any:
    """Pause a job: a queued one at once, a running one when its state is stored. It holds no worker then."""
    return carry_out(jobs.pause, job_id, db, once)


@command("resume")
def resume(job_id: str, db: Db, once: OnceOf) -> Any:
    """Queue a paused job; it goes on where it was, to the very numbers of a run that was never paused."""
    require_broker()
    return carry_out(jobs.resume, job_id, db, once)


@command("retry")
def retry(job_id: str, db: Db, once: OnceOf) -> Any:
    """Queue a failed or cancelled job once more: from its last checkpoint if there is one, else from the start."""
    require_broker()
    return carry_out(again, job_id, db, once)


def again(tx: Tx, job_id: str) -> None:
    projects.admit_jobs(tx, 1)
    jobs.retry(tx, job_id)


def carry_out(order: Callable[[Tx, str], object], job_id: str, db: Database, once: Once) -> Response:
    """An order to a job, once, and the job as it is then."""
    with db.write() as tx:
        once.begin(tx)
        order(tx, job_id)
        return once.answer(tx, 202, Job.model_validate(reads.job_view(tx, job_id)))


def require_broker() -> None:
    """Raises BrokerUnavailable."""
    if not bell.alive():
        raise BrokerUnavailable


@router.delete("/v1/jobs/{job_id}", status_code=204, response_model=None, responses=problems(404, 409))
def delete(job_id: str, db: Db, store: StoreOf) -> None:
    """Delete a job that has ended, with everything it has left."""
    with db.read() as tx:
        jobs.require_end(tx, job_id)
    store.forget(job_id)  # first: where the store is away, nothing is done, and no file is left that nobody names
    with db.write() as tx:
        jobs.delete(tx, job_id)
