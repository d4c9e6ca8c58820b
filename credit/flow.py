"""The three ways credit reaches a block, and nothing else.

Every rule turns a batch into a gradient for each block of a net; they differ in the teaching signal that arrives at a
block's output, and when. What happens inside a block (norm, weight, nonlinearity, pooling) is ordinary calculus on a
graph of that block alone:

    gradient of block k  =  (∂h_k/∂θ_k)ᵀ δ_k  =  grad(h_k, parameters of block k, δ_k)

Shapes: N batch, C classes, D… shape of a block's output. Errors e are those of the mean loss: e = s/N for a score s.
Where several nets train at once (``credit.members``) all shapes have M members in front, and D… is a vector.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn, tensordot
from torch.autograd import grad

from credit.rerun import Rerun

Loss = Callable[[Tensor, Tensor], Tensor]
"""(z_NC, y_N) -> the batch's mean loss, a 0-d tensor; of several members, (M, N, C) and (M, N) -> (M,)."""


class Taps(dict[nn.Module, Tensor]):
    """The output of each tapped module in the current forward pass, by the hooks of a probe (``credit.alignment``)."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        """Block -> what it was given and what it made of that, on a graph that is kept."""

    def output(self, block: nn.Module, x: Tensor) -> Tensor:
        """``block(x)``, computed once for all flows of a probe that give the block the same."""
        given, h = self.ran.get(block, (None, x))
        if given is None or given.data_ptr() != x.data_ptr() or given.shape != x.shape:
            h = block(x)
        return h


NONE = Taps()

Gradients = tuple[Tensor, ...]
Give = Callable[[Gradients, Gradients], Gradients | None]
"""(parameters, their gradients), as soon as these are told -> what the credit holds of them; None: they were used."""


def kept(_: Gradients, gradients: Gradients) -> Gradients:
    """All gradients stay until the last one is told."""
    return gradients


class Credit(NamedTuple):
    """What a rule returns for a batch."""

    loss: Tensor
    """() what was minimised on this batch, detached."""
    outputs: Tensor
    """(N, C) what the net said, detached."""
    blocks: Sequence[Gradients | None]
    """[k] gradients of the parameters of block k, in their order; None: not trained, or given away already."""
    own: tuple[Tensor | None, ...] = ()
    """Gradients of the rule's own parameters (local heads, learned feedback), in their order."""
    signals: tuple[Tensor | None, ...] = ()
    """dL/d(output) of every tapped module, as the rule told it, in module order; only in a probe."""


def params(module: nn.Module) -> Gradients:
    return tuple(module.parameters())


def tapped(part: nn.Module, taps: Taps) -> Gradients:
    return tuple(taps[module] for module in part.modules() if module in taps)


