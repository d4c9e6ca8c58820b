"""Migrations reach the tables of the code on both databases; what is away is said to be away."""

import threading
from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, Table, inspect, text
from sqlalchemy.exc import IntegrityError

from lab import jobs, tables
from lab.db import Database, alembic_config, migrating, now
from lab.errors import DatabaseUnavailable
from lab.tables import Job, Project
from tests.conftest import _administer, _at
from tests.factories import tiny


def test_migrated_tables_are_those_of_the_code(database):
    assert database.is_current()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_the_migrations_lead_back_to_nothing(database):
    config = alembic_config()
    with migrating(database.engine) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    assert not database.is_current()
    database.migrate()
    assert database.is_current()


def test_jobs_from_before_projects_belong_to_the_default_one(empty_url):
    database, config = Database(empty_url), alembic_config()

    def at(revision, step):
        with migrating(database.engine) as connection:
            config.attributes["connection"] = connection
            step(config, revision)

    at("0001", command.upgrade)
    old = {
        **dict.fromkeys(("id", "status", "spec_sha256", "method", "model", "dataset", "queue"), "x"),
        **dict.fromkeys(("priority", "version", "status_changes", "last_seq", "fence", "attempt", "failures"), 1),
        "spec": {},
        "progress": {},
        "status": "queued",
        "queue": "default",
        "created_at": datetime.now(UTC),
    }
    with database.write() as tx:
        jobs_then = Table("jobs", MetaData(), autoload_with=tx.connection())
        tx.execute(jobs_then.insert(), [old])
        checks = inspect(tx.connection()).get_check_constraints("jobs")
    at("head", command.upgrade)
    with database.read() as tx:
        assert tx.get(Job, "x").project_id == "default"
        assert tx.get(Project, "default").queued_jobs is None
    at("0001", command.downgrade)
    with database.read() as tx:
        left = inspect(tx.connection())
        assert "project_id" not in {column["name"] for column in left.get_columns("jobs")}
        assert {one["name"] for one in left.get_check_constraints("jobs")} == {one["name"] for one in checks}
        assert tx.execute(text("SELECT id FROM jobs")).scalar() == "x"
    database.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    server = request.getfixturevalue("postgresql_server")
    _administer(server, "CREATE DATABASE empty")
    yield _at(server, "empty")
    _administer(server, "DROP DATABASE empty WITH (FORCE)")


def test_several_processes_may_migrate_at_once(empty_url):
    databases = [Database(empty_url) for _ in range(4)]
    threads = [threading.Thread(target=database.migrate) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(database.is_current() for database in databases)
    for database in databases:
        database.dispose()


def test_a_failed_block_leaves_nothing_behind(database):
    def fail():
        with database.write() as tx:
            jobs.submit(tx, tiny())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with database.read() as tx:
        assert tx.query(Job).count() == 0


def test_writers_wait_for_each_other(database):
    """A read that becomes a write would fail at once on SQLite, and lose an update on any other."""
    with database.write() as tx:
        job_id = jobs.submit(tx, tiny()).id

    def raise_priority():
        with database.write() as tx:
            job = tx.get(Job, job_id, with_for_update=True)
            job.priority += 1

    threads = [threading.Thread(target=raise_priority) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as tx:
        assert tx.get(Job, job_id).priority == 8


@pytest.mark.parametrize(
    "change",
    [
        {"status": "dreaming"},
        {"status": "succeeded"},
        {"status": "running"},
        {"status": "failed", "finished_at": "2026-01-01 00:00:00"},
        {"finished_at": "2026-01-01 00:00:00"},
    ],
    ids=str,
)
def test_the_database_refuses_impossible_rows(database, change):
    with database.write() as tx:
        jobs.submit(tx, tiny())
    changes = ", ".join(f"{column} = '{value}'" for column, value in change.items())
    with pytest.raises(IntegrityError), database.write() as tx:
        tx.execute(text(f"UPDATE jobs SET {changes}"))


def test_database_time_is_utc_and_goes_on(database):
    with database.read() as tx:
        first, second = now(tx), now(tx)
    assert first.utcoffset().total_seconds() == 0
    assert first <= second


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "sqlite:////proc/no/such/folder.db"])
def test_a_database_that_is_away_is_said_to_be_away(url):
    database = Database(url)
    for use in (database.read, database.write):
        with pytest.raises(DatabaseUnavailable), use() as tx:
            tx.execute(text("SELECT 1"))
    with pytest.raises(DatabaseUnavailable):
        database.migrate()
    database.dispose()


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url):
    with pytest.raises((ValueError, ImportError)):
        Database(url)
