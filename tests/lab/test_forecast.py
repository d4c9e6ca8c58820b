"""What a job would cost: arithmetic, corrected by finished jobs; limits warn, then refuse."""

from dataclasses import replace

import pytest

from credit import duration, memory
from lab import attempts, forecast, jobs
from lab.errors import InvalidSpec
from tests import factories

ROOMY = 2**40


def told(database, run, limit=ROOMY):
    with database.read() as tx:
        return forecast.forecast(tx, run, memory_limit=limit)


def finish(database, run, train_seconds):
    """A job of this run that has succeeded and took so long."""
    results = factories.results() | {"cost": {"train_seconds": train_seconds}}
    with database.write() as tx:
        jobs.submit(tx, run)
        attempt = attempts.claim(tx, "wrk_test", cuda=False)
        attempts.finish(tx, attempt, results, [])


def test_without_finished_jobs_it_is_arithmetic(database):
    run = factories.tiny()
    cost = told(database, run)
    assert (cost.estimated_from, cost.estimated_seconds) == ("analytic", duration.seconds(run))
    assert (cost.peak_memory_bytes, cost.warnings) == (memory.peak_bytes(run), [])


def test_finished_jobs_of_the_same_kind_correct_it(database):
    run = factories.tiny()
    for factor in (2.0, 3.0, 50.0):
        finish(database, run, factor * duration.seconds(run))
    longer = replace(run, training=replace(run.training, epochs=7))
    cost = told(database, longer)
    assert cost.estimated_from == "measured"
    assert cost.estimated_seconds == pytest.approx(3.0 * duration.seconds(longer))
    for other in (
        factories.tiny(method="bp"),
        factories.tiny(model={"name": "cnn"}),
        replace(run, training=replace(run.training, threads=2)),
        replace(run, training=replace(run.training, devices=2)),
        replace(run, training=replace(run.training, together=True)),
    ):
        assert told(database, other).estimated_from == "analytic"


def test_it_is_said_why_a_job_will_train_alone(database):
    together = {"training": factories.TINY["training"] | {"together": True}}
    assert told(database, factories.tiny(**together)).warnings == []
    assert told(database, factories.tiny(model="cnn")).warnings == []
    for model, why in (
        ("cnn", "only nets that begin by flattening their images into a dense layer train together"),
        ({"name": "mlp", "hidden": [2000]}, "nets with layers of more than 512 units train no quicker together"),
    ):
        (warning,) = told(database, factories.tiny(**together, model=model)).warnings
        assert (warning["pointer"], warning["code"]) == ("#/training/together", "alone")
        assert warning["detail"] == f"the job will train alone: {why}"


def test_a_limit_of_time_warns_then_refuses(database):
    run = factories.tiny()
    seconds = duration.seconds(run)
    assert told(database, replace(run, max_runtime_seconds=1.1 * seconds)).warnings == []
    (warning,) = told(database, replace(run, max_runtime_seconds=0.6 * seconds)).warnings
    assert (warning["pointer"], warning["code"]) == ("#/max_runtime_seconds", "runtime")
    with pytest.raises(InvalidSpec) as refused:
        told(database, replace(run, max_runtime_seconds=0.4 * seconds))
    assert refused.value.extra["errors"][0]["pointer"] == "#/max_runtime_seconds"


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"model": {"name": "mlp", "hidden": [4096, 4096]}}, "#/model"),
        (
            {"model": {"name": "cnn"}, "training": factories.TINY["training"] | {"batch_size": 4096}},
            "#/training/batch_size",
        ),
        ({"dataset": "mnist"}, "#/dataset"),
    ],
)
def test_memory_that_is_not_there_is_refused_where_it_comes_from(database, fields, pointer):
    run = factories.tiny(**fields)
    data = run.dataset
    needed = memory.peak_bytes(run) + (784 + 8) * (data.train_images + data.test_images)
    assert told(database, run, 2 * needed).warnings == []
    (warning,) = told(database, run, needed).warnings
    assert (warning["pointer"], warning["code"]) == (pointer, "memory")
    with pytest.raises(InvalidSpec) as refused:
        told(database, run, needed - 1)
    (error,) = refused.value.extra["errors"]
    assert error["pointer"] == pointer
    assert str(needed - 1) in error["detail"]
    with database.read() as tx, pytest.raises(InvalidSpec):
        forecast.check(tx, run, memory_limit=needed - 1)
