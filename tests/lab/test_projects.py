"""Projects: a caller's transaction sees its own rows, whatever is asked; quotas of jobs and bytes."""

import threading

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import aliased

from lab import attempts, jobs, keys, projects, reads, tables
from lab.errors import CursorMismatch, JobNotFound, QuotaExceeded
from lab.projects import Caller, Quotas
from tests import factories
from tests.factories import tiny

SECRET = "a secret for cursors"


def caller(database, name, **quotas):
    """A caller of a new project, with these quotas and no others."""
    with database.write() as tx:
        project = projects.ensure(tx, name)
        for quota, value in quotas.items():
            setattr(project, quota, value)
    return Caller(
        name,
        f"key_{name}",
        "write",
        Quotas(
            **{"queued_jobs": 10**6, "running_jobs": None}
            | {"stored_bytes": None, "requests_per_minute": 10**6}
            | quotas
        ),
    )


def submit(database, who, **fields):
    with who.of(database).write() as tx:
        return jobs.submit(tx, tiny(**fields)).id


@pytest.fixture
def ours(database):
    return caller(database, "ours")


@pytest.fixture
def theirs(database):
    return caller(database, "theirs")


@pytest.mark.parametrize(
    "statement",
    [
        lambda job: select(tables.Job.id),
        lambda job: select(tables.Job.id).where(tables.Job.id == job),
        lambda job: select(aliased(tables.Job).id),
        lambda job: select(tables.Event.seq).join(tables.Job, tables.Job.id == tables.Event.job_id),
        lambda job: select(tables.Event.seq).where(tables.Event.job_id.in_(select(tables.Job.id))),
        lambda job: update(tables.Job).values(name="taken").returning(tables.Job.id),
        lambda job: delete(tables.Job).where(tables.Job.id == job).returning(tables.Job.id),
        lambda job: select(tables.Key.id),
        lambda job: delete(tables.IdempotencyRecord).returning(tables.IdempotencyRecord.key),
    ],
)
def test_no_statement_reaches_another_project(database, ours, theirs, statement):
    job = submit(database, theirs)
    with theirs.of(database).write() as tx:
        keys.create(tx, "theirs", "read")
    with ours.of(database).write() as tx:
        assert tx.execute(statement(job)).all() == []
        assert tx.get(tables.Job, job) is None
    with database.read() as tx:
        assert jobs.get(tx, job).name is None
        assert tx.scalar(select(func.count()).select_from(tables.Key)) == 1


def test_what_a_caller_makes_is_its_projects(database, ours, theirs):
    job = submit(database, ours, controls=["bp"])
    with database.read() as tx:
        assert set(tx.scalars(select(tables.Job.project_id))) == {"ours"}
    with ours.of(database).read() as tx:
        assert len(reads.job_view(tx, job)["twins"]) == 1
        assert [one["key_id"] for one in reads.events(tx, job)["data"]] == ["key_ours"]
    with theirs.of(database).write() as tx:
        for use in (jobs.get, jobs.cancel, jobs.delete, reads.results, reads.events, reads.artifacts, reads.alignment):
            with pytest.raises(JobNotFound):
                use(tx, job)
    with ours.of(database).write() as tx:
        assert jobs.cancel(tx, job).status == "cancelled"


def test_what_the_service_does_names_no_key(database, ours):
    job = submit(database, ours)
    with database.write() as tx:
        attempts.claim(tx, "wrk_test", cuda=False)
    with database.read() as tx:
        assert [one["key_id"] for one in reads.events(tx, job)["data"]] == ["key_ours", None]


def test_a_cursor_is_good_for_one_project(database, ours, theirs):
    for who in (ours, theirs):
        for _ in range(3):
            submit(database, who)
    page = reads.list_jobs(ours.of(database), reads.Filters(), 2, None, secret=SECRET)
    with pytest.raises(CursorMismatch):
        reads.list_jobs(theirs.of(database), reads.Filters(), 2, page["next"], secret=SECRET)


