"""Lists are cut after they are filtered, and their cursors fit one list only."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab import attempts, jobs, reads
from lab.errors import BadCursor, CursorMismatch
from lab.reads import Filters
from tests.factories import tiny

SECRET = "the secret of this test"
KINDS = [
    ("dfa", {"name": "mlp", "hidden": [8]}, {"group": "a", "table": "1"}),
    ("bp", {"name": "mlp", "hidden": [8]}, {"group": "a"}),
    ("dfa", "launay_fc", {"group": "b", "table": "1"}),
    ("fa", {"name": "mlp", "hidden": [8]}, {}),
]


@pytest.fixture
def thirty(database):
    """Thirty jobs of four kinds, a third of them cancelled."""
    with database.write() as tx:
        ids = []
        for number in range(30):
            method, model, labels = KINDS[number % 4]
            ids.append(jobs.submit(tx, tiny(method=method, model=model, labels=labels)).id)
        for job_id in ids[::3]:
            jobs.cancel(tx, job_id)
    return ids


def pages(database, filters, limit):
    after, found = None, []
    while True:
        page = reads.list_jobs(database, filters, limit, after, secret=SECRET)
        found.append(page["data"])
        if not page["has_more"]:
            assert page["next"] is None
            return found
        after = page["next"]


def matches(job, filters):
    return (
        (not filters.status or job["status"] in filters.status)
        and filters.method in {None, job["spec"]["method"]["name"]}
        and filters.model in {None, job["spec"]["model"]["name"]}
        and all(job["labels"].get(key) == value for key, value in filters.labels)
    )


some_filters = st.builds(
    Filters,
    status=st.lists(st.sampled_from(["queued", "cancelled", "failed"]), max_size=2).map(tuple),
    method=st.none() | st.sampled_from(["dfa", "bp", "sbd"]),
    model=st.none() | st.sampled_from(["mlp", "launay_fc"]),
    labels=st.lists(st.sampled_from([("group", "a"), ("table", "1"), ("group", "b")]), max_size=2).map(tuple),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(filters=some_filters, limit=st.integers(1, 40))
def test_the_pages_joined_are_the_filtered_list(database, thirty, filters, limit):
    with database.read() as tx:
        everything = [reads.job_view(tx, job_id) for job_id in reversed(thirty)]
    found = pages(database, filters, limit)
    assert [job["id"] for page in found for job in page] == [job["id"] for job in everything if matches(job, filters)]
    assert all(len(page) == limit for page in found[:-1])


def test_jobs_made_between_two_pages_shift_nothing(database, thirty):
    first = reads.list_jobs(database, Filters(), 10, None, secret=SECRET)
    with database.write() as tx:
        jobs.submit(tx, tiny())
    second = reads.list_jobs(database, Filters(), 20, first["next"], secret=SECRET)
    assert [job["id"] for job in first["data"] + second["data"]] == list(reversed(thirty))


def test_created_after_is_exclusive(database, thirty):
    with database.read() as tx:
        tenth = jobs.get(tx, thirty[9]).created_at
    newer = reads.list_jobs(database, Filters(created_after=tenth), 100, None, secret=SECRET)["data"]
    assert [job["id"] for job in newer] == list(reversed(thirty[10:]))


def test_a_cursor_is_signed_and_fits_its_filters(database, thirty):
    cursor = reads.list_jobs(database, Filters(method="dfa"), 2, None, secret=SECRET)["next"]
    for wrong in ("", "x", cursor[:-1], "A" + cursor, cursor + "é", "☃"):
        with pytest.raises(BadCursor):
            reads.list_jobs(database, Filters(method="dfa"), 2, wrong, secret=SECRET)
    with pytest.raises(BadCursor):
        reads.list_jobs(database, Filters(method="dfa"), 2, cursor, secret="another secret")
    with pytest.raises(CursorMismatch):
        reads.list_jobs(database, Filters(method="bp"), 2, cursor, secret=SECRET)


def test_the_log_is_read_in_pages(database):
    with database.write() as tx:
        job_id = jobs.submit(tx, tiny()).id
        for _ in range(4):
            attempt = attempts.claim(tx, "wrk_1", cuda=False)
            attempts.preempt(tx, attempt)
    after, seqs = 0, []
    while after is not None:
        with database.read() as tx:
            page = reads.events(tx, job_id, after, 2)
        seqs += [event["seq"] for event in page["data"]]
        after = page["next"]
    assert seqs == list(range(1, 10))


def test_every_filter_has_an_index(database):
    if database.engine.dialect.name != "sqlite":
        pytest.skip("an empty PostgreSQL table is always scanned")
    with database.read() as tx:
        for filters in (Filters(status=("queued",)), Filters(method="dfa"), Filters(labels=(("a", "b"),)), Filters()):
            wanted = reads.select(reads.tables.Job).where(*filters.conditions()).order_by(reads.tables.Job.id.desc())
            query = str(wanted.compile(database.engine, compile_kwargs={"literal_binds": True}))
            plan = " ".join(row[3] for row in tx.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
            assert "INDEX" in plan
            assert "TEMP B-TREE FOR ORDER BY" not in plan or filters.status
