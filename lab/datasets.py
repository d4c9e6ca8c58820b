"""The data sets that users have sent: their rows, their files, and what a spec says of them. One query for each."""

import re
import secrets
from collections.abc import Collection
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from credit import spec
from credit.durable import publish
from credit.events import RunError
from credit.uploads.content import content_sha256
from lab import projects, tables
from lab.db import Database, now, take
from lab.errors import (
    BuiltIn,
    DatasetInUse,
    DatasetNotFound,
    InvalidDataset,
    InvalidSpec,
    LabError,
    NameTaken,
    StoreUnavailable,
)
from lab.files import Store
from lab.ids import new_id
from lab.settings import Settings
from lab.specs import show
from lab.states import TERMINAL
from lab.uploads import Checked

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MAX_DESCRIPTION = 2000
PREFIX = spec.Uploaded.prefix


def check_name(name: str, description: str | None) -> None:
    """Refuse a name that cannot be had, before anything is made of the files.

    Raises:
        InvalidDataset: it is none.
        NameTaken: a data set that comes with CreditLab has it.
    """
    if not NAME.fullmatch(name) or name.startswith(PREFIX):
        told = "1 to 64 characters of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, and not with ds_"
        raise InvalidDataset("name", f"{show(name)} is not {told}")
    if name in spec.menu(spec.Dataset):
        raise NameTaken(name, "a data set that comes with CreditLab")
    if description is not None and (len(description) > MAX_DESCRIPTION or "\0" in description):
        raise InvalidDataset("description", f"is not a text of at most {MAX_DESCRIPTION} characters")


def keep(
    db: Database, store: Store, name: str, description: str | None, checked: Checked
) -> tuple[tables.Dataset, bool]:
    """Put a data set's file into the store and add its row; False where the project had its content before.

    The file goes first, without a transaction: nobody waits for it, and no row is ever without one.

    Raises:
        NameTaken: another data set of the project has the name.
        QuotaExceeded: the project may not store so much more.
        StoreUnavailable: the store does not take the file.
    """
    if not store.has(location_of(checked.sha256), checked.bytes):
        store.put(checked.path, location_of(checked.sha256))
    try:
        with db.write() as tx:
            return _add(tx, store, name, description, checked)
    except LabError:
        with suppress(LabError), db.write() as tx:
            _drop_unused(tx, store, checked.sha256)
        raise


def _add(
    tx: Session, store: Store, name: str, description: str | None, checked: Checked
) -> tuple[tables.Dataset, bool]:
    """The row of a data set whose file is in the store. Raises NameTaken, QuotaExceeded, StoreUnavailable."""
    take(tx, checked.sha256)
    if known := _with_content(tx, checked.sha256):
        return known, False
    if other := tx.scalar(select(tables.Dataset).where(tables.Dataset.name == name)):
        raise NameTaken(name, other.id)
    projects.admit_bytes(tx, checked.bytes)
    channels, height, width = checked.shape
    row = tables.Dataset(
        id=new_id(PREFIX.rstrip("_")),
        name=name,
        description=description,
        sha256=checked.sha256,
        format=checked.format,
        channels=channels,
        height=height,
        width=width,
        classes=checked.classes,
        class_names=checked.class_names,
        train_images=checked.train_images,
        test_images=checked.test_images,
        bytes=checked.bytes,
        created_at=now(tx),
    )
    try:
        with tx.begin_nested():
            tx.add(row)
            tx.flush()
    except IntegrityError:  # another request was quicker, with this content or with this name
        if known := _with_content(tx, checked.sha256):
            return known, False
        raise NameTaken(name, "another data set") from None
    # who deletes the same content waits for this transaction, so the rows never outlive the file
    if not store.has(location_of(row.sha256), row.bytes):
        raise StoreUnavailable("the same content was deleted meanwhile")
    return row, True


def listed(tx: Session) -> list[tables.Dataset]:
    """All of them, newest first."""
    return list(tx.scalars(select(tables.Dataset).order_by(tables.Dataset.id.desc())))


def find(tx: Session, key: str, *, lock: bool = False) -> tables.Dataset:
    """By id or name. Raises DatasetNotFound."""
    wanted = select(tables.Dataset).where(or_(tables.Dataset.id == key, tables.Dataset.name == key))
    row = tx.scalar(wanted.with_for_update() if lock else wanted)
    if row is None:
        near = get_close_matches(key[:100], [*spec.menu(spec.Dataset), *tx.scalars(select(tables.Dataset.name))], n=1)
        raise DatasetNotFound(key, f"; did you mean {near[0]!r}?" if near else "")
    return row


def delete(tx: Session, store: Store, settings: Settings, key: str) -> None:
    """Forget a data set and its file; copies on other machines go when their workers next look.

    Raises:
        DatasetNotFound: there is none.
        DatasetInUse: a job that has not ended uses it.
        BuiltIn: it comes with CreditLab.
        StoreUnavailable: the store does not let go of the file.
    """
    if key in spec.menu(spec.Dataset):
        raise BuiltIn(key)
    take(tx, find(tx, key).sha256)
    row = find(tx, key, lock=True)
    users = select(tables.Job.id).where(tables.Job.dataset == row.id, tables.Job.status.not_in(TERMINAL))
    if user := tx.scalar(users.limit(1)):
        raise DatasetInUse(key, user)
    tx.execute(delete_rows(tables.Dataset).where(tables.Dataset.id == row.id))
    if _drop_unused(tx, store, row.sha256):
        copy_of(settings, row.sha256).unlink(missing_ok=True)


