"""API keys: told from typos without a query, stored hashed, good until they expire or are revoked."""

from datetime import timedelta

import pytest
from sqlalchemy import event, select

from lab import jobs, keys, projects, tables
from lab.db import now
from lab.errors import InvalidKey, MissingScope
from tests.factories import tiny


def made(database, scope="write", **fields):
    with database.write() as tx:
        key, secret = keys.create(tx, "of a test", scope, **fields)
        return key.id, secret


def test_a_key_has_130_random_bits_and_a_checksum():
    secrets = {keys.make_secret() for _ in range(1000)}
    assert len(secrets) == 1000
    assert all(len(secret) == 32 and secret.isascii() and keys.is_wellformed(secret) for secret in secrets)
    assert len(keys.BASE62) == len(set(keys.BASE62)) == 62
    assert keys.checksum("0" * 22) == keys.checksum("0" * 22) != keys.checksum("0" * 21 + "1")


def test_every_typo_of_one_character_is_seen():
    secret = keys.make_secret()
    for place in range(len(secret)):
        for other in "aZ0_é":
            typo = secret[:place] + other + secret[place + 1 :]
            assert keys.is_wellformed(typo) == (typo == secret)
    for odd in ("", "clk_", secret[:-1], secret + "a", secret.upper(), f" {secret}"):
        assert not keys.is_wellformed(odd)


def test_a_typo_asks_the_database_nothing(database, settings):
    asked = []
    event.listen(database.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    for odd in ("", "clk_" + "0" * 28, "x" * 10_000):
        with pytest.raises(InvalidKey):
            keys.caller_with(database, odd, settings)
    assert asked == []


def test_a_key_says_who_calls(database, settings):
    with database.write() as tx:
        projects.ensure(tx, "vision").queued_jobs = 7
    key_id, secret = made(database, "read", project="vision")
    caller = keys.caller_with(database, secret, settings)
    assert (caller.project_id, caller.key_id, caller.scope) == ("vision", key_id, "read")
    assert caller.quotas == projects.Quotas(7, None, None, settings.quota_requests_per_minute)
    with pytest.raises(InvalidKey, match="no such key"):
        keys.caller_with(database, keys.make_secret(), settings)


def test_expiry_and_revocation(database, settings):
    with database.read() as tx:
        moment = now(tx)
    _, late = made(database, expires_at=moment)
    _, good = made(database, expires_at=moment + timedelta(hours=1))
    revoked_id, revoked = made(database)
    with database.write() as tx:
        first = keys.revoke(tx, revoked_id).revoked_at
        assert keys.revoke(tx, revoked_id).revoked_at == first
    assert keys.caller_with(database, good, settings).scope == "write"
    with pytest.raises(InvalidKey, match="expired"):
        keys.caller_with(database, late, settings)
    with pytest.raises(InvalidKey, match="revoked"):
        keys.caller_with(database, revoked, settings)


def test_scopes_hold_those_before_them(database, settings):
    for held, allowed in (("read", 1), ("write", 2), ("admin", 3)):
        caller = keys.caller_with(database, made(database, held)[1], settings)
        for place, needed in enumerate(tables.SCOPES):
            if place < allowed:
                keys.require(caller, needed)
            else:
                with pytest.raises(MissingScope):
                    keys.require(caller, needed)


def test_use_is_written_at_most_once_a_minute(database, settings):
    key_id, secret = made(database)
    writes = []

    def note(connection, cursor, statement, *rest):
        writes.extend([statement] if statement.startswith("UPDATE keys") else [])

    def used():
        with database.read() as tx:
            return tx.get(tables.Key, key_id).last_used_at

    event.listen(database.engine, "before_cursor_execute", note)
    assert used() is None
    for _ in range(5):
        keys.caller_with(database, secret, settings)
    first = used()
    assert first is not None
    assert len(writes) == 1
    with database.write() as tx:  # a minute passes
        tx.get(tables.Key, key_id).last_used_at = first - timedelta(seconds=60)
    writes.clear()
    keys.caller_with(database, secret, settings)
    assert used() >= first
    assert len(writes) == 1


def test_the_first_key_is_made_once(database, settings):
    with database.write() as tx:
        secret = keys.first(tx)
    with database.write() as tx:
        assert keys.first(tx) is None
    assert keys.caller_with(database, secret, settings).scope == "admin"


def test_nothing_stored_holds_a_key(database, settings):
    secrets = [made(database, scope)[1] for scope in tables.SCOPES]
    for secret in secrets:
        caller = keys.caller_with(database, secret, settings)
        with caller.of(database).write() as tx:
            jobs.submit(tx, tiny())
    with database.read() as tx:
        dump = repr([tx.execute(select(table)).all() for table in tables.metadata.sorted_tables])
    assert not any(secret[4:-4] in dump for secret in secrets)
    assert all(keys.hash_of(secret) in dump for secret in secrets)
