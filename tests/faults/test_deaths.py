"""Whatever dies, the job ends as if nothing had happened: workers, training processes, servers."""

import signal

from sqlalchemy import select

from lab import tables
from lab.errors import DatabaseUnavailable
from lab.states import State
from tests.factories import TINY
from tests.service import LONG, eventually, gone

QUICK = {"model": TINY["model"], "training": TINY["training"], "alignment": TINY["alignment"]}


def test_a_killed_training_process_is_followed_by_one_that_goes_on_where_it_was(service, undisturbed):
    service.start_worker()
    job_id = service.submit()
    known = service.checkpointed(job_id)
    (runner,) = service.runners()
    runner.kill()
    job = service.succeeded(job_id, undisturbed)
    first, second = service.two_attempts(job_id)
    assert (first.outcome, second.outcome, job["attempt"]) == ("killed", "finish", 2)
    assert second.first_step >= known[-1].step
    assert service.checkpoints(job_id) == ()
    assert list(service.settings.attempts_dir.iterdir()) == []
    assert [path.name for path in (service.settings.artifacts_dir / job_id).iterdir()] == ["attempt-2"]


def test_a_killed_worker_takes_its_process_along_and_its_job_goes_on_elsewhere(service, undisturbed):
    worker = service.start_worker()
    job_id = service.submit()
    service.checkpointed(job_id)
    (runner,) = service.runners()
    worker.kill()
    worker.wait()
    eventually(lambda: gone(runner))
    service.start_worker()
    service.succeeded(job_id, undisturbed)
    first, second = service.two_attempts(job_id)
    assert (first.outcome, second.first_step > 0) == ("lost_worker", True)
    eventually(lambda: list(service.settings.attempts_dir.iterdir()) == [])


def test_a_worker_that_is_shut_down_stores_the_state_and_gives_its_job_back(service, undisturbed):
    worker = service.start_worker()
    job_id = service.submit()
    service.training(job_id)
    (runner,) = service.runners()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert gone(runner)
    assert service.job(job_id)["status"] == "queued"
    (stored, *_) = service.checkpoints(job_id)
    assert stored.step == service.job(job_id)["progress"]["step"] > 0
    service.start_worker()
    service.succeeded(job_id, undisturbed)
    first, second = service.two_attempts(job_id)
    assert (first.outcome, second.first_step) == ("preempted", stored.step)


def test_ctrl_c_ends_a_worker_as_cleanly(own_service):
    service, _ = own_service
    worker = service.start_worker()
    job_id = service.submit(**LONG)
    service.training(job_id)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(30) == 0
    assert service.job(job_id)["status"] == "queued"


def test_a_process_that_dies_twice_is_not_tried_a_third_time(service):
    service.start_worker()
    job_id = service.submit(**LONG)
    for attempt in (1, 2):
        eventually(lambda attempt=attempt: service.job(job_id)["attempt"] == attempt)
        eventually(service.runners)[0].kill()
    job = service.ended(job_id)
    assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", "killed", 2)
    assert "signal 9" in job["error"]["message"]


def test_processes_that_train_together_die_together(own_service):
    """The first takes the other along; the death of the other is told of, and counts as the first one's would."""
    service, _ = own_service
    service.start_worker()
    job_id = service.submit(**LONG | {"training": LONG["training"] | {"devices": 2}})
    service.training(job_id)
    (leader,) = service.runners()
    (follower,) = leader.children()
    leader.kill()
    eventually(lambda: gone(follower))
    eventually(lambda: service.job(job_id)["attempt"] == 2)
    (leader,) = eventually(service.runners)
    (follower,) = eventually(leader.children)
    follower.kill()
    job = service.ended(job_id)
    assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", "killed", 2)
    assert job["error"]["message"].endswith("process 2 of 2 was killed by signal 9")
    assert gone(leader)


def test_a_worker_that_sleeps_past_its_lease_is_refused_when_it_wakes(service, undisturbed):
    sleeper = service.start_worker()
    job_id = service.submit()
    service.checkpointed(job_id)
    (runner,) = service.runners()
    put_to_sleep(sleeper, service, job_id)
    service.start_worker()
    eventually(lambda: service.job(job_id)["attempt"] == 2)
    eventually(lambda: gone(runner))  # it has heard nothing of its supervisor for a lease
    sleeper.send_signal(signal.SIGCONT)
    service.succeeded(job_id, undisturbed)
    late = eventually(lambda: (rows := service.attempts(job_id))[0].refused_writes and rows[0])
    assert (late.outcome, late.refused_writes) == ("lost_worker", 1)
    assert [event["level"] for event in service.events(job_id) if "refused" in event["message"]] == ["warning"]


def put_to_sleep(process, service, job_id):
    """Stop it between two transactions: asleep in one it would hold locks, and nobody else could go on."""
    while True:
        process.send_signal(signal.SIGSTOP)
        try:
            with service.database.write() as tx:
                tx.execute(select(tables.Job.id).where(tables.Job.id == job_id).with_for_update(nowait=True))
        except DatabaseUnavailable:
            process.send_signal(signal.SIGCONT)
        else:
            return


def test_two_workers_train_each_of_many_jobs_once(own_service):
    service, _ = own_service
    service.start_worker()
    service.start_worker()
    ids = [service.submit(**QUICK | {"training": TINY["training"] | {"seed": seed}}) for seed in range(12)]
    assert ended(service, ids) == [(State.SUCCEEDED, 1)] * 12


def ended(service, ids):
    return [(job["status"], job["attempt"]) for job in (service.ended(job_id) for job_id in ids)]


def test_the_broker_is_killed_and_forgets_everything(own_service, undisturbed):
    service, broker = own_service
    service.start_worker(slots=1)
    before = service.submit()
    service.training(before)
    waiting = service.submit(**QUICK)
    broker.process.kill()
    broker.process.wait()
    unheard = service.submit(**QUICK)
    service.succeeded(before, undisturbed)
    for file in broker.folder.glob("appendonlydir/*"):
        file.unlink()
    broker.start()
    after = service.submit(**QUICK)
    assert ended(service, [before, waiting, unheard, after]) == [(State.SUCCEEDED, 1)] * 4


def test_a_worker_shuts_down_while_the_broker_is_away(own_service):
    service, broker = own_service
    worker = service.start_worker()
    broker.stop()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_a_job_whose_bell_was_never_rung_is_trained(own_service):
    """As after a crash between the commit and the bell."""
    service, _ = own_service
    service.start_worker()
    silent = service.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    service.settings, heard = silent, service.settings
    job_id = service.submit(**QUICK)
    service.settings = heard
    assert ended(service, [job_id]) == [(State.SUCCEEDED, 1)]


def test_the_database_is_killed_while_a_job_trains(own_database, undisturbed):
    service, database = own_database
    service.start_worker()
    job_id = service.submit()
    service.checkpointed(job_id)
    database.kill()
    database.start()
    job = service.succeeded(job_id, undisturbed)
    assert job["attempt"] == 1, "the training went on meanwhile"
    assert ended(service, [service.submit(**QUICK)]) == [(State.SUCCEEDED, 1)]