def error(loss: Loss, z_NC: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and e = ∂L/∂z, on a graph of the loss alone, at single precision or better."""
    z_NC = z_NC.detach()
    if z_NC.element_size() < 4:
        z_NC = z_NC.float()
    z_NC.requires_grad_()
    with torch.enable_grad():
        value = loss(z_NC, y_N)
    return value.detach(), grad(value, z_NC, torch.ones_like(value))[0]


def project(s_NC: Tensor, B_CD: Tensor) -> Tensor:
    """The product s B, (N, D…): a signal of the classes through feedback in the shape of a block's outputs."""
    return s_NC @ B_CD if B_CD.dim() == s_NC.dim() else tensordot(s_NC, B_CD, 1)


def correlate(s_NC: Tensor, h_ND: Tensor) -> Tensor:
    """The product sᵀ h, (C, D…): a sum over the batch."""
    return s_NC.mT @ h_ND if h_ND.dim() == s_NC.dim() else tensordot(s_NC, h_ND, ([0], [0]))


def backward(net: Iterable[nn.Module], x: Tensor, y_N: Tensor, loss: Loss, taps: Taps = NONE) -> Credit:
    """One graph through every block; the error comes back the way the signal went."""
    blocks, h = list(net), x
    for block in blocks:
        h = taps.output(block, h)
    value, e_NC = error(loss, h, y_N)
    gradients, signals = through(blocks, h, e_NC.to(h.dtype), taps)
    return Credit(value, h.detach(), gradients, signals=signals)


def through(
    blocks: Iterable[nn.Module], end: Tensor, delta: Tensor | None, taps: Taps = NONE
) -> tuple[list[Gradients], Gradients]:
    """Gradients of the blocks' parameters, and signals at the taps, of one graph that ends in ``end`` and is told δ."""
    blocks = list(blocks)
    wanted = [tensor for block in blocks for tensor in (*params(block), *tapped(block, taps))]
    told = iter(grad(end, wanted, delta, retain_graph=bool(taps)))  # a probe's other flow goes the same way
    gradients: list[Gradients] = []
    signals: list[Tensor] = []
    for block in blocks:
        gradients.append(tuple(next(told) for _ in params(block)))
        signals += [next(told) for _ in tapped(block, taps)]
    return gradients, tuple(signals)


Signal = Callable[[int, Tensor, Tensor], Tensor]
"""(k, h_ND, s_NC) -> δ_ND: what hidden block k is told at its output."""
End = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(h_ND below the last block, z_NC, e_NC) -> something made of the error where it arises."""


def plain(below_ND: Tensor, z_NC: Tensor, e_NC: Tensor) -> Tensor:  # noqa: ARG001
    """The error as it is."""
    return e_NC


def broadcast(
    net: Iterable[nn.Module],
    x: Tensor,
    y_N: Tensor,
    loss: Loss,
    signal: Signal,
    taps: Taps = NONE,
    *,
    score: End = plain,
    output: End = plain,
    lean: bool = False,
    give: Give = kept,
) -> Credit:
    """One graph per block, cut between blocks; ``signal(k, h, s)`` says what block k is told.

    ``score`` says what s is broadcast, ``output``, asked last, what the last block is told: the error, both of them.
    ``lean``: no graph is kept, each block runs again when it is told; a probe has its graph anyhow. ``give`` may
    update a block at once: whoever is told later has run with its own old weights, and hears of the others only through
    h and s.

    Blocks are told in any order. The last one first, where that can be: the first ones, often the largest, then take
    their turn when the graphs of the others are gone.
    """
    blocks, turns = list(net), list[Callable[[Tensor], Tensor]]()
    below_ND = h = x
    lean = lean and not taps
    with torch.set_grad_enabled(not lean):
        for block in blocks:
            below_ND = h.detach()
            again = Rerun(block) if lean else None
            h = taps.output(block, below_ND)
            turns.append(again or partial(_as_it_was, h))
    value, e_NC = error(loss, h, y_N)
    outputs = h.detach()
    s_NC = score(below_ND, outputs, e_NC)
    gradients: list[Gradients | None] = []
    signals: list[Gradients] = []
    backwards = output is plain and not lean
    if output is plain:
        below_ND = x  # nobody asks for it any more
    for k in reversed(range(len(blocks))) if backwards else range(len(blocks)):
        h, mine = turns.pop(-1 if backwards else 0)(x), params(blocks[k])
        x = h.detach()
        last = k == len(blocks) - 1
        delta = output(below_ND, outputs, e_NC) if last else signal(k, x, s_NC)
        told = grad(h, (*mine, *tapped(blocks[k], taps)), delta.to(h.dtype))
        del h, delta  # the block's graph ends with this turn: its memory is free for the next
        gradients.append(give(mine, told[: len(mine)]))
        signals.append(told[len(mine) :])
        del told
    if backwards:
        gradients, signals = gradients[::-1], signals[::-1]
    return Credit(value, outputs, gradients, signals=tuple(chain.from_iterable(signals)))


def _as_it_was(h: Tensor, _: Tensor) -> Tensor:
    """The output of a block whose graph was kept."""
    return h


Objective = Callable[[int, Tensor], Tensor]
"""(k, h_ND) -> () the loss of block k."""


def local(
    net: Iterable[nn.Module],
    heads: Iterable[nn.Module],
    x: Tensor,
    objective: Objective,
    taps: Taps = NONE,
    *,
    give: Give = kept,
) -> Credit:
    """One graph at a time: each block and its head minimise an objective of their own, and the graph is done with.

    The loss is that of the last block, the outputs are the last block's. ``give`` may update a block at once.
    """
    gradients: list[Gradients | None] = []
    own: list[Tensor | None] = []
    signals: list[Tensor] = []
    for k, (block, head) in enumerate(zip(net, heads, strict=True)):
        h = taps.output(block, x)
        value = objective(k, h)
        mine, theirs = params(block), params(head)
        told = grad(value, (*mine, *theirs, *tapped(block, taps)), torch.ones_like(value))
        x, value = h.detach(), value.detach()
        del h  # nothing of this block's graph outlives its turn
        count = len(mine) + len(theirs)
        given = give((*mine, *theirs), told[:count])
        gradients.append(None if given is None else given[: len(mine)])
        own += (None,) * len(theirs) if given is None else given[len(mine) :]
        signals += told[count:]
        del told, given
    return Credit(value, x, gradients, tuple(own), tuple(signals))
