"""How often an answer asks the database: as often whatever is asked for, since each time costs its milliseconds."""

import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from tests import factories


@contextmanager
def counted(service):
    """The statements of requests, which run in threads of their own; the reconciler's are not among them."""
    statements = []

    def note(_connection, _cursor, statement, *_):
        if threading.current_thread().name.startswith("AnyIO") and statement != "BEGIN":
            statements.append(statement)

    event.listen(service.database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(service.database.engine, "before_cursor_execute", note)


def asked(service, method, path, **options):
    with counted(service) as statements:
        answer = service.client.request(method, path, **options)
    assert answer.is_success, answer.text
    return answer, statements


@pytest.fixture
def twenty(service):
    """Jobs with labels and twins."""
    return [service.submit(labels={"group": "a", "number": str(n)}, controls=["bp"]) for n in range(10)]


def test_a_page_costs_the_same_however_long_it_is(service, twenty):
    found = {}
    for limit in (1, 20):
        answer, statements = asked(service, "GET", "/v1/jobs", params={"limit": limit})
        assert len(answer.json()["data"]) == limit
        found[limit] = len(statements)
    assert found[1] == found[20] <= 2, "who asks, and the jobs with their labels and twins"


def test_neither_a_page_nor_a_job_reads_results(service, twenty):
    for path in ("/v1/jobs", f"/v1/jobs/{twenty[0]}"):
        _, statements = asked(service, "GET", path)
        assert not any("results" in statement for statement in statements)
        assert len(statements) <= 2


def test_a_job_that_the_client_knows_costs_no_more(service, twenty):
    path = f"/v1/jobs/{twenty[0]}"
    tag = service.client.get(path).headers["etag"]
    with counted(service) as statements:
        assert service.client.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert len(statements) <= 2


def test_a_submission_costs_the_same_beside_many_jobs(service):
    found = []
    for number in range(2):
        _, statements = asked(
            service, "POST", "/v1/jobs", json=factories.TINY, headers={"Idempotency-Key": f"key {number}"}
        )
        found.append(len(statements))
        for _ in range(5):
            service.submit()
    assert found[0] == found[1] <= 12
