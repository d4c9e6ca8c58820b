"""Bytes that a training step holds, by arithmetic: what lives for the whole run, and the peak of what a step makes.

Of one process: where several train together, each holds all of the first and its share of the second.

A step's peak is found by walking its graphs as the method does: what autograd saves for the parts that are still to be
told, the gradients of those that have been, and the signals on their way. Single precision; the kernels' own workspace
is not counted, as in ``credit.meter``, which counts the real step.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from credit import spec
from credit.estimate import Net, Parts, ends, joined, layers, learned, parameters, projection
from credit.spec.layers import Part, Shape
from credit.spec.plan import blocks

NUMBER = 4
"""Bytes of a number in single precision."""
MOMENTS = {spec.Adam: 2, spec.AdamW: 2, spec.RMSprop: 1}
SAVES_OUTPUT = {"tanh", "sigmoid", "relu"}
"""Nonlinearities whose derivative is a function of their output; the others keep their input."""
STREAMED = (spec.BroadcastMethod, spec.MonoForward, spec.LocalLoss)
"""Methods that are done with a block when it is told."""
STREAMED_NUMBERS = 2**20
VIEWS = (spec.FlattenLayer, spec.Tokens)
"""Parts whose output is their input in another shape."""


class Turn(NamedTuple):
    """One part of a graph as its gradient is taken; numbers of a whole batch."""

    saved: float
    """Held for it since the forward pass."""
    gradients: float
    """Of its parameters; they live until its block is updated, or to the end of the step."""
    passing: float
    """Signals that are alive while it is told."""
    first: bool = False
    """Of its block, and so the last one to be told."""


def updates_as_told(run: spec.Run) -> bool:
    """Whether a block is updated as soon as it is told, while the others still wait: it takes no longer for large nets,
    and never two blocks' gradients are there at a time. For small nets one step of the optimizer for all is quicker.
    """
    alone = run.training.devices == 1  # several send all gradients of a step as one message
    return alone and isinstance(run.method, STREAMED) and parameters(run) >= STREAMED_NUMBERS


def peak_bytes(run: spec.Run) -> int:
    """Parameters, state of rule and optimizer, and the most that a step holds besides."""
    return state_bytes(run) + round(NUMBER * _peak(run))


def saved_bytes(run: spec.Run) -> int:
    """The most that autograd holds for a backward pass at a time."""
    return round(NUMBER * max(sum(turn.saved for turn in graph) for graph in graphs(run)))


def samples(run: spec.Run) -> int:
    """Of a batch, the most that one process has."""
    return -(-run.training.batch_size // run.training.devices)


# ---- what outlives a step --------------------------------------------------------------------------------------------


def state_bytes(run: spec.Run) -> int:
    """Net, rule and optimizer."""
    net, numbers = blocks(layers(run), run.method), parameters(run)
    own, buffers = _heads(run, net), _buffers(run, net)
    trained = _numbers(net[-1]) if isinstance(run.method, spec.Shallow) else numbers
    momentum = isinstance(run.optimizer, spec.SGD | spec.RMSprop) and run.optimizer.momentum > 0
    moments = MOMENTS.get(type(run.optimizer), 0) + momentum
    return round(NUMBER * (numbers + own + buffers + moments * (trained + own)))


def _heads(run: spec.Run, net: Net) -> int:
    """Parameters of the rule itself."""
    method, classes, shapes = run.method, run.dataset.classes, ends(net)
    match method:
        case spec.KP():
            return _weights(joined(net))
        case spec.FF():
            return sum(classes * math.prod(shape) for shape in shapes[1:-1])
        case spec.MonoForward():
            return sum(projection(shape, classes, method.head.max_features) for shape in shapes)
        case spec.LocalLoss():
            return sum(_decoder(method, shape, classes) + _matching(method, shape) for shape in shapes)
    return 0


def _buffers(run: spec.Run, net: Net) -> float:
    """What the rule keeps and does not train, and the running means of batch norm."""
    method, classes = run.method, run.dataset.classes
    norms = [placed.shape[0] for placed in joined(net) if _is_batch_norm(placed.part)]
    widths = [math.prod(shape) for shape in ends(net)]
    own = 0.0
    match method:
        case spec.FA() | spec.FRSF():
            own = _weights(joined(net))
        case spec.DFA() | spec.DRTP() | spec.DKP():
            own = classes * sum(widths)
        case spec.SBD() | spec.EBD():
            masks = _numbers(joined(net)) / NUMBER if method.weight_sparsity else 0
            own = 2 * copies(method) * classes * sum(widths) + masks
        case spec.FF():
            own = sum(widths)
        case spec.PEPITA():
            own = classes * math.prod(run.dataset.shape)
    return own + 2 * sum(norms) + _inverses(method, net)


def copies(method: spec.SBD | spec.EBD) -> int:
    """Scores that are broadcast beside each other."""
    expansion = method.score_expansion
    stacked = len(expansion.companions) if expansion.kind == "stack" else 0
    return 1 + stacked + (expansion.features if expansion.kind == "random_feat" else 0)


def _inverses(method: spec.Method, net: Net) -> int:
    """The inverse correlation matrices of the entropy regulariser."""
    regularizers = getattr(method, "regularizers", None)
    if regularizers is None or not regularizers.entropy.weight:
        return 0
    return sum(shape[0] ** 2 for shape in ends(net) if len(shape) == 1)


def _is_batch_norm(part: Part) -> bool:
    return isinstance(part, spec.NormLayer) and part.kind == "batch"


def _numbers(parts: Parts) -> int:
    return sum(module.numbers for module in learned(parts))


def _weights(parts: Parts) -> int:
    """Numbers of the weights that an error passes on its way back."""
    _, *later = [module.numbers for module in learned(parts) if module.products]
    return sum(later)


def _decoder(method: spec.LocalLoss, shape: Shape, classes: int) -> int:
    return projection(shape, classes, method.dim_in_decoder) + classes if method.loss != "sim" else 0


def _matching(method: spec.LocalLoss, shape: Shape) -> int:
    if method.loss == "pred":
        return 0
    return 9 * shape[0] ** 2 if len(shape) == 3 else shape[-1] ** 2


# ---- what a step makes -----------------------------------------------------------------------------------------------


def _peak(run: spec.Run) -> float:
    """The most numbers alive in a step: in the middle of a graph, or when the optimizer is at work."""
    n, most, gradients = samples(run), 0.0, 0.0
    net = blocks(layers(run), run.method)
    always, streamed = _alongside(run, net), updates_as_told(run)
    roots = 2 if isinstance(run.optimizer, spec.RMSprop) else 1
    for graph in graphs(run):
        left = sum(turn.saved for turn in graph)
        for turn in graph:
            gradients += turn.gradients
            most = max(most, left + gradients + turn.passing)
            left -= turn.saved
            if streamed and turn.first:
                most, gradients = max(most, left + roots * gradients), 0
    if isinstance(run.method, spec.PEPITA):  # no graph at all: both passes' outputs, and the perturbed input
        most = n * (2 * sum(math.prod(shape) for shape in ends(net)) + 2 * math.prod(run.dataset.shape)) + gradients
    sent = gradients if run.training.devices > 1 else 0
    return always + max(most, roots * gradients, gradients + sent)


def _alongside(run: spec.Run, net: Net) -> float:
    """What a step makes of the rule's own state and keeps until it settles."""
    match run.method:
        case spec.DKP():
            made = run.dataset.classes * sum(math.prod(shape) for shape in ends(net))
        case spec.SBD() | spec.EBD() as method if method.forgetting < 1:
            made = copies(method) * run.dataset.classes * sum(math.prod(shape) for shape in ends(net))
        case _:
            made = 0
    inverses = [shape[0] ** 2 for shape in ends(net) if len(shape) == 1] if _inverses(run.method, net) else [0]
    return made + sum(inverses) + 2 * max(inverses, default=0)


