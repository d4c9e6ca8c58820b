"""What a job has measured and left: metrics, alignment, results, artifacts."""

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from api.deps import STRICT, Db, Names, SettingsOf, StoreOf
from api.download import download
from api.etags import is_known, not_modified, position_of, stamp, tag_of
from api.openapi import problems
from api.problems import InvalidParameter
from api.schemas import Alignment, ArtifactList, Metrics, Results
from lab import reads, series, tables
from lab.db import Database

MAX_STEP = 2**63 - 1
MaxPoints = Annotated[int, Query(ge=1, le=100_000, description="Most points per series; minima and maxima are kept")]
Step = Annotated[int | None, Query(ge=0, le=MAX_STEP)]
Metric = Literal["delta_cosine", "preactivation_cosine", "delta_angle", "update_cosine", "norm_ratio", "activation_rms"]
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Not modified"}}

router = APIRouter(tags=["results"], dependencies=STRICT)


@router.get("/v1/jobs/{job_id}/metrics", response_model=Metrics, responses={**UNCHANGED, **problems(404)})
def metrics(
    job_id: str,
    request: Request,
    response: Response,
    db: Db,
    series_names: Annotated[Names, Query(alias="series", description="Names, separated by commas; all if absent")] = [],  # noqa: B006
    from_step: Step = None,
    to_step: Step = None,
    max_points: MaxPoints = 10_000,
) -> Any:
    """Metric series, in a window of steps, downsampled where there are more than `max_points`."""
    if from_step is not None and to_step is not None and to_step < from_step:
        raise InvalidParameter([{"parameter": "to_step", "detail": f"{to_step} is below from_step, {from_step}"}])
    names = [name for text in series_names for name in text.split(",") if name]
    with db.read() as tx:
        tag = tag_of(position_of(tx, job_id))
        if is_known(request, tag):
            return not_modified(tag)
        found = series.read(tx, job_id, names or None, from_step, to_step, max_points)
    stamp(response, tag)
    return {"series": found}


@router.get("/v1/jobs/{job_id}/alignment", response_model=Alignment, responses={**UNCHANGED, **problems(404)})
def alignment(
    job_id: str,
    request: Request,
    response: Response,
    db: Db,
    metric: Annotated[Metric, Query(description=f"One of {', '.join(get_args(Metric))}")] = "delta_cosine",
    max_points: MaxPoints = 10_000,
) -> Any:
    """How well the method's signals align with backpropagation's: a matrix, layer × step."""
    with db.read() as tx:
        tag = tag_of(position_of(tx, job_id))
        if is_known(request, tag):
            return not_modified(tag)
        found = reads.alignment(tx, job_id, metric, max_points)
    stamp(response, tag)
    return found


@router.get("/v1/jobs/{job_id}/results", response_model=Results, responses={**UNCHANGED, **problems(404)})
def results(job_id: str, request: Request, response: Response, db: Db) -> Any:
    """What is known so far; final once the job has ended."""
    with db.read() as tx:
        found = reads.results(tx, job_id)
    # the twins' numbers are part of it, and they change without the job: the tag is that of the content
    tag = f'W/"{hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()[:32]}"'
    if is_known(request, tag):
        return not_modified(tag)
    stamp(response, tag)
    return found


@router.get("/v1/jobs/{job_id}/artifacts", response_model=ArtifactList, responses=problems(404))
def artifacts(job_id: str, db: Db, settings: SettingsOf) -> Any:
    """The files that a job has left, with size and SHA-256, and until when they are kept."""
    with db.read() as tx:
        return reads.artifacts(tx, job_id, settings.artifact_days)


@router.get(
    "/v1/jobs/{job_id}/artifacts/{name}",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The file", "content": {"application/octet-stream": {}}},
        206: {"description": "The range of the file", "content": {"application/octet-stream": {}}},
        **UNCHANGED,
        **problems(404, 410, 416),
    },
)
async def artifact(job_id: str, name: str, request: Request, db: Db, store: StoreOf, settings: SettingsOf) -> Response:
    """One file, whole or in part (`Range`)."""
    row = await run_in_threadpool(find, db, job_id, name, settings.artifact_days)
    tag = f'"{row.sha256}"'
    return not_modified(tag) if is_known(request, tag) else await download(store, row, request)


def find(db: Database, job_id: str, name: str, days: float) -> tables.Artifact:
    with db.read() as tx:
        return reads.artifact(tx, job_id, name, days)
