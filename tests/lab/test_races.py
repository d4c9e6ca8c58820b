"""Claims, commands and endings that race: whatever the order, one wins and the log stays whole."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from lab import attempts, jobs, reads, tables
from lab.db import now
from lab.errors import WrongState
from lab.states import EDGES, HELD, TERMINAL, Event
from tests.factories import checkpointed, progress, results, started, tiny

QUICK = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


def test_two_claimers_have_one_winner_each_time(database):
    rounds = 200
    with database.write() as tx:
        for _ in range(rounds):
            jobs.submit(tx, tiny())

    def claim_all(worker):
        won = []
        while True:
            with database.write() as tx:
                attempt = attempts.claim(tx, worker, cuda=False)
            if attempt is None:
                return won
            won.append(attempt.job_id)

    with ThreadPoolExecutor(4) as pool:
        won = [job_id for share in pool.map(claim_all, ["wrk_1", "wrk_2", "wrk_3", "wrk_4"]) for job_id in share]
    assert len(won) == len(set(won)) == rounds


def test_a_cancel_and_an_end_at_once_leave_one_end(database):
    for _ in range(10):
        with database.write() as tx:
            job_id = jobs.submit(tx, tiny()).id
            attempt = attempts.claim(tx, "wrk_1", cuda=False)

        def cancel(job_id=job_id):
            try:
                with database.write() as tx:
                    return jobs.cancel(tx, job_id).status
            except WrongState as refusal:
                return refusal.extra["job_status"]

        def finish(attempt=attempt):
            with database.write() as tx:
                return attempts.finish(tx, attempt, results(), []).status

        with ThreadPoolExecutor(2) as pool:
            cancelled, finished = pool.submit(cancel), pool.submit(finish)
        with database.read() as tx:
            job = reads.job_view(tx, job_id)
            log = reads.events(tx, job_id)["data"]
        assert job["status"] == finished.result()
        assert (cancelled.result(), finished.result()) in {("cancelling", "cancelled"), ("succeeded", "succeeded")}
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))


class Life:
    """One job, and what may happen to it."""

    def __init__(self, database):
        self.database = database
        with database.write() as tx:  # examples share the database: the claims must find this job
            tx.execute(update(tables.Job).where(tables.Job.status == "queued").values(priority=-1))
            self.id = jobs.submit(tx, tiny(priority=100)).id
        self.attempt = attempts.Attempt(self.id, 1, 99, {}, 10)
        self.first = None

    def claim(self, tx):
        won = attempts.claim(tx, "wrk_1", cuda=False)
        if won and won.job_id == self.id:
            self.attempt, self.first = won, self.first or won

    def record(self, tx):
        attempts.record(tx, self.attempt, [started(), progress(10)])

    def record_late(self, tx):
        if self.first:
            attempts.record(tx, self.first, [])

    def finish(self, tx):
        attempts.finish(tx, self.attempt, results(), [])

    def fail(self, tx):
        attempts.fail(tx, self.attempt, "diverged", "why")

    def lose(self, tx):
        attempts.lose(tx, self.attempt, "killed", "why", max_attempts=3)

    def preempt(self, tx):
        attempts.preempt(tx, self.attempt)

    def defer(self, tx):
        attempts.defer(tx, self.attempt, "storage_unavailable", "why")

    def checkpoint(self, tx):
        attempts.record(tx, self.attempt, [started(), progress(10), checkpointed(10)])

    def paused(self, tx):
        attempts.paused(tx, self.attempt)

    def pause(self, tx):
        jobs.pause(tx, self.id)

    def resume(self, tx):
        jobs.resume(tx, self.id)

    def retry(self, tx):
        jobs.retry(tx, self.id)

    def stopped(self, tx):
        attempts.stopped(tx, self.attempt)

    def cancel(self, tx):
        jobs.cancel(tx, self.id)

    def wait(self, tx):
        over = now(tx) - timedelta(seconds=1)
        tx.execute(update(tables.Job).where(tables.Job.id == self.id).values(not_before=over))

    def look(self):
        with self.database.read() as tx:
            return jobs.get(tx, self.id), reads.events(tx, self.id, limit=1000)["data"]


steps = [name for name in vars(Life) if not name.startswith("_") and name != "look"]


@settings(max_examples=60, **QUICK)
@given(st.lists(st.sampled_from(steps), max_size=14))
def test_any_order_of_events_follows_the_table(database, sequence):
    """Whatever happens in whatever order, the row is where the table of states says, and its counters tell."""
    life = Life(database)
    for step in sequence:
        before, _ = life.look()
        with contextlib.suppress(attempts.Fenced, WrongState), database.write() as tx:
            getattr(life, step)(tx)
        after, log = life.look()
        moved = after.status != before.status
        assert after.status_changes == before.status_changes + moved
        assert after.version > before.version or not moved
        assert not moved or after.status in {EDGES.get((before.status, event)) for event in Event}
        assert (after.finished_at is not None) == (after.status in TERMINAL)
        assert (after.lease_expires_at is not None) == (after.status in HELD)
        assert [event["seq"] for event in log] == list(range(1, after.last_seq + 1))
        assert after.fence == after.attempt
