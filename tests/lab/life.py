"""A job in a database, in the words of these tests."""

from datetime import timedelta

from sqlalchemy import update

from lab import attempts, jobs, reads, series, tables
from lab.db import Database, now
from tests.factories import tiny


def submit(database: Database, **fields) -> str:
    with database.write() as tx:
        return jobs.submit(tx, tiny(**fields)).id


def claim(database: Database, worker: str = "wrk_1", *, cuda: bool = False) -> attempts.Attempt | None:
    with database.write() as tx:
        return attempts.claim(tx, worker, cuda=cuda)


def claimed(database: Database) -> attempts.Attempt:
    attempt = claim(database)
    assert attempt is not None
    return attempt


def view(database: Database, job_id: str) -> dict:
    with database.read() as tx:
        return reads.job_view(tx, job_id)


def log(database: Database, job_id: str) -> list[dict]:
    with database.read() as tx:
        return reads.events(tx, job_id)["data"]


def let_lease_expire(database: Database, job_id: str) -> None:
    with database.write() as tx:
        late = now(tx) - timedelta(seconds=1)
        tx.execute(update(tables.Job).where(tables.Job.id == job_id).values(lease_expires_at=late))


def forget_backoff(database: Database, job_id: str) -> None:
    with database.write() as tx:
        tx.execute(update(tables.Job).where(tables.Job.id == job_id).values(not_before=None))


def steps_of(database: Database, job_id: str, name: str = "train/loss") -> list[int]:
    with database.read() as tx:
        return [point[0] for row in series.read(tx, job_id, [name]) for point in row["points"]]
