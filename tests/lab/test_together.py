"""Which jobs are claimed as one computation, and how the fleet counts them."""

import pytest

from lab import attempts, fleet, jobs, projects, schedule, tables, together
from lab.db import Database
from tests.factories import TINY, tiny
from tests.lab.life import claim, forget_backoff
from tests.lab.test_fleet import add_worker


def submit(database: Database, seed: int = 1, **fields) -> str:
    training = TINY["training"] | {"together": True} | fields.pop("training", {}) | {"seed": seed}
    with database.write() as tx:
        return jobs.submit(tx, tiny(training=training, **fields)).id


def claim_all(database: Database, worker: str = "wrk_a", running_jobs: int | None = None) -> list[attempts.Attempt]:
    with database.write() as tx:
        first = attempts.claim(tx, worker, cuda=False, running_jobs=running_jobs)
        assert first is not None
        return [first, *attempts.companions(tx, worker, first, running_jobs=running_jobs)]


def ids(claimed: list[attempts.Attempt]) -> list[str]:
    return [attempt.job_id for attempt in claimed]


def test_jobs_that_differ_in_seed_name_and_labels_are_claimed_at_once(database):
    job_ids = [submit(database, seed, name=f"seed {seed}", labels={"seed": f"{seed}"}) for seed in range(4)]
    claimed = claim_all(database)
    assert ids(claimed) == job_ids
    assert {(attempt.number, attempt.fence) for attempt in claimed} == {(1, 1)}
    assert claim(database) is None
    with database.read() as tx:
        assert {row.together_with for row in tx.query(tables.Attempt)} == {job_ids[0]}
        assert {tx.get_one(tables.Job, job_id).status for job_id in job_ids} == {"running"}


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": {"name": "adam", "lr": 0.01}},
        {"priority": -1},
        {"training": {"together": False}},
        {"training": {"epochs": 3}},
        {"alignment": {"samples": 16}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_job_that_differs_in_anything_else_trains_alone(database, other):
    first, stranger, alike = submit(database), submit(database, 2, **other), submit(database, 3)
    assert ids(claim_all(database)) == [first, alike]
    assert ids(claim_all(database)) == [stranger]
    with database.read() as tx:
        assert tx.get_one(tables.Attempt, (stranger, 1)).together_with is None


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "cnn"},
        {"model": {"name": "mlp", "hidden": [16], "dropout": 0.1}},
        {"model": {"name": "mlp", "hidden": [2000]}},
    ],
    ids=["convolutions", "dropout", "too wide to pay"],
)
def test_what_cannot_or_need_not_train_together_is_accepted_and_trains_alone(database, fields):
    first, second = submit(database, 1, **fields), submit(database, 2, **fields)
    assert ids(claim_all(database)) == [first]
    assert ids(claim_all(database)) == [second]


def test_a_job_that_has_been_tried_goes_on_alone(database):
    job_id = submit(database)
    attempt = claim(database)
    with database.write() as tx:
        attempts.lose(tx, attempt, "killed", "killed by signal 9")
    forget_backoff(database, job_id)
    others = [submit(database, seed) for seed in (2, 3)]
    assert ids(claim_all(database)) == [job_id]
    assert ids(claim_all(database)) == others


def test_a_tried_job_is_nobodys_companion(database):
    fresh, tried, other = submit(database), submit(database, 2), submit(database, 3)
    with database.write() as tx:
        tx.get_one(tables.Job, tried).attempt = 1
    assert ids(claim_all(database)) == [fresh, other]


def test_no_more_are_claimed_than_a_project_may_have_running(database):
    job_ids = [submit(database, seed) for seed in range(4)]
    assert ids(claim_all(database, running_jobs=3)) == job_ids[:3]


def test_no_more_are_claimed_than_train_together(database):
    for seed in range(together.MOST + 2):
        submit(database, seed)
    assert len(claim_all(database)) == together.MOST
    assert len(claim_all(database)) == 2


@pytest.mark.parametrize(("free", "shares"), [(1, [3, 2]), (2, [2, 2, 1]), (9, [1] * 5)])
def test_free_slots_get_as_many_each(database, free, shares):
    add_worker(database, "wrk_a", slots=free)
    add_worker(database, "wrk_b", slots=1)
    add_worker(database, "wrk_gone", slots=8, age=fleet.ALIVE_SECONDS + 1)
    for seed in range(5):
        submit(database, seed)
    assert [
        len(claim_all(database, worker)) for worker in ["wrk_a", "wrk_b", "wrk_a", "wrk_a", "wrk_a"][: len(shares)]
    ] == shares


def test_another_projects_jobs_train_in_another_process(database):
    with database.write() as tx:
        projects.ensure(tx, "other")
    mine, theirs = submit(database), submit(database, 2)
    with database.write() as tx:
        tx.get_one(tables.Job, theirs).project_id = "other"
    assert ids(claim_all(database)) == [mine]


def test_jobs_that_train_together_take_one_slot(database):
    job_ids = [submit(database, seed) for seed in range(3)]
    claimed = claim_all(database)
    add_worker(database, "wrk_a", slots=2)
    waiting = submit(database, 9, training={"together": False})
    with database.read() as tx:
        (worker,) = fleet.fleet(tx)
        taken, idle = fleet.worker_view(worker, None)["slots"]
        (entry,) = fleet.queue(tx, 10, None, secret="s")["data"]
        hidden, _ = fleet.worker_view(worker, "another")["slots"]
    assert (taken["job_id"], taken["job_ids"], taken["busy"], idle["busy"]) == (job_ids[0], job_ids, True, False)
    assert (hidden["job_id"], hidden["job_ids"], hidden["busy"]) == (None, [], True)
    assert (entry["job_id"], entry["reason"]) == (waiting, None)
    with database.write() as tx:
        attempts.fail(tx, claimed[0], "user_error", "no")
    with database.read() as tx:
        slots = fleet.workers(tx)["data"][0]["slots"]
    assert [slot["job_ids"] for slot in slots] == [job_ids[1:], []]


@pytest.mark.parametrize(("free", "at"), [(0, [3, 3, 3]), (1, [0, 0, 0]), (2, [0, 0, 0])])
def test_jobs_that_train_together_are_expected_to_start_together(free, at):
    """Three that take a second each, and slots of which one is taken for three seconds more."""
    waiting = [schedule.Waiting(f"{place}", "p", ("cpu",), 0.0, 1.0, ("alike",)) for place in range(3)]
    told = schedule.play(waiting, {"cpu": free, "cuda": 0}, {}, [schedule.End(3.0, "p", "cpu")])
    assert [told[job.id] for job in waiting] == at


def test_a_project_with_little_room_is_expected_to_start_fewer():
    waiting = [schedule.Waiting(f"{place}", "p", ("cpu",), 0.0, 1.0, ("alike",)) for place in range(3)]
    told = schedule.play(waiting, {"cpu": 1, "cuda": 0}, {"p": 2}, [])
    assert [told[job.id] for job in waiting] == [0, 0, 2]
