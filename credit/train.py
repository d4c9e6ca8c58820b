"""The training loop: ``run(spec)`` yields events and knows nobody.

Readable top to bottom: per step a batch, its credit, the optimizer's step; probes, reports and evaluations when they
are due. To stop a run early, close the generator.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from credit import data, spec
from credit.alignment import Probe
from credit.data.split import Split
from credit.events import Diagnosed, Evaluated, Event, Finished, Progress, RunError, Started
from credit.flow import Credit
from credit.meter import metered
from credit.optimizers import learning_rate
from credit.results import Ledger, environment, parameters
from credit.rule import hand_over
from credit.setup import Setup, build
from credit.tally import Interval, Tally

EVALUATION_BATCH = 1_000
REPORT_SECONDS = 0.25
"""Shorter intervals are handed over together; the numbers do not depend on it."""
ADVICE = "lower the learning rate or the feedback's gain; tanh or batch norm keep activations bounded"


def run(
    chosen: spec.Run,
    *,
    datasets: Path | None,
    cache: Path,
    out: Path | None = None,
    progress: data.Progress | None = None,
) -> Iterator[Event]:
    """Train as a resolved spec says and tell what happens; ``Started`` comes first, ``Finished`` last.

    Meant for a process of its own: sets torch's thread count, deterministic algorithms and the global random state
    that dropout draws from.

    Args:
        chosen: with seed and threads filled in.
        datasets: a folder of data sets placed there by hand, or None.
        cache: folder for downloads and decoded copies.
        out: where to write ``model.safetensors`` (weights and the rule's feedback), or None.
        progress: told bytes so far and bytes in all (0 where nobody says) of a download, should there be one.

    Raises:
        RunError: the data are not to be had, the device is not there, memory ran out or a loss stopped being finite.
    """
    try:
        setup = build(chosen, datasets, cache, progress)
        yield from _train(setup)
        if out is not None:
            save(setup, out / "model.safetensors")
    except torch.OutOfMemoryError as error:
        raise RunError("out_of_memory", str(error).split(". ", maxsplit=1)[0]) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise RunError("out_of_memory", f"this machine's memory does not suffice: {error}") from error
        raise


def _train(setup: Setup) -> Iterator[Event]:
    training, splits, net = setup.chosen.training, setup.splits, setup.net
    probe = _probe(setup)
    ledger = Ledger(setup, probe.description if probe else None)
    tally = Tally(training.log_every, setup.device)
    report = Report(setup)
    step = 0
    yield _started(setup, probe)
    torch.manual_seed(setup.streams.seed("dropout"))
    net.train()
    if probe:
        yield ledger.aligned_to(probe.take(net, setup.rule, step, 0.0))
    for epoch in range(training.epochs):
        order = setup.streams.order(epoch, len(splits.train))
        ledger.visit(order)
        tally.clear()
        for index in setup.batches(order):
            x, y_N = setup.batch(index, step)
            if step == min(1, setup.steps - 1):
                with tally.paused(), metered((*setup.state(), x, y_N)) as ledger.cost:
                    credit = _step(setup, x, y_N, step)
            else:
                credit = _step(setup, x, y_N, step)
            tally.add(credit, y_N)
            step += 1
            ends = step % setup.steps_per_epoch == 0
            if tally.steps == training.log_every or ends:
                interval = tally.read()
                yield from _check(ledger, interval, step)
                ledger.trained(interval)
                yield from report.add(step, interval, ledger.train_seconds, now=ends)
                tally.clear()
            if probe and probe.due(step, setup.steps_per_epoch, setup.steps):
                with tally.paused():
                    yield ledger.aligned_to(probe.take(net, setup.rule, step, step / setup.steps_per_epoch))
        yield from _evaluate_all(setup, ledger, step)
    yield Finished(step=step, results=ledger.results())


def _probe(setup: Setup) -> Probe | None:
    """The first samples of the chosen split; None where alignment is never measured."""
    wanted = setup.chosen.alignment
    if wanted.every == "never":
        return None
    part = setup.splits.test if wanted.split == "test" else setup.splits.train
    return Probe(wanted, *part.batch(torch.arange(min(wanted.samples, len(part)), device=setup.device)))


def _step(setup: Setup, x: Tensor, y_N: Tensor, step: int) -> Credit:
    """One update of every parameter that the rule trains."""
    half = setup.chosen.training.precision == "bf16"
    with torch.autocast(setup.device.type, torch.bfloat16) if half else nullcontext():
        setup.rule.advance(step, setup.steps)
        credit = setup.rule.assign(setup.net, x, y_N)
    hand_over(credit, setup.net, setup.rule)
    lr = learning_rate(setup.chosen.optimizer, step, setup.steps, setup.steps_per_epoch)
    for group in setup.optimizer.param_groups:
        group["lr"] = lr
    setup.optimizer.step()
    setup.rule.settle(setup.net, lr)
    return credit


class Report:
    """Collects intervals and hands them over a few times a second."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.intervals: list[tuple[int, float, float, float]] = []
        self.last = time.perf_counter()

    def add(self, step: int, interval: Interval, train_seconds: float, *, now: bool) -> Iterator[Progress]:
        epoch = step / self.setup.steps_per_epoch
        self.intervals.append((step, epoch, interval.loss, interval.accuracy))
        if now or time.perf_counter() - self.last > REPORT_SECONDS:
            yield Progress(step=step, epoch=epoch, train_seconds=train_seconds, intervals=self.intervals)
            self.intervals, self.last = [], time.perf_counter()


def _check(ledger: Ledger, interval: Interval, step: int) -> Iterator[Diagnosed]:
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


def _evaluate_all(setup: Setup, ledger: Ledger, step: int) -> Iterator[Event]:
    epoch = step / setup.steps_per_epoch
    for name, part in (("validation", setup.splits.validation), ("test", setup.splits.test)):
        if part is not None:
            loss, accuracy, layers = evaluate(setup, part)
            if not abs(loss) < float("inf"):
                yield from _diverged(ledger, step, f"the {name} loss was {loss} after step {step}")
            event = Evaluated(step=step, epoch=epoch, split=name, loss=loss, accuracy=accuracy, layers=layers)
            yield ledger.evaluated(event)


@torch.inference_mode()
def evaluate(setup: Setup, part: Split) -> tuple[float, float, dict[str, float]]:
    """Mean loss, accuracy and the accuracy of layers with a readout of their own, in evaluation mode."""
    setup.net.eval()
    totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64, device=setup.device))
    for index in torch.arange(len(part), device=setup.device).split(EVALUATION_BATCH):
        x, y_N = part.batch(index)
        scores_NC, layers = setup.rule.predict(setup.net, x)
        totals["loss"] += setup.loss(scores_NC, y_N) * len(y_N)
        for name, answer_NC in {"": scores_NC, **layers}.items():
            totals[name] += (answer_NC.argmax(1) == y_N).sum()
    setup.net.train()
    loss, accuracy, *others = (torch.stack(list(totals.values())) / len(part)).tolist()
    return loss, accuracy, dict(zip(layers, others, strict=True))


def _started(setup: Setup, probe: Probe | None) -> Started:
    return Started(
        epochs=setup.chosen.training.epochs,
        steps=setup.steps,
        parameters=parameters(setup),
        layers=[point.layer for point in setup.net.points],
        init_sha256=setup.init_sha256,
        probe=probe.description if probe else None,
        environment=environment(setup),
    )


def save(setup: Setup, path: Path) -> None:
    """Weights by layer and the rule's own tensors (``rule.B_1`` …), as safetensors."""
    tensors = {**setup.net.tensors(), **{f"rule.{name}": tensor for name, tensor in setup.rule.state_dict().items()}}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
