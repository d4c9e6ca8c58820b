"""What the API shows of a job: plain JSON values, read and never written here."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Row, bindparam, select
from sqlalchemy.orm import Session

from credit.events import ALIGNMENT_SERIES
from credit.pairing import Twin, pairing
from lab import cursors, projects, series, tables
from lab.columns import Pairs
from lab.db import Database, Tx, now, rfc3339
from lab.errors import ArtifactExpired, ArtifactNotFound, JobNotFound
from lab.jobs import get
from lab.states import EDGES, Event, State

Page = dict[str, Any]

SHOWN = (
    select(tables.Job.id, tables.Job.name, tables.Job.status, tables.Job.status_reason, tables.Job.spec)
    .add_columns(tables.Job.progress, tables.Job.error, tables.Job.version, tables.Job.status_changes)
    .add_columns(tables.Job.attempt, tables.Job.created_at, tables.Job.started_at, tables.Job.finished_at)
    .add_columns(
        select(Pairs(tables.Label.key, tables.Label.value))
        .where(tables.Label.job_id == tables.Job.id)
        .scalar_subquery()
        .label("labels"),
        select(Pairs(tables.Twin.method, tables.Twin.twin_id))
        .where(tables.Twin.job_id == tables.Job.id)
        .scalar_subquery()
        .label("twins"),
    )
)
"""All that ``view`` needs, in one statement; results, which are most of a finished job's row, stay where they are."""
SHOWN_ONE = SHOWN.where(tables.Job.id == bindparam("job_id"))
COMMANDS = {"cancel": Event.CANCEL, "pause": Event.PAUSE, "resume": Event.RESUME, "retry": Event.RETRY}
"""What a user may do with a job, where its state allows it."""

METRICS = {
    "delta_cosine": (
        "cosine",
        "cosine, per sample, of the method's teaching signal and the gradient of backpropagation at the block's output",
    ),
    "preactivation_cosine": ("cosine", "the same at the block's pre-activation"),
    "delta_angle": ("degrees", "mean of the per-sample angles of the two signals at the block's output"),
    "update_cosine": ("cosine", "cosine of the two weight gradients of the layer over the probe batch"),
    "norm_ratio": ("ratio", "norm of the signal over the norm of the gradient of backpropagation, mean over the probe"),
    "activation_rms": ("activation", "root mean square of the layer's output over the probe"),
}
"""Metrics of the alignment matrix: unit and definition."""


