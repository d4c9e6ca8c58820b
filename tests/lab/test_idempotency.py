"""Idempotency keys: how they are read, what counts as the same request, and how long an answer is kept."""

import pytest
from sqlalchemy import update

from lab import idempotency, tables
from lab.db import now
from lab.errors import BadHeader, IdempotencyMismatch, RequestInProgress
from lab.idempotency import Answer, Request, fingerprint, key_of

ANSWER = Answer(202, {"location": "/v1/jobs/job_x"}, '{"id":"job_x"}')
REQUEST = Request("POST", "/v1/jobs", "k", "f" * 64)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ([], None),
        (["abc"], "abc"),
        (['"abc"'], "abc"),
        (["a b"], "a b"),
        (['"a\\"b\\\\"'], 'a"b\\'),
        (["x" * 255], "x" * 255),
        (['"' + "x" * 255 + '"'], "x" * 255),
    ],
)
def test_a_key_is_read_bare_or_quoted(given, key):
    assert key_of(given) == key


@pytest.mark.parametrize(
    "given", [[""], ['""'], ["x" * 256], ["é"], ["a\tb"], ['"a'], ['a"b"\x7f'], ["a", "a"], ['"a" b']]
)
def test_other_keys_are_refused(given):
    with pytest.raises(BadHeader):
        key_of(given)


def test_order_and_spelling_do_not_make_another_request():
    same = fingerprint([("a", "1"), ("b", "2")], {"x": 1.0, "y": [1, 2]})
    assert same == fingerprint([("b", "2"), ("a", "1")], {"y": [1, 2], "x": 1})
    for query, body in (([("a", "1")], {"x": 1, "y": [1, 2]}), ([("a", "1"), ("b", "2")], {"x": 1, "y": [2, 1]})):
        assert same != fingerprint(query, body)
    assert fingerprint([], {"seed": 2**60}) != fingerprint([], {"seed": 2**60 + 1})


def keep(database):
    with database.write() as tx:
        assert REQUEST.begin(tx) is None
        REQUEST.keep(tx, ANSWER)


def test_an_answer_is_found_again(database):
    keep(database)
    with database.read() as tx:
        assert REQUEST.find(tx) == ANSWER
        assert Request("POST", "/v1/jobs", "other", REQUEST.fingerprint).find(tx) is None
        assert Request("POST", "/v1/other", "k", REQUEST.fingerprint).find(tx) is None
        with pytest.raises(IdempotencyMismatch):
            Request("POST", "/v1/jobs", "k", "0" * 64).find(tx)


def test_a_rollback_frees_the_key(database):
    def fail():
        with database.write() as tx:
            REQUEST.keep(tx, ANSWER)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    keep(database)


def test_after_a_day_the_key_is_free(database):
    keep(database)
    with database.write() as tx:
        assert idempotency.expire(tx) == 0
        tx.execute(update(tables.IdempotencyRecord).values(expires_at=tables.IdempotencyRecord.created_at))
    with database.read() as tx:
        assert REQUEST.find(tx) is None
    keep(database)  # takes the place of the one that has expired
    with database.write() as tx:
        assert tx.get(tables.IdempotencyRecord, ("default", "POST", "/v1/jobs", "k")).expires_at > now(tx)
        tx.execute(update(tables.IdempotencyRecord).values(expires_at=tables.IdempotencyRecord.created_at))
        assert idempotency.expire(tx) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_request_that_is_being_answered_is_said_to_be(database):
    with database.write() as first:
        REQUEST.begin(first)
        with database.write() as second:
            with pytest.raises(RequestInProgress):
                REQUEST.begin(second)
            assert Request("POST", "/v1/jobs", "other", REQUEST.fingerprint).begin(second) is None
        REQUEST.keep(first, ANSWER)
    with database.write() as tx:
        assert REQUEST.begin(tx) == ANSWER
