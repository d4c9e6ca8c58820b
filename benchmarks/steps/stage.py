"""Contenders in processes of their own: ours in one that is prepared as a training process is, others' in a plain one.

What a process settles for all that it does, its heap above all, is part of what a step takes.
"""

import multiprocessing
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import Connection
from typing import Self

import torch

from benchmarks.steps.contenders import Counts, Group
from benchmarks.steps.measure import clock
from credit.setup import prepare

START = multiprocessing.get_context("spawn")


class Stage:
    """A process with some contenders of one net and batch. It waits while it is not asked.

    Args:
        group: net, batch and how they are trained.
        names: of the contenders.
        prepared: whether the process is made what ``credit.train.run`` makes of its own.
    """

    def __init__(self, group: Group, names: Iterable[str], *, prepared: bool) -> None:
        self.pipe, theirs = START.Pipe()
        self.process = START.Process(target=play, args=(theirs, group, tuple(names), prepared), daemon=True)
        self.process.start()
        theirs.close()
        told: tuple[dict[str, Counts], dict[str, str]] = self.pipe.recv()
        self.counts, self.absent = told

    def clocks(self) -> dict[str, Callable[[int], float]]:
        """Of each contender: so many steps -> seconds per step."""
        return {name: partial(self._clock, name) for name in self.counts}

    def _clock(self, name: str, times: int) -> float:
        self.pipe.send((name, times))
        seconds: float = self.pipe.recv()
        return seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        self.process.join()


def play(pipe: Connection, group: Group, names: tuple[str, ...], prepared: bool) -> None:  # noqa: FBT001  (spawned)
    """The process: says what each contender's step comes to, then clocks whom it is asked to."""
    if prepared:
        prepare(group.threads)
    torch.set_num_threads(group.threads)
    ready, absent = group.enter(names)
    pipe.send(({contender.name: contender.count() for contender in ready}, absent))
    steps = {contender.name: contender.step for contender in ready}
    while True:
        try:
            name, times = pipe.recv()
        except EOFError:
            return
        pipe.send(clock(steps[name], times))