def test_what_is_read_without_a_transaction_is_confined_too(database, ours, theirs):
    job = submit(database, theirs)
    mine = submit(database, ours)
    with pytest.raises(JobNotFound):
        reads.shown(ours.of(database), job)
    page = reads.list_jobs(ours.of(database), reads.Filters(), 10, None, secret=SECRET)
    assert [one["id"] for one in page["data"]] == [mine]
    assert reads.shown(theirs.of(database), job).id == job


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "../a", "a" * 64, "ü", "a\n"])
def test_odd_names_are_refused(database, name):
    with database.write() as tx, pytest.raises(ValueError, match="not a project's name"):
        projects.ensure(tx, name)


# ---- quotas ----------------------------------------------------------------------------------------------------------


def test_own_quotas_come_before_those_of_the_settings(settings):
    own = tables.Project(id="x", queued_jobs=3)
    assert Quotas.of(own, settings.model_copy(update={"quota_running_jobs": 5})) == Quotas(3, 5, None, 6000)


def test_queued_jobs(database):
    who = caller(database, "small", queued_jobs=2)
    first = submit(database, who)
    with who.of(database).write() as tx:
        assert projects.admit_jobs(tx, 1) == 0
        with pytest.raises(QuotaExceeded) as refused:
            projects.admit_jobs(tx, 2)
    assert refused.value.extra == {"violated-policies": ["queued-jobs"]}
    with who.of(database).write() as tx:
        jobs.cancel(tx, first)
        assert projects.admit_jobs(tx, 2) == 0


def test_stored_bytes(database):
    who = caller(database, "full", stored_bytes=100)
    job = submit(database, who)
    finish(
        database,
        [attempts.Artifact("a", 60, "0" * 64, "text/plain", "a"), attempts.Artifact("b", 40, "0" * 64, "x/y", "b")],
    )
    with who.of(database).write() as tx:
        assert projects.stored_bytes(tx) == 100
        with pytest.raises(QuotaExceeded, match="stores 100 bytes"):
            projects.admit_jobs(tx, 1)
        jobs.delete(tx, job)
        projects.admit_jobs(tx, 1)


def finish(database, artifacts=()):
    with database.write() as tx:
        attempt = attempts.claim(tx, "wrk_test", cuda=False)
        attempts.finish(tx, attempt, factories.results(), artifacts)


def claimed(database, **options):
    with database.write() as tx:
        attempt = attempts.claim(tx, "wrk_test", cuda=False, **options)
        return attempt and attempt.job_id


def test_jobs_of_a_project_at_its_limit_are_passed_over(database):
    one, free = caller(database, "one", running_jobs=1), caller(database, "free")
    first, second = submit(database, one, priority=5), submit(database, one, priority=5)
    third, fourth = submit(database, free), submit(database, free)
    assert [claimed(database) for _ in range(4)] == [first, third, fourth, None]
    with one.of(database).write() as tx:
        jobs.cancel(tx, first)  # until its process is gone it holds its place
    assert claimed(database) is None
    with database.write() as tx:
        attempts.stopped(tx, attempts.Attempt(first, 1, 1, {}, 60))
    assert claimed(database) == second


def test_a_limit_of_the_settings_is_for_projects_without_their_own(database):
    two, plain = caller(database, "two", running_jobs=2), caller(database, "plain")
    own = [submit(database, two) for _ in range(3)]
    others = [submit(database, plain) for _ in range(2)]
    assert [claimed(database, running_jobs=1) for _ in range(4)] == [*own[:2], others[0], None]


def test_racing_claims_keep_the_limit(database):
    who = caller(database, "three", running_jobs=3)
    for _ in range(12):
        submit(database, who)
    got = []
    threads = [threading.Thread(target=lambda: got.append(claimed(database))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in got if one]) == 3


def test_racing_submissions_keep_the_quota(database):
    who = caller(database, "five", queued_jobs=5)
    refused = []

    def one():
        try:
            with who.of(database).write() as tx:
                projects.admit_jobs(tx, 1)
                jobs.submit(tx, tiny())
        except QuotaExceeded:
            refused.append(1)

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
