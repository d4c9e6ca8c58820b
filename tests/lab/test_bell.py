"""The bell rings after the commit and never otherwise; without a broker it is silent and quick."""

import pytest
from redis import Redis

from creditlab.broker import EmbeddedBroker
from lab import bell, jobs
from lab.settings import Settings
from tests.factories import tiny


def messages(settings) -> int:
    with Redis.from_url(settings.broker_url) as client:
        return client.llen("creditlab:default")


@pytest.fixture
def quiet(settings):
    with Redis.from_url(settings.broker_url) as client:
        client.flushall()
    return settings


def test_one_ring_for_each_job_after_the_commit(database, quiet):
    with database.write() as tx:
        jobs.submit(tx, tiny(controls=["bp", "shallow"]))
        assert messages(quiet) == 0
    assert messages(quiet) == 3


def test_a_rollback_is_silent(database, quiet):
    def fail():
        with database.write() as tx:
            jobs.submit(tx, tiny())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with database.write():
        pass
    assert messages(quiet) == 0


def test_the_broker_is_alive_or_not(settings):
    bell.configure(settings)
    assert bell.alive()
    bell.configure(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    assert not bell.alive()
    bell.configure(Settings())
    assert not bell.alive()


def test_a_job_is_accepted_although_nobody_hears_the_bell(database, caplog):
    bell.configure(Settings(broker_url="redis://127.0.0.1:1/0"))
    with database.write() as tx:
        job_id = jobs.submit(tx, tiny()).id
    with database.read() as tx:
        assert jobs.get(tx, job_id).status == "queued"
    assert "not heard" in caplog.text


def test_a_bell_is_heard_although_the_broker_was_away_since_the_last_one(database, tmp_path):
    broker = EmbeddedBroker(tmp_path)
    settings = Settings(broker_url=broker.start())
    bell.configure(settings)
    try:
        bell.ring(["default"])
        broker.stop()
        broker.start()
        before = messages(settings)
        bell.ring(["default"])
        assert messages(settings) == before + 1
    finally:
        broker.stop()


def test_without_a_server_messages_are_files(database, tmp_path):
    bell.configure(Settings(data_dir=tmp_path, broker_url=f"filesystem://{tmp_path}"))
    assert bell.alive()
    with database.write() as tx:
        jobs.submit(tx, tiny())
    assert len(list((tmp_path / "messages").iterdir())) == 1