@dataclass(frozen=True)
class Filters:
    """Which jobs a list shows: any of the statuses, all of the labels."""

    status: tuple[str, ...] = ()
    method: str | None = None
    model: str | None = None
    dataset: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    created_after: datetime | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON values in a fixed order, for the cursor."""
        values = asdict(self) | {"status": sorted(self.status), "labels": sorted(map(list, self.labels))}
        return values | {"created_after": rfc3339(self.created_after)}

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        if self.status:
            yield tables.Job.status.in_(self.status)
        for column in ("method", "model", "dataset"):
            if (value := getattr(self, column)) is not None:
                yield getattr(tables.Job, column) == value
        for key, value in self.labels:
            labelled = select(tables.Label.job_id).where(tables.Label.key == key, tables.Label.value == value)
            yield tables.Job.id.in_(labelled)
        if self.created_after is not None:
            yield tables.Job.created_at > self.created_after


def job_view(tx: Tx, job_id: str) -> dict[str, Any]:
    """The job as the contract shows it. Raises JobNotFound."""
    tx.flush()
    return view(shown(tx, job_id))


def shown(where: Database | Tx, job_id: str) -> Row[Any]:
    """What ``view`` needs of the job. Raises JobNotFound."""
    (job,) = where.rows(SHOWN_ONE, job_id=job_id) or (None,)
    if job is None:
        raise JobNotFound(job_id)
    return job


def list_jobs(database: Database, filters: Filters, limit: int, after: str | None, *, secret: str) -> Page:
    """A page of jobs, newest first.

    Args:
        database: as whoever asks sees it.
        filters: applied before the page is cut.
        limit: most jobs of the page.
        after: the cursor of the page before.
        secret: signs the cursors.

    Raises:
        BadCursor: ``after`` was not made by this service.
        CursorMismatch: ``after`` belongs to other filters.
    """
    made_for = filters.plain() | {"project": projects.name_of(database.caller)}
    wanted = SHOWN.where(*filters.conditions()).order_by(tables.Job.id.desc()).limit(limit + 1)
    if after is not None:
        wanted = wanted.where(tables.Job.id < cursors.read(secret, after, made_for))
    rows = database.rows(wanted)
    page, has_more = rows[:limit], len(rows) > limit
    cursor = cursors.make(secret, page[-1].id, made_for) if has_more else None
    return {"object": "list", "data": [view(job) for job in page], "has_more": has_more, "next": cursor}


def view(job: Row[Any]) -> dict[str, Any]:
    """A row of ``SHOWN`` as the contract shows it."""
    here = f"/v1/jobs/{job.id}"
    parts = ("events", "metrics", "alignment", "results", "artifacts")
    links = {"self": here} | {part: f"{here}/{part}" for part in parts}
    links |= {name: f"{here}/{name}" for name, event in COMMANDS.items() if (State(job.status), event) in EDGES}
    return {
        "id": job.id,
        "object": "job",
        "name": job.name,
        "status": job.status,
        "status_reason": job.status_reason,
        "spec": job.spec,
        "progress": job.progress,
        "attempt": job.attempt,
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(job.started_at),
        "finished_at": rfc3339(job.finished_at),
        "error": job.error,
        "twins": [
            {"method": name, "job_id": twin_id}
            for name, twin_id in sorted((job.twins or {}).items(), key=itemgetter(1))
        ],
        "study_id": None,
        "labels": dict(sorted((job.labels or {}).items())),
        "links": links,
    }


def results(tx: Session, job_id: str) -> dict[str, Any]:
    """What the job has measured so far, and how it compares with its twins. Raises JobNotFound."""
    job = get(tx, job_id)
    linked = tx.execute(
        select(tables.Twin.method, tables.Job)
        .join(tables.Job, tables.Job.id == tables.Twin.twin_id)
        .where(tables.Twin.job_id == job_id)
        .order_by(tables.Job.id)
    )
    twins = [Twin(method, twin.id, twin.results) for method, twin in linked]
    measured = unmeasured() | (job.results or {})
    return {
        "job_id": job.id,
        "status": job.status,
        "method": job.method,
        **measured,
        "pairing": pairing(measured, twins),
        "environment": measured["environment"] | {"spec_sha256": job.spec_sha256},
    }


def unmeasured() -> dict[str, Any]:
    """The results of a run that has said nothing yet."""
    return {
        "test": None,
        "train": None,
        "alignment": {"probe": None, "layers": []},
        "cost": None,
        "pairing": {"init_sha256": None, "order_sha256": None},
        "diagnoses": [],
        "environment": {},
    }


def events(tx: Session, job_id: str, after_seq: int = 0, limit: int = 100) -> Page:
    """The log of a job from ``after_seq`` on; ``next`` is the number to go on after. Raises JobNotFound."""
    get(tx, job_id)
    rows = log_of(tx, job_id, after_seq, limit + 1)
    page, has_more = rows[:limit], len(rows) > limit
    return {"object": "list", "data": page, "has_more": has_more, "next": page[-1]["seq"] if has_more else None}


def log_of(tx: Session, job_id: str, after_seq: int, limit: int) -> list[dict[str, Any]]:
    """The next events of a job, as lists and streams show them."""
    log = select(tables.Event).where(tables.Event.job_id == job_id, tables.Event.seq > after_seq)
    return [event_view(row) for row in tx.scalars(log.order_by(tables.Event.seq).limit(limit))]


def event_view(row: tables.Event) -> dict[str, Any]:
    columns = ("job_id", "seq", "type", "level", "attempt", "message", "data", "key_id")
    return {name: getattr(row, name) for name in columns} | {"at": rfc3339(row.at)}


def artifacts(tx: Session, job_id: str, days: float = 0) -> Page:
    """The files of a job, by name; each is kept for so many days, 0: for ever. Raises JobNotFound."""
    get(tx, job_id)
    rows = tx.scalars(select(tables.Artifact).where(tables.Artifact.job_id == job_id).order_by(tables.Artifact.name))
    moment = now(tx)
    data = [
        {
            "name": row.name,
            "size": row.size,
            "sha256": row.sha256,
            "media_type": row.media_type,
            "attempt": row.attempt,
            "created_at": rfc3339(row.created_at),
            "expires_at": rfc3339(until := kept_until(row, days)),
            "expired": until is not None and until <= moment,
            "url": f"/v1/jobs/{job_id}/artifacts/{row.name}",
        }
        for row in rows
    ]
    return {"object": "list", "data": data, "has_more": False, "next": None}


def artifact(tx: Session, job_id: str, name: str, days: float = 0) -> tables.Artifact:
    """The row of a file that is kept for so many days, 0: for ever.

    Raises:
        JobNotFound: there is no such job.
        ArtifactNotFound: it has no such file.
        ArtifactExpired: it is not kept any more.
    """
    get(tx, job_id)
    row = tx.get(tables.Artifact, (job_id, name))
    if row is None:
        raise ArtifactNotFound(job_id, name)
    until = kept_until(row, days)
    if until is not None and until <= now(tx):
        raise ArtifactExpired(name, rfc3339(until))
    return row


def kept_until(row: tables.Artifact, days: float) -> datetime | None:
    """When a file's time is or was over, whether or not it has been removed by now; None: never."""
    return row.expired_at or (row.created_at + timedelta(days=days) if days else None)


