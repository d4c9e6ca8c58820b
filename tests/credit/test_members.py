"""Members: each learns what it learns alone, and disturbs nobody."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from credit import artifacts, checkpoint, spec, train
from credit.durable import sha256
from credit.events import Aligned, Checkpointed, Diagnosed, Failed, Finished, Progress
from credit.members import Together, run_members
from credit.spec.together import METHODS, batchable, kind, pays
from tests.credit.builders import fitting

SEEDS = (3, 4, 5)


def members(name="dfa", *, changes=None, **model):
    """Three runs of 50 steps that differ in their seeds."""
    chosen = spec.Run(
        **fitting(name, **({"hidden": (24, 16)} | model)),
        dataset=spec.FashionMNISTMini(train_samples=320, test_samples=360),
        optimizer=spec.Adam(lr=1e-3),
        training=spec.Training(epochs=5, batch_size=32, seed=0, threads=1, device="cpu", log_every=1),
        alignment=spec.Alignment(samples=64),
    )
    chosen = replace(chosen, **changes or {})
    return [replace(chosen, training=replace(chosen.training, seed=seed), name=f"seed {seed}") for seed in SEEDS]


def alone(run, folder, out=None):
    return list(train.run(run, datasets=None, cache=folder, out=out))


def together(runs, folder, outs=None):
    told = [[] for _ in runs]
    for m, event in run_members(runs, datasets=None, cache=folder, outs=outs):
        told[m].append(event)
    return told


def losses(events):
    return [value for event in events if isinstance(event, Progress) for _, _, value, _ in event.intervals]


def of(kind_of, events):
    return [event for event in events if isinstance(event, kind_of)]


def assert_as_alone(runs, folder, *, samples=3):
    """Every member tells what it tells alone: the same draws to the bit, the same numbers within float tolerance."""
    for run, mine in zip(runs, together(runs, folder), strict=True):
        lone = alone(run, folder)
        story = [type(event) for event in lone if not isinstance(event, Progress)]
        assert [type(event) for event in mine if not isinstance(event, Progress)] == story
        assert losses(mine) == pytest.approx(losses(lone), rel=1e-4)
        assert len(losses(mine)) == 50
        own, theirs = mine[-1].results, lone[-1].results
        assert own["pairing"] == theirs["pairing"]
        for split in ("train", "test"):
            size = {"train": 320, "test": 360}[split]
            assert own[split]["accuracy"] == pytest.approx(theirs[split]["accuracy"], abs=samples / size)
        for name in ("flops_per_step", "parameters"):
            assert own["cost"][name] == theirs["cost"][name]
        for one, other in zip(of(Aligned, mine), of(Aligned, lone), strict=True):
            for point, same in zip(one.points(), other.points(), strict=True):
                assert point[:4] == same[:4]
                assert point.value == (same.value and pytest.approx(same.value, rel=1e-2, abs=1e-3))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method().name)
def test_members_learn_what_they_learn_alone(method, tmp_path):
    assert_as_alone(members(method().name), tmp_path)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_every_loss_has_its_own_mean_for_each_member(loss, tmp_path):
    assert_as_alone(members("bp", changes={"loss": loss}), tmp_path)


@pytest.mark.parametrize(
    "optimizer",
    [
        spec.SGD(lr=0.05, momentum=0.9, schedule=spec.Cosine()),
        spec.AdamW(lr=1e-3, weight_decay=0.1, schedule=spec.Step(milestones=(2,))),
        spec.RMSprop(lr=1e-3, schedule=spec.Exponential(gamma=0.5)),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_every_optimizer_moves_each_member_by_itself(optimizer, tmp_path):
    assert_as_alone(members("dfa", changes={"optimizer": optimizer}), tmp_path)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_norms_are_those_of_each_member(norm, tmp_path):
    layers = (
        spec.FlattenLayer(),
        spec.DenseLayer(units=24, bias=False),
        spec.NormLayer(kind=norm),
        spec.ActivationLayer(kind="gelu"),
    )
    sgd = spec.SGD(lr=0.05)  # Adam makes whole steps of gradients that batch norm leaves zero but for rounding
    assert_as_alone(members("fa", changes={"model": spec.Custom(layers=layers), "optimizer": sgd}), tmp_path)


def test_the_power_of_activations_is_that_of_each_member(tmp_path):
    regularizers = spec.Regularizers(power=spec.Power(weight=0.1))
    changes = {"method": spec.EBD(regularizers=regularizers), "optimizer": spec.SGD(lr=0.05)}
    assert_as_alone(members("ebd", changes=changes), tmp_path)


def test_augmented_images_are_each_members_own(tmp_path):
    dataset = spec.FashionMNISTMini(train_samples=320, test_samples=360, augment="flip_crop")
    assert_as_alone(members("bp", changes={"dataset": dataset}), tmp_path)


def test_a_members_files_are_those_of_its_lone_run(tmp_path):
    runs = members("mono_forward")
    outs = [tmp_path / f"{m}" for m in range(len(runs))]
    for out in outs:
        out.mkdir()
    told = together(runs, tmp_path, outs)
    (tmp_path / "lone").mkdir()
    alone(runs[1], tmp_path, tmp_path / "lone")
    for name in ("model.safetensors", "checkpoint"):
        mine, lone = (load_file(folder / name) for folder in (outs[1], tmp_path / "lone"))
        assert {key: value.shape for key, value in mine.items()} == {key: value.shape for key, value in lone.items()}
    weights = [load_file(out / "model.safetensors")["hidden1.weight"] for out in outs]
    lone = load_file(tmp_path / "lone" / "model.safetensors")["hidden1.weight"]
    torch.testing.assert_close(weights[1], lone, rtol=1e-3, atol=1e-5)
    assert not torch.equal(weights[0], weights[1])
    assert told[1][-1].results["environment"]["members"] == len(runs)
    artifacts.write(outs[1], runs[1], told[1])
    assert (outs[1] / "report.html").exists()


def test_a_member_goes_on_alone_from_its_last_checkpoint(tmp_path):
    runs = members("sbd")
    outs = [tmp_path / f"{m}" for m in range(len(runs))]
    for out in outs:
        out.mkdir()
    together(runs, tmp_path, outs)
    saved = checkpoint.read(outs[2] / "checkpoint", sha256(outs[2] / "checkpoint"))
    longer = replace(runs[2], training=replace(runs[2].training, epochs=6))
    on = list(train.run(longer, datasets=None, cache=tmp_path, resume=saved))
    whole = alone(longer, tmp_path)
    assert losses(on) == pytest.approx(losses(whole)[50:], rel=1e-3)
    assert on[-1].results["pairing"] == whole[-1].results["pairing"]


def test_a_member_is_stored_between_epochs_and_goes_on_alone_as_if_it_had_always_been(tmp_path):
    runs = [replace(run, training=replace(run.training, log_every=4)) for run in members("kp")]
    path, step = tmp_path / "stored", iter(range(1, 51))

    def save(m):
        return path if m == 1 and next(step) == 23 else None  # 3 steps into an epoch of 10, 3 into an interval of 4

    told = list(run_members(runs, datasets=None, cache=tmp_path, save=save))
    assert [(m, event.step) for m, event in told if isinstance(event, Checkpointed)] == [(1, 23)]
    saved = checkpoint.read(path, sha256(path))
    on = list(train.run(runs[1], datasets=None, cache=tmp_path, resume=saved))
    mine = [event for m, event in told if m == 1]
    assert (losses(mine)[:6] + losses(on)) == pytest.approx(losses(alone(runs[1], tmp_path)), rel=1e-4)
    assert on[-1].results["pairing"] == mine[-1].results["pairing"]
    for name in ("test", "train"):
        assert on[-1].results[name] == pytest.approx(mine[-1].results[name], rel=1e-3)
    assert on[-1].results["cost"]["flops_per_step"] == mine[-1].results["cost"]["flops_per_step"]


def test_nothing_is_told_of_members_that_have_left(tmp_path):
    left, told = set(), []
    for m, event in run_members(members(), datasets=None, cache=tmp_path, left=left):
        told.append((m, event))
        if isinstance(event, Progress) and m == 1:
            left |= {0, 1}
            at = event.step
    assert max(event.step for m, event in told if m == 0) == at
    assert max(event.step for m, event in told if m == 1) == at
    assert isinstance(told[-1][1], Finished)
    assert told[-1][0] == 2


def test_when_all_members_have_left_the_training_ends(tmp_path):
    left, told = set(), []
    for m, event in run_members(members(), datasets=None, cache=tmp_path, left=left):
        told.append((m, event))
        left |= {0, 1, 2} if isinstance(event, Progress) else set()
    assert not any(isinstance(event, Finished) for _, event in told)
    assert max(event.step for _, event in told) == 10


def test_a_member_that_diverges_says_so_and_leaves_the_others_alone(tmp_path, monkeypatch):
    runs = members("bp")
    undisturbed = together(runs, tmp_path)
    shared = Together.batch

    def broken(self, index, step):
        x, y = shared(self, index, step)
        if step == 20:
            x[1] = torch.inf
        return x, y

    monkeypatch.setattr(Together, "batch", broken)
    told = together(runs, tmp_path)
    diagnosis, failure = told[1][-2:]
    assert isinstance(diagnosis, Diagnosed)
    assert diagnosis.evidence == "the training loss was nan at step 20"
    assert isinstance(failure, Failed)
    assert failure.code == "diverged"
    for m in (0, 2):
        assert losses(told[m]) == losses(undisturbed[m])
        assert told[m][-1].results["test"] == undisturbed[m][-1].results["test"]


def test_when_all_members_have_failed_nothing_is_left_to_do(tmp_path):
    hopeless = {"loss": "mse", "optimizer": spec.SGD(lr=100.0), "model": spec.MLP(hidden=(32,), activation="relu")}
    for events in together(members("bp", changes=hopeless), tmp_path):
        assert isinstance(events[-1], Failed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": spec.FF(), "model": spec.MLP(activation="relu")}, "ff is not written for several nets at once"),
        ({"model": spec.MLP(dropout=0.1)}, "dropout draws from the one random state of its process"),
        ({"model": spec.CNN()}, "only nets that begin by flattening their images into a dense layer train together"),
        ({"method": spec.SBD(normalize_r=True)}, "normalize_r is not written for several nets at once"),
        (
            {"method": spec.EBD(regularizers=spec.Regularizers(entropy=spec.Entropy(weight=1.0))), "loss": "mse"},
            "the entropy's running inverse is that of one net",
        ),
        (
            {"method": spec.EBD(regularizers=spec.Regularizers(l1=0.1)), "loss": "mse"},
            "the sign in l1 turns rounding errors into other numbers",
        ),
    ],
)
def test_what_cannot_train_together_says_why(changes, reason, tmp_path):
    runs = members("bp", changes=changes)
    assert batchable(runs[0]) == reason
    with pytest.raises(ValueError, match=reason):
        next(run_members(runs, datasets=None, cache=tmp_path))


def test_members_differ_in_seed_name_and_labels_alone(tmp_path):
    first, second, _ = members()
    assert kind(replace(first, labels={"a": "b"})) == kind(second)
    other = replace(second, optimizer=spec.Adam(lr=1e-2))
    with pytest.raises(ValueError, match="members differ in seed, name and labels alone"):
        next(run_members([first, other], datasets=None, cache=tmp_path))


def test_it_pays_for_several_small_nets():
    small, wide = members()[0], members(hidden=(2000,))[0]
    assert pays(small, 16)
    assert not pays(small, 1)
    assert not pays(wide, 16)
