"""Many small trainings as one: runs that differ in their seed train together, each to the numbers that it has alone.

Members stand in front of every tensor: weights (M, D', D), activations (M, N, D), losses (M,). A small net's step is
spent on the way to the products more than in them, and one batched product takes that way once for all members. What
is drawn (weights, feedback, order of samples) is drawn for each member from its own streams, as alone; sums may be
taken in another order, so numbers agree within float tolerance, not bit for bit.
"""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from credit import checkpoint, data, spec
from credit.events import Event, Failed, Finished, RunError, Started
from credit.flow import kept
from credit.meter import Cost
from credit.optimizers import build_optimizer
from credit.results import Ledger
from credit.setup import Setup, build, furnish
from credit.spec.together import batchable, kind
from credit.stacked import stacked
from credit.tally import Interval, Tally
from credit.train import Report, check, checkpointed, evaluations, explained, judge, keep, learn, probe_for, started

Told = Iterator[tuple[int, Event]]
"""(place of a member among the runs, what it says)"""
Save = Callable[[int], Path | None]
"""Asked after every step, of each member: where to store a checkpoint of it now, or None."""


def never(_: int) -> Path | None:
    """No checkpoint, ever."""
    return None


def run_members(
    runs: Sequence[spec.Run],
    *,
    datasets: Path | None,
    cache: Path,
    outs: Sequence[Path] | None = None,
    progress: data.Progress | None = None,
    save: Save = never,
    left: Container[int] = (),
) -> Told:
    """Train runs that differ in seed, name and labels alone as one, and tell what each would tell alone.

    Meant for a process of its own, like ``credit.train.run``, which says more of the arguments and of what is told.
    Times, bytes and operations of a member are its share. A member that fails says so (``Failed``) and no more; the
    others go on undisturbed.

    Args:
        runs: with seeds and threads filled in.
        datasets: a folder of data sets placed there by hand, or None.
        cache: folder for downloads and decoded copies.
        outs: a folder for each, where weights and last checkpoint go, or None.
        progress: told of a download, should there be one.
        save: asked after every step but the last. When ``Checkpointed`` comes, the file is that of a lone run,
            complete, and everything up to its step has been told.
        left: looked at after every step: members of which nobody wants to hear any more. When all have left, the
            training ends.

    Raises:
        ValueError: the runs are not of one kind, or not batchable.
        RunError: what ends them all: the data are not to be had, the device is not there, memory ran out.
    """
    if len({repr(kind(run)) for run in runs}) != 1:
        raise ValueError("members differ in seed, name and labels alone")
    if reason := batchable(runs[0]):
        raise ValueError(reason)
    with explained():
        first = build(runs[0], datasets, cache, progress)
        others = (furnish(run, first.device, first.splits, first.dataset_sha256, cache) for run in runs[1:])
        yield from Members([first, *others], outs, save, left).train()


