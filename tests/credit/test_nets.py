"""The models: their layers, the adjoints inside their blocks, and what is refused because it does not fit."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from credit import spec
from credit.flow import Taps, params
from credit.losses import LOSSES
from credit.mirror import mirror, weighted
from credit.nets import build_net
from credit.nets.blocks import fingerprint
from credit.rule import Task, output_shapes
from credit.rules import build_rule
from credit.spec.plan import blocks, plan
from tests.credit.builders import generator

GREY, RGB = (1, 28, 28), (3, 32, 32)
MODELS = spec.menu(spec.Model)


def build(model, method=None, shape=GREY, classes=10, seed=0):
    return build_net(model, method or spec.BP(), shape, classes, generator(seed))


def rule_for(method, net, shape):
    task = Task(LOSSES["cross_entropy"], torch.zeros(1, *shape, dtype=torch.float64), generator(1), adaptive=False)
    return build_rule(method, net, task).double()


def batch(shape, classes, samples=6):
    x = torch.randn(samples, *shape, dtype=torch.float64, generator=generator(5))
    return x, torch.randint(classes, (samples,), generator=generator(6))


def assert_equal(ours, theirs, tolerance=1e-12):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert (a - b).detach().norm() <= tolerance * max(1.0, float(b.detach().norm()))


# ---- layers ----


def weights(net):
    return [tuple(tensor.shape) for name, tensor in net.tensors().items() if name.endswith(".weight")]


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("launay_fc", RGB, [(800, 3072), (800, 800), (800, 800), (10, 800)]),
        ("launay_cnn", RGB, [(32, 3, 5, 5), (64, 32, 5, 5), (64, 64, 5, 5), (128, 576), (10, 128)]),
        ("ebd_mlp", GREY, [(1024, 784), (512, 1024), (10, 512)]),
        ("ebd_mlp", RGB, [(1024, 3072), (512, 1024), (512, 512), (10, 512)]),
        ("ebd_mlp", (3, 28, 28), [(1024, 2352), (512, 1024), (512, 512), (10, 512)]),
        ("ebd_cnn", GREY, [(64, 1, 3, 3), (32, 64, 3, 3), (1024, 1568), (10, 1024)]),
        ("ebd_cnn", RGB, [(128, 3, 5, 5), (64, 128, 5, 5), (64, 64, 2, 2), (1024, 1024), (10, 1024)]),
        ("lenet", GREY, [(6, 1, 5, 5), (16, 6, 5, 5), (120, 16, 5, 5), (84, 120), (10, 84)]),
        ("lenet", RGB, [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 128), (10, 256)]),
    ],
)
def test_the_papers_nets_have_the_papers_layers(name, shape, expected):
    assert weights(build(MODELS[name](), shape=shape)) == expected


def test_the_feedback_points_of_launays_cnn_are_those_of_its_code():
    net = build(spec.LaunayCNN(), spec.DFA(), RGB)
    *hidden, _ = output_shapes(net, torch.zeros(1, *RGB))
    assert [shape.numel() for shape in hidden] == [7200, 3136, 576, 128]
    kinds = [type(part) for part in build(spec.LaunayCNN(batch_norm=True, conv_dropout=0.1), shape=RGB)[1].parts]
    assert kinds == [nn.Conv2d, nn.Dropout, nn.Tanh, nn.BatchNorm2d, nn.MaxPool2d]


def test_lenet_pads_mnist_to_32():
    net = build(spec.LeNet()).double()
    x, _ = batch(GREY, 10)
    first = net[0].parts[0]
    assert_equal([first(x)], [F.conv2d(F.pad(x, (2, 2, 2, 2)), first.weight, first.bias)])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [GREY, RGB, (3, 28, 28), (3, 64, 64)])
def test_every_model_takes_every_data_set_by_its_bare_name(name, shape):
    layers = plan(MODELS[name](), shape, 10)
    assert [layer.name for layer in layers] == [*(f"hidden{k}" for k in range(1, len(layers))), "output"]
    assert layers[-1].weight.part.units == 10


def test_ebd_cnn_has_no_biases_and_the_others_do():
    biases = {name: any(key.endswith("bias") for key in build(kind()).tensors()) for name, kind in MODELS.items()}
    assert biases == {name: name != "ebd_cnn" for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_public_names_are_unique_and_complete(name):
    net = build(MODELS[name]())
    assert len(net.tensors()) == len([*net.parameters(), *net.buffers()])


def test_a_block_declares_its_order():
    order = ("norm", "activation", "conv", "pool")
    model = spec.CNN(blocks=(spec.ConvBlock(channels=4, order=order, pool=spec.Pooling()),), batch_norm=True)
    first, second, _ = build(model)
    assert [type(part) for part in first.parts] == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.MaxPool2d]
    assert [type(part) for part in second.parts] == [nn.Flatten, nn.Linear, nn.ReLU, nn.BatchNorm1d]
    cut = build(model, spec.DFA(inject="post_activation"))
    assert [type(part) for part in cut[0].parts] == [type(part) for part in first.parts]


def test_where_a_cnn_is_cut_changes_neither_weights_nor_what_it_computes():
    model = spec.LaunayCNN(batch_norm=True)
    one, two = (build(model, spec.DFA(inject=inject)).eval() for inject in ("layer_input", "post_activation"))
    x = torch.randn(2, *GREY, generator=generator(3))
    assert fingerprint(one) == fingerprint(two)
    assert torch.equal(one(x), two(x))
    assert [type(block.parts[-1]) for block in one] == [nn.MaxPool2d] * 3 + [nn.BatchNorm1d, nn.Linear]
    assert [type(block.parts[-1]) for block in two] == [nn.Tanh] * 4 + [nn.Linear]
    assert [point.output for point in two.points] == ["0.parts.1", "1.parts.3", "2.parts.3", "3.parts.4", "4.parts.1"]


def test_convolutions_are_drawn_as_torch_draws_them_from_the_generator_given():
    weight, bias = (
        p.detach() for p in params(build(spec.CNN(blocks=(spec.ConvBlock(channels=4096, kernel=5),), hidden=()))[0])
    )
    for tensor in (weight, bias):
        assert 0.99 / 5 < float(tensor.abs().max()) <= 1 / 5
        assert float(tensor.mean()) == pytest.approx(0, abs=0.01)
    assert fingerprint(build(spec.CNN())) == fingerprint(build(spec.CNN()))
    assert fingerprint(build(spec.CNN())) != fingerprint(build(spec.CNN(), seed=1))
    zeros = build(spec.CNN(), spec.DFA(forward_init="zeros"))
    assert not any(parameter.any() for parameter in zeros.parameters())


def test_custom_layers_are_the_net_that_they_spell_out():
    cnn = spec.CNN(
        blocks=(spec.ConvBlock(channels=4, kernel=5, padding=2, stride=2, pool=spec.Pooling(kind="avg")),),
        hidden=(9,),
        batch_norm=True,
        dropout=0.3,
    )
    spelled = spec.Custom(
        layers=(
            spec.ConvLayer(channels=4, kernel=5, padding=2, stride=2),
            spec.ActivationLayer(),
            spec.NormLayer(),
            spec.PoolLayer(kind="avg"),
            spec.FlattenLayer(),
            spec.DenseLayer(units=9),
            spec.DropoutLayer(rate=0.3),
            spec.ActivationLayer(),
            spec.NormLayer(),
        )
    )
    one, two = build(cnn), build(spelled)
    assert fingerprint(one) == fingerprint(two)
    assert one.points == two.points
    assert str(one) == str(two)


def test_custom_layers_may_be_normalised_twice_and_end_in_maps():
    layers = (spec.NormLayer(), spec.ConvLayer(channels=4), spec.NormLayer(kind="layer"), spec.ActivationLayer())
    net = build(spec.Custom(layers=layers, bias=False))
    assert [type(part) for part in net[-1].parts] == [nn.Flatten, nn.Linear]
    assert {"hidden1.norm.weight", "hidden1.norm2.weight", "hidden1.weight", "output.weight"} <= set(net.tensors())
    assert "output.bias" not in net.tensors()


# ---- the Mixer ----

SMALL_MIXER = spec.MLPMixer(patch_size=7, width=6, depth=2, token_width=5, channel_width=8)


@pytest.mark.parametrize("patch", [4, 7])
def test_the_mixer_is_its_equation(patch):
    """Typed out with einsum: patches, token mixing, channel mixing, norm, mean, readout."""
    shape = (3, 28, 28)
    net = build(replace(SMALL_MIXER, patch_size=patch), shape=shape, classes=9).double()
    x, _ = batch(shape, 9)
    t = net.tensors()
    side = 28 // patch
    patches = x.reshape(6, 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5).reshape(6, side * side, -1)
    h = patches @ t["hidden1.weight"].flatten(1).T + t["hidden1.bias"]

    def normed(h, name):
        centred = h - h.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * t[f"{name}.weight"] + t[f"{name}.bias"]

    for k in (2, 4):
        token, channel = f"hidden{k}", f"hidden{k + 1}"
        up = torch.einsum("ts,nsd->ntd", t[f"{token}.up.weight"], normed(h, f"{token}.norm"))
        up = F.gelu(up + t[f"{token}.up.bias"][:, None])
        h = h + torch.einsum("st,ntd->nsd", t[f"{token}.down.weight"], up) + t[f"{token}.down.bias"][:, None]
        up = F.gelu(normed(h, f"{channel}.norm") @ t[f"{channel}.up.weight"].T + t[f"{channel}.up.bias"])
        h = h + up @ t[f"{channel}.down.weight"].T + t[f"{channel}.down.bias"]
    z = normed(h, "output.norm").mean(1) @ t["output.weight"].T + t["output.bias"]
    assert_equal([net(x)], [z])


def test_the_mixer_has_a_block_per_mixing_and_its_head_in_the_output_layer():
    net = build(SMALL_MIXER)
    assert [point.layer for point in net.points] == ["hidden1", "hidden2", "hidden3", "hidden4", "hidden5", "output"]
    assert len(net) == 6
    assert [tuple(shape) for shape in output_shapes(net, torch.zeros(1, *GREY))] == [(16, 6)] * 5 + [(10,)]
    joined = build(SMALL_MIXER, spec.MonoForward())
    assert len(joined) == 5
    assert fingerprint(joined) == fingerprint(net)


# ---- adjoints ----

ADJOINTS = {
    "norm, dropout, max pool": spec.CNN(
        blocks=(
            spec.ConvBlock(channels=3, pool=spec.Pooling(size=3, stride=2)),
            spec.ConvBlock(channels=4, kernel=2, stride=2, padding=1, pool=spec.Pooling(size=2, stride=1)),
        ),
        hidden=(6,),
        activation="tanh",
        batch_norm=True,
        dropout=0.3,
        conv_dropout=0.2,
    ),
    "no bias, average pools": spec.CNN(
        blocks=(
            spec.ConvBlock(channels=3, kernel=5, stride=2, pool=spec.Pooling(kind="avg")),
            spec.ConvBlock(channels=4, padding=2, pool=spec.Pooling(kind="global_avg")),
        ),
        hidden=(6,),
        activation="silu",
        bias=False,
    ),
    "pool before the nonlinearity": spec.CNN(
        blocks=(
            spec.ConvBlock(channels=3, pool=spec.Pooling(), order=("conv", "pool", "norm", "activation")),
            spec.ConvBlock(channels=4, order=("norm", "activation", "conv")),
        ),
        hidden=(),
        activation="gelu",
        batch_norm=True,
    ),
    "mixer": spec.MLPMixer(patch_size=4, width=6, depth=1, token_width=5, channel_width=8),
    "custom": spec.Custom(
        layers=(spec.ConvLayer(channels=3), spec.NormLayer(kind="layer"), spec.ActivationLayer(kind="elu"))
    ),
}
SHAPE, CLASSES = (2, 12, 12), 7
CASES = pytest.mark.parametrize("model", ADJOINTS.values(), ids=ADJOINTS)
INJECT = pytest.mark.parametrize("inject", ["layer_input", "post_activation"])


def told_and_wanted(model, inject):
    """What dfa hands to each hidden block, and (block, its input, q_k) to find it in another way; one dropout mask."""
    method = spec.DFA(inject=inject)
    net = build(model, method, SHAPE, CLASSES).double()
    rule = rule_for(method, net, SHAPE)
    x, y = batch(SHAPE, CLASSES)
    torch.manual_seed(3)
    credit = rule.assign(net, x, y)
    torch.manual_seed(3)
    h, hs = x, []
    for block in net:
        h = block(h.detach())
        hs.append(h)
    s = (torch.softmax(h, 1) - F.one_hot(y, CLASSES)).detach() / len(y)
    qs = [torch.tensordot(s, getattr(rule, f"B_{k}"), 1) for k in range(1, len(net))]
    return net, credit, [x, *(h.detach() for h in hs)], hs, qs


@CASES
@INJECT
def test_dfa_hands_each_block_the_adjoint_of_its_whole_inside(model, inject):
    """Gradients equal plain autograd of (h_k · q_k).sum(), q_k = s B_k with B_k dense: classes × (c, h, w)."""
    net, credit, _, hs, qs = told_and_wanted(model, inject)
    for block, told, h, q in zip(net, credit.blocks, hs, qs, strict=False):
        assert q.shape == h.shape
        assert_equal(told, torch.autograd.grad((h * q).sum(), params(block)))


@CASES
@INJECT
def test_the_adjoints_equal_finite_differences(model, inject):
    """Along random directions of each block's parameters, by central differences of (h_k · q_k).sum()."""
    model = replace(model, dropout=0.0, conv_dropout=0.0) if isinstance(model, spec.CNN) else model
    net, credit, inputs, _, qs = told_and_wanted(model, inject)
    for block, told, x, q in zip(net, credit.blocks, inputs, qs, strict=False):
        direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator(9)) for p in params(block)]
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                for parameter, d in zip(params(block), direction, strict=True):
                    parameter.add_(d, alpha=step)
                values.append((block(x) * q).sum())
        slope = float(values[0] - values[1]) / 2e-5
        assert sum(float((g * d).sum()) for g, d in zip(told, direction, strict=True)) == pytest.approx(slope, rel=1e-6)