def alignment(tx: Session, job_id: str, metric: str = "delta_cosine", max_points: int | None = None) -> dict[str, Any]:
    """One alignment metric as a matrix, layer × probe; the columns are stored probes, at most ``max_points`` of them.

    Raises:
        JobNotFound: there is no such job.
    """
    job = get(tx, job_id)
    unit, definition = METRICS[metric]
    wanted = ALIGNMENT_SERIES[metric]
    loaded = series.load(tx, job_id, [wanted, f"{wanted}_std"])
    means = {layer: columns for (name, layer), columns in loaded.items() if name == wanted}
    stds = [columns for (name, _), columns in loaded.items() if name != wanted]
    steps, epochs, _ = next(iter(means.values()), (np.empty(0, series.STEP), np.empty(0), np.empty(0)))
    keep = columns_to_keep([values for _, _, values in means.values()], len(steps), max_points)
    return {
        "metric": metric,
        "definition": definition,
        "unit": unit,
        "probe": ((job.results or {}).get("alignment") or {}).get("probe"),
        "layers": list(means),
        "steps": steps[keep].tolist(),
        "epochs": epochs[keep].tolist(),
        "values": [series.nullable(values[keep]) for _, _, values in means.values()],
        "std": [series.nullable(values[keep]) for _, _, values in stds] or None,
        "total_points": len(steps),
        "downsampled": len(keep) < len(steps),
    }


def columns_to_keep(rows: list[series.Floats], total: int, most: int | None) -> series.Ints:
    """The columns of a matrix that keep the shape of each of its rows."""
    if most is None or total <= most:
        return np.arange(total)
    kept = np.concatenate([series.downsample(row, max(1, most // len(rows))) for row in rows])
    return np.unique(kept)[:most]


def statuses(tx: Session, ids: Iterable[str]) -> dict[str, tuple[int, int, str]]:
    """Version, status changes and status of jobs, in one query; ids without a job are missing."""
    columns = (tables.Job.id, tables.Job.version, tables.Job.status_changes, tables.Job.status)
    found = tx.execute(select(*columns).where(tables.Job.id.in_(list(ids))))
    return {job_id: (version, changes, status) for job_id, version, changes, status in found}
