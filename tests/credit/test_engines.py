"""Engines: the same numbers within rounding, however a step's operations are run."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from credit import checkpoint, spec
from credit.events import Progress, RunError, Started
from credit.optimizers import build_optimizer, set_learning_rate
from credit.train import run
from tests.credit.builders import METHODS, batch, build, fitting
from tests.credit.test_checkpoint import interrupted
from tests.credit.test_train import comparable, of, small, train
from tests.factories import TINY
from tests.stack import creditlab

pytestmark = pytest.mark.filterwarnings("default")  # torch's compiler does what torch warns of
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
RECORDED = [name for name, method in METHODS.items() if not method.unrecordable()]


def engine(name, **changes):
    """A run of whole batches and smaller last ones."""
    base = small(**changes)
    return replace(base, training=replace(base.training, engine=name))


def losses(events):
    return [loss for event in of(Progress, events) for _, _, loss, _ in event.intervals]


@pytest.mark.slow
@COMPILER
def test_compiled_blocks_tell_the_eager_numbers_and_go_on_from_a_checkpoint(tmp_path):
    """With dropout and batch norm; the compiler's code is the run's own, so that resuming is bit for bit."""
    rich = fitting("dfa", hidden=(12,), rich=True)
    eager, compiled = (train(engine(name, **rich), tmp_path) for name in ("eager", "compiled"))
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-4)
    assert of(Started, compiled)[0].environment["engine"] == "compiled"
    told = interrupted(engine("compiled", **rich), tmp_path, 20)
    saved = checkpoint.read(tmp_path / "state", told[-1].sha256)
    rest = list(run(engine("compiled", **rich), datasets=None, cache=tmp_path, resume=saved))
    assert comparable(told + rest) == comparable(compiled)


@pytest.mark.parametrize("name", ["fa", "sbd", "mono_forward", "ff"])
def test_blocks_of_every_flow_compile_whole(name):
    net, rule = build(METHODS[name], hidden=(9,), dtype=torch.float32, activation="relu")
    x, y = batch(dtype=torch.float32)
    expected = rule.eval().assign(net, x, y)
    for block in rule.chain(net):
        block.compile(fullgraph=True, dynamic=False, backend="aot_eager")
    found = rule.assign(net, x, y)
    for ours, theirs in zip(found.blocks, expected.blocks, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_compiler_that_is_not_there_is_named(tmp_path):
    run = TINY | {"training": TINY["training"] | {"engine": "compiled"}}
    place = {"CXX": "/nowhere/g++", "CREDITLAB_DATA_DIR": str(tmp_path)}
    told = creditlab("run", "-", env=place, stdin=json.dumps(run))
    assert told.returncode == 1
    assert re.search(r"training\.engine compiled: .* takes a C\+\+\s+compiler", told.stderr)
    assert "Traceback" not in told.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_graph_without_a_device_is_the_users_error(tmp_path):
    with pytest.raises(RunError, match=r"training\.engine graph needs a CUDA device") as raised:
        train(engine("graph"), tmp_path)
    assert raised.value.code == "user_error"


@pytest.mark.parametrize("chosen", [spec.SGD(lr=0.1, momentum=0.9), spec.Adam(lr=0.1), spec.AdamW(lr=0.1)])
def test_a_learning_rate_on_the_device_is_the_same_rate(chosen):
    plain, device = (build(spec.BP(), dtype=torch.float32)[0] for _ in range(2))
    optimizers = (
        build_optimizer(chosen, plain.parameters()),
        build_optimizer(chosen, device.parameters(), recorded=True),
    )
    for step in range(5):
        for net, optimizer in zip((plain, device), optimizers, strict=True):
            x, y = batch(dtype=torch.float32, seed=step)
            torch.nn.functional.cross_entropy(net(x), y).backward()
            set_learning_rate(optimizer, 0.1 / (1 + step))
            optimizer.step()
            optimizer.zero_grad()
    for ours, theirs in zip(device.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5)


def test_tf32_is_fp32_on_a_cpu(tmp_path):
    rounded = small(training=replace(small().training, precision="tf32", device="cpu"))
    exact = replace(rounded, training=replace(rounded.training, precision="fp32"))
    points = {}
    for chosen, allowed in ((rounded, True), (exact, False)):
        points[allowed] = comparable(train(chosen, tmp_path))[0]
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
    assert points[True] == points[False]


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_step_tells_the_eager_numbers(name, tmp_path):
    chosen = fitting(name, hidden=(32, 24), rich=True) | {"optimizer": spec.Adam(schedule=spec.Cosine())}
    eager, graph = (losses(train(engine(how, **chosen), tmp_path)) for how in ("eager", "graph"))
    assert graph == pytest.approx(eager, rel=1e-3)


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("optimizer", [spec.SGD(momentum=0.9), spec.AdamW(), spec.RMSprop()])
def test_every_optimizer_can_be_recorded(optimizer, tmp_path):
    eager, graph = (losses(train(engine(how, optimizer=optimizer), tmp_path)) for how in ("eager", "graph"))
    assert graph == pytest.approx(eager, rel=1e-3)