@CASES
@INJECT
def test_a_probe_sees_the_signal_where_it_lands(model, inject):
    """The tap of a hidden layer's output is told q_k itself."""
    method = spec.DFA(inject=inject)
    net = build(model, method, SHAPE, CLASSES).double().eval()
    rule = rule_for(method, net, SHAPE)
    outputs = Taps()
    for point in net.points:
        module = net.get_submodule(point.output)
        module.register_forward_hook(lambda module, _, output: outputs.__setitem__(module, output))
    x, y = batch(SHAPE, CLASSES)
    signals = rule.assign(net, x, y, outputs).signals
    s = (torch.softmax(net(x), 1) - F.one_hot(y, CLASSES)) / len(y)
    assert_equal(signals[:-1], [torch.tensordot(s, getattr(rule, f"B_{k}"), 1) for k in range(1, len(net))])


CONVOLUTIONS = pytest.mark.parametrize(
    ("stride", "padding", "kernel"), [(1, 0, 3), (1, 2, 3), (2, 0, 3), (2, 1, 4), (3, 2, 5), (4, 0, 4), (3, 0, 1)]
)


@CONVOLUTIONS
@pytest.mark.parametrize("bias", [True, False])
def test_a_mirrored_convolution_with_b_equal_to_w_is_autograd(stride, padding, kernel, bias):
    """Also where the kernel leaves a rest of the map untouched."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=bias), nn.Tanh(), nn.Conv2d(3, 4, kernel, stride, padding, bias=bias)
    ).double()
    x = torch.randn(5, 2, 11, 12, dtype=torch.float64, generator=generator(1))
    twin = mirror(net, {path: weight.detach().clone for path, weight in weighted(net).items()})
    wanted = torch.autograd.grad(net(x).square().sum(), params(net))
    assert_equal(torch.autograd.grad(twin(x).square().sum(), params(twin)), wanted)
    assert torch.equal(net(x), twin(x))


@CONVOLUTIONS
def test_a_mirrored_convolution_sends_errors_back_through_b(stride, padding, kernel):
    """δ_{k−1} is the gradient of the convolution with B in its place; W and b learn as they would."""
    layer = nn.Conv2d(3, 4, kernel, stride, padding).double()
    other = nn.Conv2d(3, 4, kernel, stride, padding).double()
    twin = mirror(nn.Sequential(layer), {"0": other.weight.detach})
    x = torch.randn(5, 3, 11, 12, dtype=torch.float64, generator=generator(1)).requires_grad_()
    delta = torch.randn(layer(x).shape, dtype=torch.float64, generator=generator(2))
    back, *learned = torch.autograd.grad(twin(x), (x, *params(twin)), delta)
    assert_equal([back], torch.autograd.grad(other(x), x, delta))
    assert_equal(learned, torch.autograd.grad(layer(x), params(layer), delta))


# ---- what does not fit ----


def cnn(*blocks, **options):
    return spec.CNN(blocks=blocks, **options)


def custom(*layers):
    return spec.Custom(layers=layers)


@pytest.mark.parametrize(
    ("model", "pointer", "says"),
    [
        (cnn(spec.ConvBlock(channels=4, kernel=31)), "/model/blocks/0/kernel", "31×31 does not fit into maps of 28×28"),
        (
            cnn(*(spec.ConvBlock(channels=4, pool=spec.Pooling()) for _ in range(5))),
            "/model/blocks/4/pool/size",
            "2×2 does not fit into maps of 1×1",
        ),
        (
            cnn(
                spec.ConvBlock(channels=4, pool=spec.Pooling(kind="global_avg")), spec.ConvBlock(channels=4, padding=0)
            ),
            "/model/blocks/1/kernel",
            "3×3 does not fit into maps of 1×1",
        ),
        (spec.MLPMixer(patch_size=5), "/model/patch_size", "5×5 do not tile images of 28×28"),
        (spec.MLPMixer(patch_size=56), "/model/patch_size", "do not tile"),
        (custom(spec.DenseLayer(units=5)), "/model/layers/0", "put a flatten before"),
        (custom(spec.FlattenLayer(), spec.ConvLayer(channels=2)), "/model/layers/1", "takes maps"),
        (custom(spec.ConvLayer(channels=2), spec.FlattenLayer(), spec.PoolLayer()), "/model/layers/2", "takes maps"),
        (custom(spec.ConvLayer(channels=2), spec.PoolLayer(size=27)), "/model/layers/1", "27×27 does not fit"),
        (custom(spec.ConvLayer(channels=2), spec.DenseLayer(units=5)), "/model/layers/1", "2×26×26"),
    ],
)
def test_a_model_that_does_not_fit_its_data_is_refused_at_the_field_to_change(model, pointer, says):
    with pytest.raises(spec.Incompatible, match=says) as refused:
        spec.Run(method=spec.BP(), model=model, dataset=spec.MNIST())
    assert refused.value.pointer == pointer


@pytest.mark.parametrize(
    ("make", "pointer"),
    [
        (lambda: spec.ConvBlock(channels=4, order=("activation", "pool")), "/order"),
        (lambda: spec.ConvBlock(channels=4, order=("conv", "norm", "norm")), "/order"),
        (lambda: spec.ConvBlock(channels=4, order=("conv", "activation"), pool=spec.Pooling()), "/order"),
        (lambda: custom(spec.FlattenLayer(), spec.ActivationLayer()), "/layers"),
    ],
)
def test_a_part_that_contradicts_itself_is_refused(make, pointer):
    with pytest.raises(spec.Incompatible) as refused:
        make()
    assert refused.value.pointer == pointer


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        (spec.MLP(batch_norm=True), True),
        (spec.CNN(batch_norm=True, hidden=()), False),
        (spec.CNN(batch_norm=True), True),
        (cnn(spec.ConvBlock(channels=2, kernel=28, padding=0), batch_norm=True, hidden=()), True),
        (custom(spec.FlattenLayer(), spec.DenseLayer(units=3), spec.NormLayer()), True),
        (custom(spec.FlattenLayer(), spec.DenseLayer(units=3), spec.NormLayer(kind="layer")), False),
    ],
)
def test_a_last_batch_of_one_is_refused_where_batch_norm_would_divide_by_nothing(model, refused):
    def make():
        return spec.Run(
            method=spec.BP(),
            model=model,
            dataset=spec.MNIST(train_samples=65),
            training=spec.Training(batch_size=64),
        )

    if refused:
        with pytest.raises(spec.Incompatible, match="one sample"):
            make()
    else:
        assert make().model is model


@pytest.mark.parametrize(
    ("method", "model", "says"),
    [
        (spec.PEPITA(), spec.CNN(), "dense models only"),
        (spec.PEPITA(), spec.MLPMixer(), "dense models only"),
        (spec.PEPITA(), spec.MLP(dropout=0.1), "without dropout"),
        (spec.DRTP(), spec.MLPMixer(), "not with gelu"),
        (spec.FF(), spec.MLP(), r'not with tanh; .* as in {"name": "mlp", "activation": "relu"}'),
        (spec.DRTP(), custom(spec.ConvLayer(channels=2), spec.ActivationLayer(kind="relu")), "not with relu$"),
    ],
)
def test_a_method_is_refused_a_model_that_it_cannot_train(method, model, says):
    with pytest.raises(spec.Incompatible, match=says) as refused:
        spec.Run(method=method, model=model, dataset=spec.MNIST())
    assert refused.value.pointer == "/method/name"


# ---- arithmetic ----


@pytest.mark.parametrize("name", MODELS)
@INJECT
def test_the_plans_shapes_are_those_of_the_net(name, inject):
    """With a rest at every border: an image of 30×34, patches of 2."""
    model, shape = MODELS[name](), (3, 30, 34)
    if name == "mlp_mixer":
        model = replace(model, patch_size=2, width=8, token_width=4, channel_width=8)
    method = spec.DFA(inject=inject)
    layers = plan(model, shape, 10)
    net = build(model, method, shape)
    planned = [following[0].shape for following in blocks(layers, method)[1:]]
    assert [tuple(found) for found in output_shapes(net, torch.zeros(1, *shape))] == [*planned, (10,)]
    learned = [
        module.numbers for layer in layers for placed in layer.parts for module in placed.part.learned(placed.shape)
    ]
    assert sum(learned) == sum(math.prod(parameter.shape) for parameter in net.parameters())