def _drop_unused(tx: Session, store: Store, sha256: str) -> bool:
    """Remove the file of a content that no row has, in any project; whether that is so."""
    take(tx, sha256)
    everybodys = tables.Dataset.__table__.c  # not confined to the caller's project: the file may be another's, too
    unused = tx.execute(select(everybodys.id).where(everybodys.sha256 == sha256).limit(1)).first() is None
    if unused:
        store.remove(location_of(sha256))
    return unused


def location_of(sha256: str) -> str:
    """Where in the store the file of a content is."""
    return f"datasets/{sha256}/images.safetensors"


def copy_of(settings: Settings, sha256: str) -> Path:
    """Where on this machine the file of a content is, or would be."""
    return settings.uploads_dir / f"{sha256}.safetensors"


def fetch(store: Store, settings: Settings, dataset: spec.Uploaded) -> None:
    """Have the file of a data set on this machine, whole and checked; it stays here for the next run.

    Raises:
        RunError: ``dataset_unavailable``, it is gone or damaged.
        StoreUnavailable: the store does not answer.
    """
    path = copy_of(settings, dataset.sha256)
    placed = settings.datasets_dir and settings.datasets_dir / path.name
    if path.is_file() or (placed and placed.is_file()):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        store.fetch(location_of(dataset.sha256), draft)
        if content_sha256(draft) != dataset.sha256:
            told = "is damaged in the artifact store; delete the data set and send it again"
            raise RunError("dataset_unavailable", f"the file of data set {dataset.name} {told}")
        publish(draft, path)
    except FileNotFoundError:
        told = "is neither on this machine nor in the artifact store; send the data set again"
        raise RunError("dataset_unavailable", f"the file of data set {dataset.name} {told}") from None
    finally:
        draft.unlink(missing_ok=True)


def sweep(tx: Session, copies: Collection[Path]) -> None:
    """Remove those of this machine's copies whose data set has been deleted; ``tx`` began after they were listed."""
    known = set(tx.scalars(select(tables.Dataset.sha256).where(tables.Dataset.sha256.in_([c.stem for c in copies]))))
    for path in copies:
        if path.stem not in known:
            path.unlink(missing_ok=True)


def _with_content(tx: Session, sha256: str) -> tables.Dataset | None:
    return tx.scalar(select(tables.Dataset).where(tables.Dataset.sha256 == sha256).with_for_update(read=True))


# ---- in a spec -------------------------------------------------------------------------------------------------------


def named(body: Any) -> str | None:
    """The data set that a spec asks for, unless it comes with CreditLab or is none at all."""
    dataset = body.get("dataset") if isinstance(body, dict) else None
    name = dataset.get("name") if isinstance(dataset, dict) else dataset
    return name if isinstance(name, str) and name not in spec.menu(spec.Dataset) else None


def pinned(tx: Session, body: Any) -> Any:
    """The spec with what the service knows of a user's data set filled in, under its id.

    Raises:
        InvalidSpec: there is no such data set, or the spec says something else of it.
    """
    key = named(body)
    if key is None:
        return body
    bare = isinstance(body["dataset"], str)
    try:
        facts = known(find(tx, key))
    except DatasetNotFound as error:
        if not key.startswith(PREFIX):
            return body  # the menu's own error names what there is
        raise InvalidSpec([{"pointer": "#/dataset" if bare else "#/dataset/name", "detail": error.detail}]) from None
    given = {} if bare else body["dataset"]
    wrong = [
        {"pointer": f"#/dataset/{name}", "detail": f"{show(given[name])} is not what {key} has: {show(fact)}"}
        for name, fact in facts.items()
        if name != "name" and name in given and given[name] != fact
    ]
    if wrong:
        raise InvalidSpec(wrong)
    return body | {"dataset": given | facts}


def hold(tx: Session, run: spec.Run) -> None:
    """Keep the data set of a run from being deleted while this transaction adds a job of it.

    Raises:
        InvalidSpec: it is gone.
    """
    dataset = run.dataset
    if not isinstance(dataset, spec.Uploaded):
        return
    mine = select(tables.Dataset.id).where(tables.Dataset.id == dataset.name).with_for_update(read=True)
    if tx.scalar(mine) is None:
        raise InvalidSpec([{"pointer": "#/dataset/name", "detail": f"data set {dataset.name} has been deleted"}])


def known(row: tables.Dataset) -> dict[str, Any]:
    """What a spec says of a data set."""
    return {
        "name": row.id,
        "sha256": row.sha256,
        "shape": [row.channels, row.height, row.width],
        "classes": row.classes,
        "train_images": row.train_images,
        "test_images": row.test_images,
    }
