"""Data sets: those that come with CreditLab, and those that users send."""

from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request, Response

from api import catalog
from api.deps import COMMAND, STRICT, Db, SettingsOf, StoreOf, storable_path, strict_query
from api.multipart import Form, received
from api.openapi import UPLOAD_BODY, problems
from api.schemas import Dataset, DatasetList
from credit import spec
from lab import datasets, uploads
from lab.db import Database
from lab.files import Store
from lab.settings import Settings

CHECKS_AT_ONCE = 2
STREAMED = [Depends(storable_path), Depends(strict_query)]
"""In the place of STRICT where the body is no JSON and is not read into memory."""

router = APIRouter(tags=["data sets"])
checks = CapacityLimiter(CHECKS_AT_ONCE)


@router.post(
    "/v1/datasets",
    status_code=201,
    response_model=Dataset,
    responses={200: {"model": Dataset, "description": "The same content was there before"}, **problems(409)},
    openapi_extra=UPLOAD_BODY,
    dependencies=STREAMED,
)
async def upload(request: Request, response: Response, db: Db, files: StoreOf, settings: SettingsOf) -> Any:
    """Send a data set. It is checked, hashed and kept once, however often it is sent; specs then name it by its id.

    One `file`, told by its content: an npz archive of `x_train`, `y_train`, `x_test` and `y_test`; CIFAR's binary
    version as .tar.gz; a zip of `train/<class>/` and `test/<class>/` with PNG or JPEG images; parquet with the columns
    `image`, `label` and `split`. Or four: idx, gzipped or not, `train` in the names of the training files. Images are
    uint8 of one size, with 1 or 3 channels; labels are 0, 1, 2 …
    """
    async with received(request) as form:
        view, made = await to_thread.run_sync(keep, form, db, files, settings, limiter=checks)
    response.status_code = 201 if made else 200
    response.headers["Location"] = f"/v1/datasets/{view['id']}"
    return view


def keep(form: Form, db: Database, files: Store, settings: Settings) -> tuple[dict[str, Any], bool]:
    datasets.check_name(form.name, form.description)
    with uploads.checked(form.files, settings) as checked:
        row, made = datasets.keep(db, files, form.name, form.description, checked)
        return catalog.uploaded(row), made


@router.get("/v1/datasets", response_model=DatasetList, dependencies=STRICT)
def list_datasets(db: Db) -> Any:
    """All data sets: shape, classes, sizes, licence and citation; the users' own last, newest first."""
    with db.read() as tx:
        own = [catalog.uploaded(row) for row in datasets.listed(tx)]
    data = [*(catalog.dataset(name) for name in spec.menu(spec.Dataset)), *own]
    return {"object": "list", "data": data, "has_more": False, "next": None}


@router.get("/v1/datasets/{name}", response_model=Dataset, responses=problems(404), dependencies=STRICT)
def show_dataset(name: str, db: Db) -> Any:
    """One data set, by its name or id."""
    if name in spec.menu(spec.Dataset):
        return catalog.dataset(name)
    with db.read() as tx:
        return catalog.uploaded(datasets.find(tx, name))


@router.delete(
    "/v1/datasets/{name}",
    status_code=204,
    response_model=None,
    responses=problems(404, 409),
    dependencies=[*STRICT, *COMMAND],
)
def delete_dataset(name: str, db: Db, files: StoreOf, settings: SettingsOf) -> None:
    """Delete a data set that a user has sent, by its name or id, unless a job that has not ended uses it."""
    with db.write() as tx:
        datasets.delete(tx, files, settings, name)
