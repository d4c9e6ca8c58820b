"""Forward-Forward (Hinton, arXiv 2212.13345; peer normalisation and readout as in the usual PyTorch replication).

    ẑ = z_{k−1} / (rms(z_{k−1}) + 1e−8)        u = f(ẑ W_kᵀ + b_k)        G = Σ_i u_i²
    L_k = BCE(σ(G − θ), t)        t = 1 positive, 0 negative        z_k = u, no gradient leaves the layer
    peer: + w · mean_i (mean_j r_j − r_i)²        r ← 0.9 r + 0.1 mean of u over the positive samples

z_0 is the image with its label written into its first C numbers: the true one (positive), a random wrong one
(negative), 1/C each (neutral). ``linear`` inference is a softmax on the normalised activities of layers ≥ 2 for the
neutral image; ``goodness`` tries every label and takes the one with the greatest goodness of layers ≥ 2.
``locality = global`` lets the gradient of all layers' contrasts pass through the whole net: the same objective without
the locality, for the decomposition of arXiv 2501.09238 v2.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import grad

from credit.flow import NONE, Credit, Objective, Taps, local, params, tapped, through
from credit.rule import Prediction, Rule, Task, output_shapes
from credit.streams import Streams

PEER_MOMENTUM = 0.9


def normalised(z_ND: Tensor) -> Tensor:
    """Each sample over its root mean square: only the direction reaches the next layer."""
    z = z_ND.flatten(1)
    return (z / (z.square().mean(1, keepdim=True).sqrt() + 1e-8)).view_as(z_ND)


class Normalised(nn.Module):
    """A block that hears the direction of its input alone."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, z_ND: Tensor) -> Tensor:
        u_ND: Tensor = self.block(normalised(z_ND))
        return u_ND


