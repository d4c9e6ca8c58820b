"""Rule, the one base class of all methods, and how feedback matrices are drawn."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn, optim

from credit.flow import NONE, Credit, Give, Gradients, Loss, Taps, backward, kept, params
from credit.parallel import ALONE, Group


class Task(NamedTuple):
    """What a rule may know of the run that it serves."""

    loss: Loss
    sample: Tensor
    """(1, …) one input, by which a rule can learn the shapes of the blocks' outputs."""
    generator: torch.Generator
    """The rule's own random stream (CPU)."""
    adaptive: bool
    """The optimizer rescales each gradient (Adam and its kin)."""
    group: Group = ALONE
    """The processes over which every batch is spread."""


class Prediction(NamedTuple):
    """The answer to a batch."""

    scores: Tensor
    """(N, C) the greatest is the predicted class."""
    layers: Mapping[str, Tensor] = {}
    """(N, C) scores of each layer that has a readout of its own, by the layer's name."""


class Rule(nn.Module):
    """A credit-assignment method: ``assign`` turns a batch into gradients and writes nothing.

    State of a rule lives in buffers (fixed feedback, running correlations) and parameters (learned heads or feedback),
    so devices, checkpoints and the optimizer know it. ``train()`` and ``eval()`` say whether that state may move.
    """

    def __init__(self, net: nn.Sequential, task: Task) -> None:
        """A rule that keeps something per block overrides this and draws it here."""
        super().__init__()
        self.loss, self.group = task.loss, task.group
        self.update: Give = kept
        """What becomes of a block's gradients in training, as soon as they are told."""
        del net

    @property
    def batch(self) -> Group:
        """Whom to ask for what is a mean over the whole batch: all processes in training; a probe is nobody's share."""
        return self.group if self.training else ALONE

    def give(self, parameters: Gradients, gradients: Gradients) -> Gradients | None:
        """For flows that can do without a block's gradients once they are told. A probe keeps them all."""
        return self.update(parameters, gradients) if self.training else gradients

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        """The gradient of every block's parameters on a batch: x (N, …) inputs, y (N,) labels."""
        raise NotImplementedError

    def chain(self, net: nn.Sequential) -> nn.Sequential:
        """The modules that ``assign`` walks: the net itself, or a mirror of it."""
        return net

    def learns(self, net: nn.Sequential) -> Iterable[nn.Parameter]:
        """The parameters of the net that this rule trains; all others never change."""
        return net.parameters()

    def advance(self, step: int, steps: int) -> None:
        """Called before each step (0-based, of ``steps``): what depends on time alone follows from these numbers."""

    def settle(self, net: nn.Sequential, lr: float) -> None:
        """Called after each step of the optimizer, with its learning rate."""

    def predict(self, net: nn.Sequential, x: Tensor) -> Prediction:
        """What the net answers, and what its layers answer that have a readout of their own."""
        return Prediction(net(x))

    def reference(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        """Backpropagation through the readout that the method predicts with: what alignment compares it with."""
        return backward(net, x, y_N, self.loss, taps)

    def gauges(self) -> dict[str, dict[str, float | None]]:
        """Series of the rule's own state by name, each a value per layer, logged at every probe."""
        return {}


class Update:
    """Takes an optimizer's step on a few parameters at once, after which their gradients are gone."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer

    def __call__(self, parameters: Gradients, gradients: Gradients) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()  # it passes over parameters without a gradient
        for parameter in parameters:
            parameter.grad = None


def hand_over(credit: Credit, net: nn.Sequential, rule: Rule) -> None:
    """Give the optimizer its gradients; what was not told is None and stays as it is."""
    for block, gradients in zip(net, credit.blocks, strict=True):
        mine = params(block)
        for parameter, gradient in zip(mine, gradients or (None,) * len(mine), strict=True):
            parameter.grad = gradient
    for parameter, gradient in zip(rule.parameters(), credit.own, strict=True):
        parameter.grad = gradient


def averaged(credit: Credit, hits: Tensor, group: Group) -> tuple[Credit, Tensor]:
    """The credit of a whole batch and its number of hits, from those of the shares; outputs stay those of the share."""
    if group is ALONE:
        return credit, hits
    told = {
        id(gradient): gradient  # once, though kp tells W and B of the same
        for gradients in (*credit.blocks, credit.own)
        for gradient in gradients or ()
        if gradient is not None
    }
    shares = [*told.values(), credit.loss, hits / len(credit.outputs)]
    *means, loss, accuracy = group.means(shares)
    mean = dict(zip(told, means, strict=True))
    blocks = [gradients and tuple(mean[id(gradient)] for gradient in gradients) for gradients in credit.blocks]
    own = tuple(None if gradient is None else mean[id(gradient)] for gradient in credit.own)
    hits = (accuracy * group.samples(len(credit.outputs))).round()
    return credit._replace(loss=loss, blocks=blocks, own=own), hits


@torch.no_grad()
def output_shapes(net: nn.Sequential, sample: Tensor) -> list[torch.Size]:
    """Shape of each block's output for one sample, batch dimension left out; no state of the net moves."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    shapes, h = [], sample
    for block in net:
        h = block(h)
        shapes.append(h.shape[1:])
    for module, training in modes:
        module.training = training
    return shapes


def draw_broadcast(
    shapes: Sequence[torch.Size],
    classes: int,
    generator: torch.Generator,
    *,
    kind: Literal["unified", "per_layer"],
    distribution: Literal["gaussian", "uniform", "kaiming_uniform"],
    normalize: bool,
    gain: Literal["auto"] | float,
    adaptive: bool,
) -> list[Tensor]:
    """Feedback B_k of shape (C, *shapes[k]) for each hidden block (Launay et al., arXiv 1906.04554; Nøkland 2016).

    unified: B_k = F[:, :n_k]·scale_k for one F of C × max n_k, so layers of equal width share the same B.
    """
    sizes = [shape.numel() for shape in shapes]

    def raw(columns: int) -> Tensor:
        """(C, columns) of the distribution at unit scale: N(0, 1) or U(−1, 1)."""
        if distribution == "gaussian":
            return torch.randn(classes, columns, generator=generator)
        return torch.rand(classes, columns, generator=generator) * 2 - 1

    def scale(n: int) -> float:
        factor = gain
        if factor == "auto":
            factor = math.sqrt(n) if adaptive and normalize and distribution == "gaussian" else 1.0
        if normalize:
            deviation = 1.0 if distribution == "gaussian" else 1 / math.sqrt(3)
            return factor / (deviation * math.sqrt(classes * n))
        own = {"gaussian": 1.0, "uniform": 1 / math.sqrt(n), "kaiming_uniform": math.sqrt(6 / n)}
        return factor * own[distribution]

    whole = raw(max(sizes)) if kind == "unified" and sizes else None
    return [
        ((raw(n) if whole is None else whole[:, :n]) * scale(n)).reshape(classes, *shape)
        for n, shape in zip(sizes, shapes, strict=True)
    ]


LayerInit = Literal["xavier_uniform", "kaiming_uniform", "uniform_fanout", "gaussian"]


def fans(weight: Tensor) -> tuple[int, int]:
    """fan_in and fan_out of a weight (n_out × n_in), or of a kernel (c_out × c_in × q × q)."""
    field = weight[0, 0].numel()
    return weight.shape[1] * field, weight.shape[0] * field


def deviation(weight: Tensor, init: LayerInit) -> float:
    """Standard deviation of the entries that ``draw_like`` draws."""
    fan_in, fan_out = fans(weight)
    variance = {
        "xavier_uniform": 2 / (fan_in + fan_out),
        "kaiming_uniform": 1 / (3 * fan_in),
        "uniform_fanout": 1 / (3 * fan_out),
        "gaussian": 1 / fan_out,
    }[init]
    return math.sqrt(variance)


def draw_like(weight: Tensor, generator: torch.Generator, init: LayerInit) -> Tensor:
    """Feedback in the shape of a forward weight for the feedback-alignment family."""
    if init == "gaussian":
        return torch.randn(weight.shape, generator=generator) * deviation(weight, init)
    return (torch.rand(weight.shape, generator=generator) * 2 - 1) * (math.sqrt(3) * deviation(weight, init))