def graphs(run: spec.Run) -> list[list[Turn]]:
    """The graphs that a step makes one after the other, each as the turns in which it is told."""
    net = blocks(layers(run), run.method)
    return GRAPHS.get(type(run.method), _broadcast)(run, net)


def _backward(run: spec.Run, net: Net) -> list[list[Turn]]:
    (turns,) = walk([joined(net)], samples(run), counted=True)
    if isinstance(run.method, spec.SignConcordant):  # B is made of W when the error passes
        turns = [turn._replace(passing=turn.passing + turn.gradients) for turn in turns]
    return [turns[::-1]]


def _shallow(run: spec.Run, net: Net) -> list[list[Turn]]:
    """The output block's graph, after the hidden blocks have passed without one."""
    n, (*hidden, output) = samples(run), net
    most = max((passing(placed.part, placed.shape) for placed in joined(hidden)), default=0)
    (turns,) = walk([output], n, counted=not hidden)
    return [[Turn(0, 0, n * most)], list(reversed(turns))]


def _broadcast(run: spec.Run, net: Net) -> list[list[Turn]]:
    """All blocks have their graphs before the last is told; or none has, and each makes its own when it is told."""
    n = samples(run)
    if _is_lean(run.method):
        return [walk([block], n, counted=k == 0)[0][::-1] for k, block in enumerate(net)]
    ends_last = isinstance(run.method, spec.SBD | spec.EBD) and run.method.forward_projection > 0
    order = list(walk(net, n, counted=True))
    return [[turn for turns in (order if ends_last else reversed(order)) for turn in reversed(turns)]]


def _is_lean(method: spec.Method) -> bool:
    return isinstance(method, spec.BroadcastMethod) and method.lean


def _local(run: spec.Run, net: Net) -> list[list[Turn]]:
    """One block with its head at a time."""
    n, found = samples(run), []
    for k, block in enumerate(net):
        head = [_head(run, ends(net)[k])] if k < len(net) - 1 else []
        (turns,) = walk([block], n, counted=k == 0)
        found.append([*head, *reversed(turns)])
    return found