@dataclass(frozen=True, eq=False)
class Together(Setup):
    """The setup of all members: net, rule and optimizer are stacked, and theirs are views of it."""

    setups: Sequence[Setup] = ()

    @classmethod
    def of(cls, setups: Sequence[Setup]) -> "Together":
        net = stacked([setup.net for setup in setups])
        rule = stacked([setup.rule for setup in setups])
        rule.update = kept  # that of the first member steps its own optimizer
        optimizer = build_optimizer(setups[0].chosen.optimizer, [*rule.learns(net), *rule.parameters()])
        own = {"net": net, "rule": rule, "optimizer": optimizer, "setups": setups}
        return cls(**vars(setups[0]) | own)

    def batch(self, index: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Images (M, N, …) and classes (M, N) at ``index`` (M, N)."""
        if self.chosen.dataset.augment == "none":
            x, y = self.splits.train.batch(index.flatten())
            return x.unflatten(0, index.shape), y.view_as(index)
        xs, ys = zip(*(setup.batch(own, step) for setup, own in zip(self.setups, index, strict=True)), strict=True)
        return torch.stack(xs), torch.stack(ys)


class Tallies(Tally):
    """Losses and hits of all members."""

    def __init__(self, size: int, members: int, device: torch.device) -> None:
        super().__init__(size, device)
        self.losses, self.hits = self.losses.new_zeros(size, members), self.hits.new_zeros(members)

    def each(self) -> list[Interval]:
        """The interval of each member, with its share of the time."""
        rows = torch.cat((self.losses[: self.steps], self.hits.double()[None])).T.tolist()
        seconds = self.seconds() / len(rows)
        return [Interval(losses, int(hits), self.samples, seconds) for *losses, hits in rows]

    def of(self, m: int) -> Tally:
        """That of one member, to store: its own losses and hits, its share of the time."""
        own, M, clock = Tally(len(self.losses), self.losses.device), len(self.hits), time.perf_counter()
        own.steps, own.samples, own.untimed_steps = self.steps, self.samples, self.untimed_steps
        own.losses.copy_(self.losses[:, m])
        own.hits.copy_(self.hits[m])
        own.untimed_seconds = self.untimed_seconds / M
        own.started = clock - (clock - self.started) / M
        return own


class Members:
    """The one loop of several trainings; ``credit.train`` has that of one, in the same order."""

    def __init__(self, setups: Sequence[Setup], outs: Sequence[Path] | None, save: Save, left: Container[int]) -> None:
        self.setups, self.outs, self.save, self.left = setups, outs, save, left
        self.together = Together.of(setups)
        self.probe = probe_for(setups[0])
        description = self.probe.description if self.probe else None
        self.whole = Ledger(self.together, description)
        self.ledgers = [Ledger(setup, description) for setup in setups]
        self.reports = [Report(setup) for setup in setups]
        self.alive = list(range(len(setups)))
        self.tally = Tallies(setups[0].chosen.training.log_every, len(setups), setups[0].device)

    def train(self) -> Told:
        together, tally, per_epoch = self.together, self.tally, self.together.steps_per_epoch
        training, step = together.chosen.training, 0
        for m, setup in enumerate(self.setups):
            yield m, self._marked(started(setup, self.probe, step, self.ledgers[m]))
        together.net.train()
        yield from self._align(step)
        for epoch in range(training.epochs):
            indices = self._orders(epoch)
            tally.clear()
            for index in indices:
                learn(together, self.whole, tally, index, step)
                step += 1
                ends = step % per_epoch == 0
                if tally.steps == training.log_every or ends:
                    yield from self._report(step, ends=ends)
                    tally.clear()
                yield from self._align(step)
                if ends:
                    yield from self._evaluate(step)
                if step < together.steps:
                    yield from self._save(step)
                self.alive = [m for m in self.alive if m not in self.left]
                if not self.alive:
                    return
        for m in list(self.alive):
            yield from self._survive(m, self._finish(m, step))

    def _orders(self, epoch: int) -> tuple[Tensor, ...]:
        """(M, N) indices of an epoch's batches."""
        orders = [setup.streams.order(epoch, len(setup.splits.train)) for setup in self.setups]
        for ledger, order in zip(self.ledgers, orders, strict=True):
            ledger.visit(order)
            ledger.turn()
        batches = zip(*(setup.batches(order) for setup, order in zip(self.setups, orders, strict=True)), strict=True)
        return tuple(map(torch.stack, batches))

    def _survive(self, m: int, events: Iterable[Event]) -> Told:
        """What a member tells; should it fail, that is the last of it."""
        try:
            for event in events:
                yield m, event
        except RunError as error:
            self.alive.remove(m)
            yield m, Failed(code=error.code, message=str(error))

    def _report(self, step: int, *, ends: bool) -> Told:
        intervals = self.tally.each()
        for m in list(self.alive):
            yield from self._survive(m, self._progress(m, intervals[m], step, ends=ends))

    def _progress(self, m: int, interval: Interval, step: int, *, ends: bool) -> Iterator[Event]:
        ledger = self.ledgers[m]
        yield from check(ledger, interval, step)
        ledger.trained(interval)
        yield from self.reports[m].add(step, interval, ledger.train_seconds, now=ends)

    def _align(self, step: int) -> Told:
        together, per_epoch = self.together, self.together.steps_per_epoch
        if self.probe and self.probe.due(step, per_epoch, together.steps):
            with self.tally.paused():
                rules = [setup.rule for setup in self.setups]
                events = self.probe.take_members(together.net, together.rule, rules, step, step / per_epoch)
                for m in self.alive:
                    yield m, self.ledgers[m].aligned_to(events[m])

    def _evaluate(self, step: int) -> Told:
        for events in evaluations(self.together, step):
            for m in list(self.alive):
                yield from self._survive(m, judge(self.ledgers[m], events[m]))

    def _save(self, step: int) -> Told:
        """Checkpoints of those members of which one is wanted."""
        for m in self.alive:
            if path := self.save(m):
                with self.tally.paused():
                    for event in self.reports[m].flush(self.ledgers[m].train_seconds):
                        yield m, event
                    self._settle(m)
                    yield m, checkpointed(path, self.setups[m], self.ledgers[m], self.tally.of(m), step)

    def _finish(self, m: int, step: int) -> Iterator[Event]:
        setup, ledger = self.setups[m], self.ledgers[m]
        self._settle(m)
        if self.outs is not None:
            keep(self.outs[m], setup, ledger, Tally(setup.chosen.training.log_every, setup.device), step)
        yield self._marked(Finished(step=step, results=ledger.results()))

    def _settle(self, m: int) -> None:
        """The member's own optimizer gets its moments, its ledger its share of what a step costs."""
        M, cost = len(self.setups), self.whole.cost
        moments = checkpoint.moments(self.together.optimizer)
        checkpoint.load_moments(self.setups[m].optimizer, {name: v[m].clone() if v.dim() else v for name, v in moments})
        self.ledgers[m].cost = Cost(cost.flops // M, cost.peak_bytes // M, cost.saved_bytes // M)

    def _marked(self, event: Started | Finished) -> Event:
        """That others trained beside a member is part of what its numbers depend on."""
        beside = {"members": len(self.setups)}
        if isinstance(event, Started):
            return replace(event, environment=event.environment | beside)
        return replace(event, results=event.results | {"environment": event.results["environment"] | beside})
