"""The training loop: ``run(spec)`` yields events and knows nobody.

Readable top to bottom: per step a batch, its credit, the optimizer's step; probes, reports and evaluations when they
are due. To stop a run early, close the generator.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from credit import checkpoint, data, spec
from credit.alignment import Probe
from credit.data.split import Split
from credit.durable import sha256
from credit.events import (
    Aligned,
    Checkpointed,
    Diagnosed,
    Evaluated,
    Event,
    Finished,
    Progress,
    RunError,
    Started,
    Troubled,
)
from credit.meter import metered
from credit.optimizers import learning_rate, set_learning_rate
from credit.parallel import Group, Order, gathered
from credit.results import Ledger, environment, parameters
from credit.rule import averaged, hand_over
from credit.setup import Setup, build
from credit.tally import Interval, Tally

EVALUATION_BATCH = 1_000
REPORT_SECONDS = 0.25
"""Shorter intervals are handed over together; the numbers do not depend on it."""
ADVICE = "lower the learning rate or the feedback's gain; tanh or batch norm keep activations bounded"


Save = Callable[[], Path | None]
"""Asked after every step: where to store a checkpoint now, or None."""


def never() -> Path | None:
    """No checkpoint, ever."""
    return None


def run(
    chosen: spec.Run,
    *,
    datasets: Path | None,
    cache: Path,
    out: Path | None = None,
    progress: data.Progress | None = None,
    resume: checkpoint.Saved | None = None,
    save: Save = never,
) -> Iterator[Event]:
    """Train as a resolved spec says and tell what happens; ``Started`` comes first, ``Finished`` last.

    Meant for a process of its own: sets torch's thread count, deterministic algorithms and the global random state
    that dropout draws from.

    Args:
        chosen: with seed and threads filled in.
        datasets: a folder of data sets placed there by hand, or None.
        cache: folder for downloads and decoded copies.
        out: where to write ``model.safetensors`` (weights and the rule's feedback) and ``checkpoint`` (all of the
            run's state after its last step), or None.
        progress: told bytes so far and bytes in all (0 where nobody says) of a download, should there be one.
        resume: a checkpoint of this very spec to go on from, to the numbers of a run that was never interrupted.
        save: asked after every step but the last whether to store a checkpoint. When ``Checkpointed`` comes, the file
            is complete and everything up to its step has been told: to pause a run is to close the generator then.

    Raises:
        RunError: the data are not to be had, the device is not there, memory or disk ran out or a loss stopped being
            finite.
    """
    with explained(), gathered(chosen.training.devices) as group:
        setup = build(chosen, datasets, cache, progress, group)
        group.meet(Order(chosen, datasets, cache, resume.file if resume else None), setup.device)
        yield from _train(setup, out, resume, save)


def follow(order: Order, group: Group) -> None:
    """Train beside the process that leads: the same steps on other samples, and nobody is told. Raises RunError."""
    resume = checkpoint.read(*order.resume) if order.resume else None
    with explained():
        setup = build(order.chosen, order.datasets, order.cache, group=group)
        group.meet(order, setup.device)
        for _ in _train(setup, None, resume, never):
            """The process that leads tells the same."""


@contextmanager
def explained() -> Iterator[None]:
    """Memory that does not suffice is something to tell the user. Raises RunError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError("out_of_memory", str(error).split(". ", maxsplit=1)[0]) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise RunError("out_of_memory", f"this machine's memory does not suffice: {error}") from error
        raise


def _train(setup: Setup, out: Path | None, resume: checkpoint.Saved | None, save: Save) -> Iterator[Event]:
    training, splits, net, per_epoch = setup.chosen.training, setup.splits, setup.net, setup.steps_per_epoch
    probe = probe_for(setup)
    ledger = Ledger(setup, probe.description if probe else None)
    tally = Tally(training.log_every, setup.device)
    report = Report(setup)
    begin_chance(setup)
    step = resume.step if resume else 0
    if resume:
        checkpoint.restore(resume, setup, ledger, tally)
    yield started(setup, probe, step, ledger)
    net.train()
    if not resume:
        yield from _align(setup, probe, ledger, tally, step)
    for epoch in range(step // per_epoch, training.epochs):
        order = setup.streams.order(epoch, len(splits.train))
        ledger.visit(order)
        if step == epoch * per_epoch:
            ledger.turn()
            tally.clear()
        for index in setup.batches(order)[step - epoch * per_epoch :]:
            learn(setup, ledger, tally, index, step)
            step += 1
            ends = step % per_epoch == 0
            if tally.steps == training.log_every or ends:
                interval = tally.read()
                yield from check(ledger, interval, step)
                ledger.trained(interval)
                yield from report.add(step, interval, ledger.train_seconds, now=ends)
                tally.clear()
            yield from _align(setup, probe, ledger, tally, step)
            if ends:
                yield from _evaluate(setup, ledger, step)
            if step < setup.steps and (path := save()):
                with tally.paused():
                    yield from report.flush(ledger.train_seconds)
                    yield checkpointed(path, setup, ledger, tally, step)
    if out is not None:
        keep(out, setup, ledger, tally, step)
    yield Finished(step=step, results=ledger.results())


def begin_chance(setup: Setup) -> None:
    """Put the global random state, which dropout draws from, where the run's seed says."""
    torch.manual_seed(setup.streams.seed("dropout"))


def checkpointed(path: Path, setup: Setup, ledger: Ledger, tally: Tally, step: int) -> Event:
    """Store the run's state. That it could not be stored is told; training does not depend on it."""
    began = time.perf_counter()
    try:
        checkpoint.write(path, setup, ledger, tally, step)
        digest, size = sha256(path), path.stat().st_size
    except OSError as error:
        return Troubled(message=f"the checkpoint of step {step} could not be written: {error}")
    return Checkpointed(
        step=step,
        epoch=step / setup.steps_per_epoch,
        file=path.name,
        size=size,
        sha256=digest,
        seconds=time.perf_counter() - began,
    )


def keep(out: Path, setup: Setup, ledger: Ledger, tally: Tally, step: int) -> None:
    """The files of a run that has come to its end. Raises RunError."""
    try:
        save_model(setup, out / "model.safetensors")
        checkpoint.write(out / "checkpoint", setup, ledger, tally, step)
    except OSError as error:
        raise RunError("storage_unavailable", f"the weights could not be written: {error}") from error


def probe_for(setup: Setup) -> Probe | None:
    """The first samples of the chosen split; None where alignment is never measured, and in all processes but one."""
    wanted = setup.chosen.alignment
    if wanted.every == "never" or setup.group.rank:
        return None
    part = setup.splits.test if wanted.split == "test" else setup.splits.train
    return Probe(wanted, *part.batch(torch.arange(min(wanted.samples, len(part)), device=setup.device)))


def _align(setup: Setup, probe: Probe | None, ledger: Ledger, tally: Tally, step: int) -> Iterator[Aligned]:
    """Measure alignment, if it is due after ``step`` steps."""
    if probe and probe.due(step, setup.steps_per_epoch, setup.steps):
        with tally.paused():
            with setup.engine.aside():
                aligned = probe.take(setup.net, setup.rule, step, step / setup.steps_per_epoch)
            yield ledger.aligned_to(aligned)


def learn(setup: Setup, ledger: Ledger, tally: Tally, index: Tensor, step: int) -> None:
    """Train on the samples at ``index``; the second step of a run is watched to learn what steps cost."""
    x, y_N = setup.batch(index, step)
    metered_step = step == min(1, setup.steps - 1)
    with ExitStack() as around:
        if metered_step:
            around.enter_context(tally.distorted())
            around.enter_context(setup.engine.aside())
            ledger.cost = around.enter_context(metered((*setup.state(), x, y_N)))
        elif setup.engine.prepares(len(x)):
            around.enter_context(tally.untimed())
        loss, hits = _step(setup, x, y_N, step)
    if metered_step:
        ledger.cost.flops = setup.group.total(ledger.cost.flops)
    tally.add(loss, hits, index.shape[-1])


def _step(setup: Setup, x: Tensor, y_N: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """One update of every parameter that the rule trains; returns the loss of the batch and its hits."""
    lr = learning_rate(setup.chosen.optimizer, step, setup.steps, setup.steps_per_epoch)
    set_learning_rate(setup.optimizer, lr)
    setup.rule.advance(step, setup.steps)
    return setup.engine.step(partial(_update, setup, lr), x, y_N)


def _update(setup: Setup, lr: float, x: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
    """What of a step happens on the device: each parameter at the end, or as soon as its block is told."""
    half = setup.chosen.training.precision == "bf16"
    with torch.autocast(setup.device.type, torch.bfloat16) if half else nullcontext():
        credit = setup.rule.assign(setup.net, x, y_N)
    hits = (credit.outputs.argmax(-1) == y_N).sum(-1)
    credit, hits = averaged(credit, hits, setup.group)
    hand_over(credit, setup.net, setup.rule)
    setup.optimizer.step()
    setup.optimizer.zero_grad()  # the next step's gradients shall not find these still there
    setup.rule.settle(setup.net, lr)
    return credit.loss, hits


class Report:
    """Collects intervals and hands them over a few times a second."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.intervals: list[tuple[int, float, float, float]] = []
        self.last = time.perf_counter()

    def add(self, step: int, interval: Interval, train_seconds: float, *, now: bool) -> Iterator[Progress]:
        self.intervals.append((step, step / self.setup.steps_per_epoch, interval.loss, interval.accuracy))
        if now or time.perf_counter() - self.last > REPORT_SECONDS:
            yield from self.flush(train_seconds)

    def flush(self, train_seconds: float) -> Iterator[Progress]:
        """Hand over what has been collected, if there is anything."""
        if self.intervals:
            step, epoch, _, _ = self.intervals[-1]
            yield Progress(step=step, epoch=epoch, train_seconds=train_seconds, intervals=self.intervals)
            self.intervals, self.last = [], time.perf_counter()


def check(ledger: Ledger, interval: Interval, step: int) -> Iterator[Diagnosed]:
    """A loss that is not finite ends the run, with a diagnosis."""
    bad = interval.first_bad
    if bad is not None:
        at = step - len(interval.losses) + bad
        yield from _diverged(ledger, at, f"the training loss was {interval.losses[bad]} at step {at}")


def _diverged(ledger: Ledger, step: int, evidence: str) -> Iterator[Diagnosed]:
    diagnosis = Diagnosed(code="diverged", layer=None, step=step, evidence=evidence, advice=ADVICE)
    ledger.diagnoses.append(diagnosis)
    yield diagnosis
    raise RunError("diverged", f"{evidence}; {ADVICE}")


def _evaluate(setup: Setup, ledger: Ledger, step: int) -> Iterator[Event]:
    if not setup.group.rank:
        for (event,) in evaluations(setup, step):
            yield from judge(ledger, event)


def evaluations(setup: Setup, step: int) -> Iterator[list[Evaluated]]:
    """On each split that is there for it, in order: a run's evaluation, or that of each member."""
    epoch = step / setup.steps_per_epoch
    for name, part in (("validation", setup.splits.validation), ("test", setup.splits.test)):
        if part is not None:
            with setup.engine.aside():
                layers, figures = evaluate(setup, part)
            yield [
                Evaluated(
                    step=step,
                    epoch=epoch,
                    split=name,
                    loss=loss,
                    accuracy=accuracy,
                    layers=dict(zip(layers, others, strict=True)),
                )
                for loss, accuracy, *others in figures
            ]


def judge(ledger: Ledger, event: Evaluated) -> Iterator[Event]:
    """An evaluation, unless its loss is not finite: that ends the run, with a diagnosis."""
    if not abs(event.loss) < float("inf"):
        evidence = f"the {event.split} loss was {event.loss} after step {event.step}"
        yield from _diverged(ledger, event.step, evidence)
    yield ledger.evaluated(event)


@torch.inference_mode()
def evaluate(setup: Setup, part: Split) -> tuple[list[str], list[list[float]]]:
    """Names of the layers with a readout of their own; then mean loss, accuracy and the accuracies of those layers.

    In evaluation mode. The latter are a list for each member, and one in all for a run that has none.
    """
    setup.net.eval()
    totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64, device=setup.device))
    for index in torch.arange(len(part), device=setup.device).split(EVALUATION_BATCH):
        x, y_N = part.batch(index)
        scores_NC, layers = setup.rule.predict(setup.net, x)
        totals["loss"] = totals["loss"] + (setup.loss(scores_NC, y_N) * len(y_N)).double()
        for name, answer_NC in {"": scores_NC, **layers}.items():
            totals[name] = totals[name] + (answer_NC.argmax(-1) == y_N).sum(-1)
    setup.net.train()
    return list(layers), (torch.stack(list(totals.values()), -1) / len(part)).view(-1, len(totals)).tolist()


def started(setup: Setup, probe: Probe | None, step: int, ledger: Ledger) -> Started:
    return Started(
        step=step,
        known=ledger.known(),
        epochs=setup.chosen.training.epochs,
        steps=setup.steps,
        parameters=parameters(setup),
        layers=[point.layer for point in setup.net.points],
        init_sha256=setup.init_sha256,
        probe=probe.description if probe else None,
        environment=environment(setup),
    )


def save_model(setup: Setup, path: Path) -> None:
    """Weights by layer and the rule's own tensors (``rule.B_1`` …), as safetensors."""
    tensors = {**setup.net.tensors(), **{f"rule.{name}": tensor for name, tensor in setup.rule.state_dict().items()}}
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # it wraps what the system said
        raise OSError(str(error)) from error