def _head(run: spec.Run, shape: Shape) -> Turn:
    """A layer's own readout: its input and what it compares."""
    n, classes, method = samples(run), run.dataset.classes, run.method
    width = math.prod(shape)
    if isinstance(method, spec.MonoForward):
        features = projection(shape, classes, method.head.max_features)
        return Turn(n * (features // classes + 2 * classes), features, 2 * n * width)
    assert isinstance(method, spec.LocalLoss)
    features, matched = _decoder(method, shape, classes), _matching(method, shape)
    compared = shape[0] if len(shape) == 3 and method.similarity_std else width
    whole = run.training.batch_size  # every process compares all pairs
    pairs = (n + whole) * compared + 3 * whole * whole if matched else 0
    saved = (n * width if matched and compared < width else 0) + pairs
    return Turn(saved + n * (features // classes), features + matched, 2 * n * width)


def _forward_forward(run: spec.Run, net: Net) -> list[list[Turn]]:
    """Positive and negative samples by blocks or at once; then the readout."""
    n, (*hidden, output) = samples(run), net
    turns = [walk([block], 2 * n, counted=False)[0][::-1] for block in hidden]
    widths = [math.prod(shape) for shape in ends(net)]
    squares = [Turn(2 * n * width, 0, 2 * n * width) for width in widths]
    contrasts = [[square, *turn] for square, turn in zip(squares, turns, strict=True)]
    if run.method.locality == "global":  # type: ignore[union-attr]
        contrasts = [[turn for contrast in reversed(contrasts) for turn in contrast]]
    heads = Turn(n * sum(widths[1:-1]), _heads(run, net), n * sum(widths))
    return [*contrasts, [heads, *walk([output], n, counted=False)[0][::-1]]]


def _forward_only(run: spec.Run, net: Net) -> list[list[Turn]]:
    """The graph of the loss alone."""
    n, classes = samples(run), run.dataset.classes
    return [[Turn(n * classes, _numbers(joined(net)), 0)]]


GRAPHS: dict[type[spec.Spec], Callable[[spec.Run, Net], list[list[Turn]]]] = {
    spec.BP: _backward,
    spec.FA: _backward,
    spec.USF: _backward,
    spec.FRSF: _backward,
    spec.BRSF: _backward,
    spec.KP: _backward,
    spec.Shallow: _shallow,
    spec.MonoForward: _local,
    spec.LocalLoss: _local,
    spec.FF: _forward_forward,
    spec.PEPITA: _forward_only,
}
"""A line per method whose graphs are not those of a broadcast."""


# ---- the graph of a row of parts -------------------------------------------------------------------------------------


def walk(net: Net, n: int, *, counted: bool) -> list[list[Turn]]:
    """What autograd saves of each part of each block for a batch of n, a tensor once: most read what another wrote.

    Args:
        net: its blocks, each a graph of its own.
        n: samples.
        counted: what comes in is held by somebody else.
    """
    found = []
    for block in net:
        turns, needed = list[Turn](), False
        for placed in block:
            part, shape = placed.part, placed.shape
            needed = needed or bool(part.learned(shape))  # nothing is saved for what nobody before it learns from
            reads, writes, extra = saves(part, shape) if needed else (False, False, 0)
            n_in, n_out = math.prod(shape), math.prod(part.after(shape))
            saved = extra + (n_in if reads and not counted else 0) + (n_out if writes else 0)
            turns.append(Turn(n * saved, _numbers([placed]), n * passing(part, shape), first=not turns))
            counted = (counted or reads) if isinstance(part, VIEWS) else writes
        found.append(turns)
    return found


def saves(part: Part, shape: Shape) -> tuple[bool, bool, int]:
    """Whether a part keeps its input and its output for the backward pass, and how many numbers besides."""
    match part:
        case spec.ActivationLayer(kind=kind):
            return kind not in SAVES_OUTPUT, kind in SAVES_OUTPUT, 0
        case spec.PoolLayer(kind=kind):  # the places of the maxima are of 8 bytes each
            return kind != "global_avg", False, 2 * math.prod(part.after(shape)) * (kind == "max")
        case spec.DropoutLayer(rate=rate):
            return False, False, math.prod(shape) if rate else 0
        case spec.Mixing(activation=kind):
            return True, False, math.prod(shape) + _hidden(part, shape) * (1 if kind in SAVES_OUTPUT else 2)
        case spec.FlattenLayer() | spec.Tokens():
            return False, False, 0
    return True, False, 0


def passing(part: Part, shape: Shape) -> int:
    """Numbers that come, go and are on their way inside while a sample passes."""
    if isinstance(part, VIEWS):
        return 0
    inside = _hidden(part, shape) + math.prod(shape) if isinstance(part, spec.Mixing) else 0
    return math.prod(shape) + math.prod(part.after(shape)) + inside


def _hidden(part: spec.Mixing, shape: Shape) -> int:
    return part.units * (shape[1] if part.over == "tokens" else shape[0])