class FF(Rule):
    """Hidden blocks tell positive from negative samples; the output block and the heads read them out."""

    def __init__(
        self,
        net: nn.Sequential,
        task: Task,
        *,
        theta: float | Literal["width"],
        peer_weight: float,
        inference: Literal["linear", "goodness"],
        locality: Literal["local", "global"],
    ) -> None:
        super().__init__(net, task)
        *hidden, (self.classes,) = output_shapes(net, task.sample)
        sizes = [shape.numel() for shape in hidden]
        self.theta = [float(n) if theta == "width" else theta for n in sizes]
        self.peer_weight, self.inference, self.local = peer_weight, inference, locality == "local"
        self.streams = Streams(task.generator.initial_seed())
        self.step = 0
        for k, n in enumerate(sizes, start=1):
            self.register_buffer(f"r_{k}", torch.zeros(n))
        # the output block reads the last layer; a head each those between the first and the last
        self.heads = nn.ParameterList(torch.zeros(self.classes, n) for n in sizes[1:-1])

    def advance(self, step: int, steps: int) -> None:  # noqa: ARG002  (the signature of all rules)
        self.step = step

    @staticmethod
    def _split(net: nn.Sequential) -> tuple[list[Normalised], nn.Module]:
        """The hidden blocks behind their normalisation, and the output block."""
        *hidden, output = net
        return [Normalised(block) for block in hidden], output

    # ---- inputs ----

    def labelled(self, x: Tensor, labels_NC: Tensor) -> Tensor:
        """The images with their first C numbers replaced."""
        flat = x.flatten(1)
        return torch.cat((labels_NC.to(flat.dtype), flat[:, self.classes :]), 1).view_as(x)

    def neutral(self, x: Tensor) -> Tensor:
        return self.labelled(x, torch.full((len(x), self.classes), 1 / self.classes, device=x.device))

    def wrong(self, y_N: Tensor) -> Tensor:
        """(N,) a random label other than the true one, from the step's own stream."""
        generator = self.streams.generator("negatives", self.step)
        offsets = torch.randint(1, self.classes, (self.batch.samples(len(y_N)),), generator=generator)
        return (y_N + self.batch.own(offsets).to(y_N.device)) % self.classes

    # ---- learning ----

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        hidden, output = self._split(net)
        labels = (F.one_hot(y, self.classes) for y in (y_N, self.wrong(y_N)))
        z = torch.cat([self.labelled(x, label) for label in labels])
        target = torch.cat((torch.ones_like(y_N), torch.zeros_like(y_N))).to(z.dtype)
        contrast = partial(self.contrast, target)
        told = (
            local(hidden, [nn.Identity() for _ in hidden], z, contrast, taps)
            if self.local
            else self._global(hidden, z, contrast, taps)
        )
        readout = self._readout(output, *self._normalised(hidden, self.neutral(x)), y_N, taps)
        positive = (signal if signal is None else signal[: len(x)] for signal in told.signals)
        return readout._replace(blocks=[*told.blocks, *readout.blocks], signals=(*positive, *readout.signals))

    def contrast(self, target_N: Tensor, k: int, u_ND: Tensor) -> Tensor:
        """L_k; moves the running means of the peer term in training."""
        u = u_ND.flatten(1)
        value = F.binary_cross_entropy_with_logits(u.square().sum(1) - self.theta[k], target_N)
        if self.peer_weight:
            buffer = self.get_buffer(f"r_{k + 1}")
            r = PEER_MOMENTUM * buffer + (1 - PEER_MOMENTUM) * self.batch.mean(u[target_N > 0].mean(0))
            value = value + self.peer_weight * (r.mean() - r).square().mean()
            if self.training:
                buffer.copy_(r.detach())
        return value

    @staticmethod
    def _global(hidden: Sequence[nn.Module], z: Tensor, contrast: Objective, taps: Taps) -> Credit:
        """All contrasts at once, on one graph through every block."""
        value = torch.zeros((), dtype=z.dtype, device=z.device)
        for k, block in enumerate(hidden):
            z = block(z)
            value = value + contrast(k, z)
        blocks, signals = through(hidden, value, None, taps)
        return Credit(value.detach(), z.detach(), blocks, signals=signals)

    def _readout(self, output: nn.Module, last: Tensor, between: list[Tensor], y_N: Tensor, taps: Taps) -> Credit:
        """The softmax on the normalised activities: gradients of the output block and of the heads."""
        scores_NC = self._scores(output, last, between)
        value = self.loss(scores_NC, y_N)
        mine = params(output)
        told = grad(value, (*mine, *self.heads, *tapped(output, taps)))
        own, signals = told[len(mine) : len(mine) + len(self.heads)], told[len(mine) + len(self.heads) :]
        return Credit(value.detach(), scores_NC.detach(), [told[: len(mine)]], tuple(own), tuple(signals))

    def _scores(self, output: nn.Module, last: Tensor, between: list[Tensor]) -> Tensor:
        scores_NC: Tensor = output(last)
        for head, h in zip(self.heads, between, strict=True):
            scores_NC = scores_NC + F.linear(h.flatten(1), head)
        return scores_NC

    @staticmethod
    @torch.no_grad()
    def _normalised(hidden: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Normalised activities of the last layer, and of those between the first and the last."""
        activities = []
        for block in hidden:
            x = block(x)
            activities.append(normalised(x))
        return activities[-1], activities[1:-1]

    # ---- inference ----

    def predict(self, net: nn.Sequential, x: Tensor) -> Prediction:
        hidden, output = self._split(net)
        if self.inference == "linear":
            return Prediction(self._scores(output, *self._normalised(hidden, self.neutral(x))))
        goodness = torch.stack([self._goodness(hidden, x, label) for label in range(self.classes)], dim=2)
        layers = {f"hidden{k}": scores_NC for k, scores_NC in enumerate(goodness.unbind(1), start=1)}
        return Prediction(goodness[:, min(1, len(hidden) - 1) :].sum(1), layers)

    def _goodness(self, hidden: Sequence[nn.Module], x: Tensor, label: int) -> Tensor:
        """(N, layers) the goodness of each hidden layer for one label."""
        z = self.labelled(x, F.one_hot(torch.full((len(x),), label, device=x.device), self.classes))
        sums = []
        for block in hidden:
            z = block(z)
            sums.append(z.flatten(1).square().sum(1))
        return torch.stack(sums, 1)

    def reference(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        """Backpropagation through the linear readout, for the positive samples: signals are taken there."""
        hidden, output = self._split(net)
        z, activities = self.labelled(x, F.one_hot(y_N, self.classes)), []
        for block in hidden:
            z = block(z)
            activities.append(normalised(z))
        scores_NC = self._scores(output, activities[-1], activities[1:-1])
        value = self.loss(scores_NC, y_N)
        blocks, signals = through(net, value, None, taps)
        return Credit(value.detach(), scores_NC.detach(), blocks, signals=signals)
