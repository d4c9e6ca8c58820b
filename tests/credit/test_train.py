"""The training loop as its consumer sees it: events, cadences, determinism, pairing, failures."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from credit import spec
from credit.events import Aligned, Diagnosed, Evaluated, Finished, Progress, RunError, Started, from_json
from credit.train import run
from tests.credit.builders import METHODS, fitting


def small(**changes):
    """A run of a few quick steps on the bundled images."""
    base = spec.Run(
        method=spec.DFA(),
        model=spec.MLP(hidden=(32, 24)),
        dataset=spec.FashionMNISTMini(train_samples=1000, test_samples=500),
        training=spec.Training(epochs=2, batch_size=64, seed=3, threads=1, log_every=5),
        alignment=spec.Alignment(samples=64),
    )
    return replace(base, **changes)


def train(chosen, folder, out=None):
    return list(run(chosen, datasets=None, cache=folder, out=out))


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def comparable(events):
    """Events without clock and packaging: what must be the same, bit for bit, in two runs of a spec."""
    points = [point for event in events for point in event.points()]
    results = {key: value for key, value in events[-1].results.items() if key != "cost"}
    return sorted(points, key=lambda p: (p.series, p.layer or "", p.step)), results


@pytest.mark.parametrize("name", METHODS)
def test_a_run_tells_its_story_and_is_the_same_twice(name, tmp_path):
    chosen = small(**fitting(name, hidden=(32, 24), rich=True))
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    one, two = (train(chosen, tmp_path, out=folder) for folder in folders)
    assert isinstance(one[0], Started)
    assert isinstance(one[-1], Finished)
    assert one[0].steps == 32
    assert comparable(one) == comparable(two)
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_events_survive_json(tmp_path):
    for event in train(small(), tmp_path):
        assert from_json(event.to_json()) == event
        json.loads(event.to_json(), parse_constant=pytest.fail)


def test_every_method_starts_from_the_same_weights_and_sees_the_same_order(tmp_path):
    runs = (train(small(**fitting(name, hidden=(32, 24))), tmp_path) for name in METHODS)
    pairings = {json.dumps(events[-1].results["pairing"]) for events in runs}
    assert len(pairings) == 1
    other = train(small(training=replace(small().training, seed=4)), tmp_path)[-1].results["pairing"]
    assert json.dumps(other) not in pairings


def test_points_come_at_their_cadence(tmp_path):
    events = train(small(alignment=spec.Alignment(every=7, samples=64)), tmp_path)
    losses = [point for point in (p for e in events for p in e.points()) if point.series == "train/loss"]
    assert [point.step for point in losses] == [5, 10, 15, 16, 21, 26, 31, 32]
    assert [point.epoch for point in losses] == [point.step / 16 for point in losses]
    assert [event.step for event in of(Aligned, events)] == [0, 7, 14, 21, 28, 32]
    assert [(event.step, event.split) for event in of(Evaluated, events)] == [(16, "test"), (32, "test")]
    epochs = train(small(), tmp_path)
    assert [event.step for event in of(Aligned, epochs)] == [0, 16, 32]
    never = train(small(alignment=spec.Alignment(every="never")), tmp_path)
    assert not of(Aligned, never)
    assert never[-1].results["alignment"] == {"probe": None, "layers": []}


def test_the_interval_at_which_losses_are_logged_changes_no_number(tmp_path):
    fine, coarse = (
        train(small(training=replace(small().training, log_every=every)), tmp_path)[-1].results for every in (1, 16)
    )
    assert fine["test"] == coarse["test"]
    assert fine["train"] == pytest.approx(coarse["train"], rel=1e-12)


def test_probes_change_no_number(tmp_path):
    with_probes = train(small(alignment=spec.Alignment(every=1, samples=64)), tmp_path)[-1].results
    without = train(small(alignment=spec.Alignment(every="never")), tmp_path)[-1].results
    assert with_probes["test"] == without["test"]


def test_results_agree_with_the_events(tmp_path):
    events = train(small(dataset=replace(small().dataset, validation_fraction=0.2)), tmp_path)
    results = events[-1].results
    last = {event.split: event for event in of(Evaluated, events)}
    assert results["test"] == {"accuracy": last["test"].accuracy, "loss": last["test"].loss}
    assert results["validation"] == {"accuracy": last["validation"].accuracy, "loss": last["validation"].loss}
    layers = of(Aligned, events)[-1].layers
    assert [layer["layer"] for layer in results["alignment"]["layers"]] == ["hidden1", "hidden2", "output"]
    assert [layer["delta_cosine"]["mean"] for layer in results["alignment"]["layers"]] == [
        x.delta_cosine for x in layers
    ]
    assert results["alignment"]["probe"] == events[0].probe
    intervals = [interval for event in of(Progress, events) for interval in event.intervals if interval[1] > 1]
    assert results["train"]["accuracy"] == pytest.approx(
        sum(accuracy * steps for (*_, accuracy), steps in zip(intervals, _interval_samples(800, 64, 5), strict=True))
        / 800
    )


def _interval_samples(samples, batch, every):
    sizes = [min(batch, samples - start) for start in range(0, samples, batch)]
    return [sum(sizes[k : k + every]) for k in range(0, len(sizes), every)]


def test_dropping_the_last_batch(tmp_path):
    events = train(small(training=replace(small().training, drop_last=True)), tmp_path)
    assert events[0].steps == 2 * (1000 // 64)


def test_learning_happens_and_hidden_layers_help(tmp_path):
    accuracies = {}
    for name in METHODS:
        chosen = small(
            **fitting(name, hidden=(128, 128)),
            dataset=spec.FashionMNISTMini(),
            training=replace(small().training, epochs=3),
        )
        accuracies[name] = train(chosen, tmp_path)[-1].results["test"]["accuracy"]
    shallow, slow = accuracies.pop("shallow"), accuracies.pop("ff")  # three epochs are few for ff
    assert min(shallow, slow) > 0.5
    assert all(accuracy > shallow + 0.04 for accuracy in accuracies.values()), accuracies


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(
    "optimizer",
    [
        spec.SGD(lr=0.05, momentum=0.9, nesterov=True, schedule=spec.Cosine()),
        spec.Adam(lr=0.003, schedule=spec.Linear(final=0.1)),
        spec.AdamW(lr=0.003, schedule=spec.Step(milestones=(5,))),
        spec.RMSprop(lr=5e-3, schedule=spec.Exponential(gamma=0.8)),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_every_optimizer_learns_with_every_loss(loss, optimizer, tmp_path):
    results = train(small(loss=loss, optimizer=optimizer, training=replace(small().training, epochs=6)), tmp_path)[
        -1
    ].results
    assert results["test"]["accuracy"] > 0.4


def test_bf16_learns_too(tmp_path):
    exact, half = (
        train(small(training=replace(small().training, precision=precision, epochs=4)), tmp_path)[-1].results
        for precision in ("fp32", "bf16")
    )
    assert half["test"] != exact["test"]
    assert half["test"]["accuracy"] == pytest.approx(exact["test"]["accuracy"], abs=0.06)


def test_a_loss_that_stops_being_finite_is_a_diagnosis_and_the_end(tmp_path):
    chosen = small(loss="mse", optimizer=spec.SGD(lr=100.0), model=spec.MLP(hidden=(32,), activation="relu"))
    events = run(chosen, datasets=None, cache=tmp_path)
    told = next(event for event in events if isinstance(event, Diagnosed))
    assert told.code == "diverged"
    assert told.evidence.startswith("the training loss was ")
    with pytest.raises(RunError, match=r"the training loss was (inf|nan) at step \d+; lower the learning") as raised:
        next(events)
    assert raised.value.code == "diverged"


def test_a_device_that_is_not_there_is_the_users_error(tmp_path):
    with pytest.raises(RunError, match=r"'cuda:99' is not there") as raised:
        train(small(training=replace(small().training, device="cuda:99")), tmp_path)
    assert raised.value.code == "user_error"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", METHODS)
def test_cuda_agrees_with_the_cpu(name, tmp_path):
    cpu, cuda = (
        train(small(**fitting(name, hidden=(32, 24)), training=replace(small().training, device=device)), tmp_path)[
            -1
        ].results
        for device in ("cpu", "cuda")
    )
    assert cuda["pairing"] == cpu["pairing"]
    assert cuda["test"]["loss"] == pytest.approx(cpu["test"]["loss"], rel=0.02)


def test_a_closed_run_stops(tmp_path):
    events = run(small(), datasets=None, cache=tmp_path)
    assert isinstance(next(events), Started)
    events.close()
    assert list(events) == []
