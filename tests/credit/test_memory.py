"""What a step will hold, by arithmetic, against what is then counted: within a factor of two."""

from dataclasses import replace

import pytest

from credit import duration, estimate, memory, spec
from credit.spec.plan import plan, unsuited
from credit.train import run
from tests.credit.builders import METHODS

ACTIVATIONS = ("tanh", "relu", "gelu")


def nets(activation):
    blocks = (
        spec.ConvBlock(channels=8),
        spec.ConvBlock(channels=8, pool=spec.Pooling(kind="avg"), order=("conv", "norm", "activation", "pool")),
    )
    return {
        "mlp": spec.MLP(hidden=(96, 64), activation=activation),
        "rich mlp": spec.MLP(hidden=(96, 64), activation=activation, batch_norm=True, dropout=0.2),
        "cnn": spec.CNN(blocks=blocks, hidden=(32,), activation=activation),
        "mlp_mixer": spec.MLPMixer(patch_size=7, width=16, depth=2),
    }


def fits(method, model):
    return unsuited(model, plan(model, (1, 28, 28), 10), method) is None


def chosen(method, model, optimizer, batch_size=64, **training):
    return spec.Run(
        method=method,
        model=model,
        dataset=spec.FashionMNISTMini(train_samples=2 * batch_size, test_samples=10),
        loss=method.losses[0],
        optimizer=optimizer,
        training=spec.Training(epochs=1, batch_size=batch_size, seed=0, threads=1, **training),
        alignment=spec.Alignment(every="never"),
    )


def check(wanted, cache):
    cost = list(run(wanted, datasets=None, cache=cache))[-1].results["cost"]
    assert 0.5 < memory.peak_bytes(wanted) / cost["peak_memory_bytes"] < 2
    assert 0.5 < memory.saved_bytes(wanted) / cost["saved_activation_bytes"] < 2
    return cost


@pytest.mark.parametrize("kind", nets("tanh"))
@pytest.mark.parametrize("name", METHODS)
def test_every_method_on_every_kind_of_net(name, kind, tmp_path):
    activation = next((one for one in ACTIVATIONS if fits(METHODS[name], nets(one)[kind])), None)
    if activation is None:
        pytest.skip(f"{name} does not train this net")
    optimizers = (spec.Adam(), spec.SGD(), spec.SGD(momentum=0.9), spec.RMSprop())
    wanted = chosen(METHODS[name], nets(activation)[kind], optimizers[len(name) % 4])
    cost = check(wanted, tmp_path)
    assert cost["flops_per_step"] == estimate.flops_per_step(wanted)


ENTROPY = spec.Regularizers(entropy=spec.Entropy(weight=0.1))
VARIANTS = {
    "ff, global": (spec.FF(locality="global"), "mlp"),
    "local_loss, pred": (spec.LocalLoss(loss="pred"), "cnn"),
    "local_loss, sim": (spec.LocalLoss(loss="sim", similarity_std=False), "cnn"),
    "mono_forward, greedy": (spec.MonoForward(schedule="greedy"), "mlp"),
    "mono_forward, pooled": (spec.MonoForward(head=spec.Head(max_features=16)), "cnn"),
    "dfa, post_activation": (spec.DFA(inject="post_activation"), "cnn"),
    "dfa, entropy": (spec.DFA(regularizers=ENTROPY), "mlp"),
    "sbd, stack": (spec.SBD(score_expansion=spec.ScoreExpansion(kind="stack")), "mlp"),
    "sbd, random_feat": (spec.SBD(score_expansion=spec.ScoreExpansion(kind="random_feat", features=16)), "mlp"),
    "sbd, sparse": (spec.SBD(weight_sparsity=0.5, forgetting=1.0), "mlp"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_options_that_change_what_is_kept(variant, tmp_path):
    method, kind = VARIANTS[variant]
    activation = next(one for one in ACTIVATIONS if fits(method, nets(one)[kind]))
    check(chosen(method, nets(activation)[kind], spec.Adam()), tmp_path)


@pytest.mark.parametrize("activation", ["gelu", "leaky_relu", "sigmoid", "silu", "elu"])
def test_nonlinearities(activation, tmp_path):
    check(chosen(spec.BP(), nets(activation)["cnn"], spec.SGD()), tmp_path)


def test_wide_layers_small_batch(tmp_path):
    for method in (spec.BP(), spec.DFA(), spec.LocalLoss()):
        check(chosen(method, spec.MLP(hidden=(1024, 512)), spec.Adam(), batch_size=8), tmp_path)


def test_steps():
    wanted = chosen(spec.BP(), spec.MLP(), spec.SGD(), batch_size=64)
    assert duration.steps(wanted) == 2
    odd = replace(wanted, dataset=spec.FashionMNISTMini(train_samples=150, validation_fraction=0.1))
    assert duration.steps(odd) == 3
    assert duration.steps(replace(odd, training=replace(odd.training, drop_last=True, epochs=3))) == 6


def test_seconds_grow_with_steps_and_shrink_with_threads():
    wanted = chosen(spec.BP(), spec.MLP(), spec.SGD())
    longer, wider = (
        replace(wanted, training=replace(wanted.training, **change)) for change in ({"epochs": 3}, {"threads": 2})
    )
    assert duration.seconds(longer) == pytest.approx(3 * duration.seconds(wanted))
    assert duration.seconds(wider) < duration.seconds(wanted)
