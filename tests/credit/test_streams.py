"""Random streams and schedules."""

import math

import pytest
import torch

from credit import spec
from credit.optimizers import learning_rate
from credit.streams import Streams


def test_streams_are_reproducible_and_independent():
    one, same, other = Streams(7), Streams(7), Streams(8)
    draws = {
        (purpose, index): torch.randn(1000, generator=one.generator(purpose, index))
        for purpose in ("init", "rule", "order")
        for index in (0, 1)
    }
    for (purpose, index), draw in draws.items():
        assert torch.equal(draw, torch.randn(1000, generator=same.generator(purpose, index)))
        assert not torch.equal(draw, torch.randn(1000, generator=other.generator(purpose, index)))
    correlation = torch.corrcoef(torch.stack(list(draws.values()))) - torch.eye(len(draws))
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(1000)


def test_an_order_is_a_permutation_that_changes_with_the_epoch():
    streams = Streams(2**63 - 1)
    first, second = streams.order(0, 500), streams.order(1, 500)
    assert torch.equal(first.sort().values, torch.arange(500))
    assert not torch.equal(first, second)
    assert torch.equal(first, streams.order(0, 500))


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (spec.Constant(), [1, 1, 1, 1, 1, 1]),
        (spec.Cosine(), [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]),
        (spec.Cosine(final=0.5), [0.5 + (1 + math.cos(math.pi * k / 6)) / 4 for k in range(6)]),
        (spec.Linear(final=0.1), [1 - 0.9 * k / 6 for k in range(6)]),
        (spec.Step(milestones=(1, 2), gamma=0.5), [1, 1, 0.5, 0.5, 0.25, 0.25]),
        (spec.Exponential(gamma=0.9), [1, 1, 0.9, 0.9, 0.81, 0.81]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_schedules(schedule, factors):
    """Three epochs of two steps."""
    chosen = spec.SGD(lr=2.0, schedule=schedule)
    assert [learning_rate(chosen, step, 6, 2) / 2.0 for step in range(6)] == pytest.approx(factors)
