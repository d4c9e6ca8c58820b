"""How far a method's teaching signals point where backpropagation's do, per layer, on a fixed probe batch.

Both are taken on the same weights, batch and masks, in evaluation mode (Launay et al., arXiv 1906.04554, whose angles
these are; metrics A1 and A2 of the literature). A probe moves no weight, no buffer and no random state. What is
undefined, such as the cosine of a zero gradient, is None, never 0 or 1.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.linalg import vecdot

from credit import spec
from credit.events import ALIGNMENT_SERIES, Aligned, LayerAlignment
from credit.flow import Credit, Taps, params
from credit.nets.blocks import Net
from credit.rule import Rule

FLOOR = 1e-12
"""A signal whose root mean square per entry and sample of the score s lies below this has no direction."""
PIECE = 2**19
"""Entries that are multiplied at once."""


class Probe:
    """A fixed batch, and when alignment is measured on it."""

    def __init__(self, wanted: spec.Alignment, x: Tensor, y_N: Tensor) -> None:
        self.every, self.x, self.y_N = wanted.every, x, y_N
        digest = hashlib.sha256(x.cpu().numpy().tobytes() + y_N.cpu().numpy().tobytes())
        self.description = {"samples": len(y_N), "split": wanted.split, "sha256": digest.hexdigest()}

    def due(self, step: int, steps_per_epoch: int, steps: int) -> bool:
        """After every epoch or every so many steps, and always at the end."""
        period = self.every if isinstance(self.every, int) else steps_per_epoch
        return step % period == 0 or step == steps

    def take(self, net: Net, rule: Rule, step: int, epoch: float) -> Aligned:
        layers = measure(net, rule, self.x, self.y_N)
        return Aligned(step=step, epoch=epoch, layers=layers, gauges=rule.gauges())

    def take_members(self, net: Net, rule: Rule, rules: Sequence[Rule], step: int, epoch: float) -> list[Aligned]:
        """Of stacked net and rule; ``rules`` are the members' own."""
        measured = measure_members(net, rule, self.x, self.y_N.expand(len(rules), -1))
        return [
            Aligned(step=step, epoch=epoch, layers=layers, gauges=own.gauges())
            for layers, own in zip(measured, rules, strict=True)
        ]


def measure(net: Net, rule: Rule, x: Tensor, y_N: Tensor) -> list[LayerAlignment]:
    """One probe: x (N, …) inputs, y (N,) labels -> one entry per layer, in order."""
    told = _told(net, rule, x, y_N)
    figures = {layer: _figures(each) for layer, each in told.items()}
    numbers = iter(torch.stack([figure for each in figures.values() for figure in each.values()]).tolist())
    return [_entry(layer, {name: next(numbers) for name in each}) for layer, each in figures.items()]


def measure_members(net: Net, rule: Rule, x: Tensor, y_MN: Tensor) -> list[list[LayerAlignment]]:
    """One probe of several members whose net and rule are stacked: the entries of each."""
    told = _told(net, rule, x, y_MN)
    entries = [_columns(layer, vmap(_figures)(each)) for layer, each in told.items()]
    return [list(layers) for layers in zip(*entries, strict=True)]


def _told(net: Net, rule: Rule, x: Tensor, y_N: Tensor) -> dict[str, dict[str, Tensor]]:
    """What there is of each layer, by the layer's name: u from the method, g from backpropagation, as far as told."""
    chain = rule.chain(net)
    with _probing(net, chain, rule) as taps:
        true = _Side(net, rule.reference(net, x, y_N, taps), taps, y_N.dim() - 1)
        mine = _Side(chain, rule.assign(net, x, y_N, taps), taps, y_N.dim() - 1)
        outputs = {point.layer: taps[net.get_submodule(point.output)].detach() for point in net.points}
    e_NC = true.signals.get(net.points[-1].output)
    return {
        point.layer: _known(
            h=outputs[point.layer],
            e=e_NC,
            u=mine.signals.get(point.output),
            g=true.signals.get(point.output),
            u_before=mine.signals.get(point.preactivation or ""),
            g_before=true.signals.get(point.preactivation or ""),
            u_update=mine.update(point.modules),
            g_update=true.update(point.modules),
        )
        for point in net.points
    }


def _known(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


class _Side:
    """What one of the two rules told, by the paths of modules, which hold for a net and its mirror.

    ``members``: the number of dimensions in front of weights and signals, 0 or 1.
    """

    def __init__(self, chain: nn.Sequential, credit: Credit, taps: Taps, members: int) -> None:
        self.members = members
        tapped = [path for path, module in chain.named_modules() if module in taps]
        self.signals = dict(zip(tapped, credit.signals, strict=True))
        paths: dict[Tensor, str] = {parameter: path for path, parameter in chain.named_parameters()}
        self.gradients = {
            paths[parameter]: gradient
            for block, gradients in zip(chain, credit.blocks, strict=True)
            if gradients is not None
            for parameter, gradient in zip(params(block), gradients, strict=True)
        }

    def update(self, modules: tuple[str, ...]) -> Tensor | None:
        """(1, n) all weight gradients of a layer in a row, of each member; None where it was told nothing."""
        weights = [
            gradient.flatten(self.members)
            for path, gradient in self.gradients.items()
            if path.endswith("weight")
            and gradient.dim() > 1 + self.members
            and path.startswith(tuple(f"{m}." for m in modules))
        ]
        if not weights:
            return None
        row = weights[0] if len(weights) == 1 else torch.cat(weights, -1)
        return row.unsqueeze(-2)


def _figures(told: dict[str, Tensor]) -> dict[str, Tensor]:
    """() each figure of a layer that is defined by what was told."""
    h_ND = told["h"].flatten(1)
    figures = {"activation_rms": torch.linalg.vector_norm(h_ND, dtype=torch.float64) / h_ND.numel() ** 0.5}
    if {"u", "g"} <= told.keys():
        cosine_N, ratio_N = compared(told["u"], told["g"])
        figures["delta_cosine"], figures["delta_cosine_std"] = cosine_N.nanmean(), _deviation(cosine_N)
        figures["delta_angle"] = torch.rad2deg(torch.acos(cosine_N.clamp(-1, 1))).nanmean()
        figures["norm_ratio"] = ratio_N.nanmean()
    if {"u_before", "g_before"} <= told.keys():
        figures["preactivation_cosine"] = cosines(told["u_before"], told["g_before"]).nanmean()
    if {"u_update", "g_update"} <= told.keys():
        figures["update_cosine"] = cosines(told["u_update"], told["g_update"]).nanmean()
    if "e" in told:
        figures["score_correlation"] = correlations(h_ND, told["e"]).nanmean()
    return figures


def _entry(layer: str, figures: dict[str, float]) -> LayerAlignment:
    """Of one layer; what is not defined, or not finite, is None."""
    numbers = {name: figures[name] if math.isfinite(figures.get(name, math.nan)) else None for name in ALIGNMENT_SERIES}
    return LayerAlignment(layer=layer, **numbers)


def _columns(layer: str, figures: dict[str, Tensor]) -> list[LayerAlignment]:
    """Of one layer of each member, from the members' figures (M,)."""
    columns = torch.stack(list(figures.values()), 1).tolist()
    return [_entry(layer, dict(zip(figures, column, strict=True))) for column in columns]


@contextmanager
def _probing(*modules: nn.Module) -> Iterator[Taps]:
    """Evaluation mode for all, and taps that fill with the outputs of the measured modules of every forward pass."""
    net, chain, _ = modules
    assert isinstance(net, Net)
    modes = [(part, part.training) for module in modules for part in module.modules()]
    taps = Taps()
    paths = {path for point in net.points for path in (point.preactivation, point.output) if path}
    measured = {part.get_submodule(path) for part in (net, chain) for path in paths}

    def keep(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        taps[module] = output

    def remember(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        taps.ran.setdefault(block, (inputs[0], output))

    handles = [module.register_forward_hook(keep) for module in measured]
    handles += [block.register_forward_hook(remember) for block in net]
    for module in modules:
        module.eval()
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes:
            part.training = training


def cosines(u_ND: Tensor, g_ND: Tensor) -> Tensor:
    """(N,) cosine of each sample in float64; NaN where either side has no direction."""
    return compared(u_ND, g_ND)[0]


def compared(u_ND: Tensor, g_ND: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) cosines, (N,) norms of u over those of g, in float64; NaN where a side that they need has no direction."""
    u_ND, g_ND = u_ND.flatten(1), g_ND.flatten(1)
    uu_N, gg_N, ug_N = _products(u_ND, g_ND)
    u_N, g_N = uu_N.sqrt(), gg_N.sqrt()
    directed = _directed(u_N, u_ND), _directed(g_N, g_ND)
    return ug_N / (directed[0] * directed[1]), u_N / directed[1]


def _products(u_ND: Tensor, g_ND: Tensor) -> Tensor:
    """(3, N) u·u, g·g and u·g in float64, by pieces that stay in the cache."""
    width = max(1, PIECE // len(u_ND))
    pieces = []
    for piece in zip(u_ND.split(width, 1), g_ND.split(width, 1), strict=True):
        u, g = (vectors.double() for vectors in piece)
        pieces.append(torch.stack((_dot(u, u), _dot(g, g), _dot(u, g))))
    return torch.stack(pieces).sum(0)


def _dot(u_ND: Tensor, g_ND: Tensor) -> Tensor:
    """(N,) u·g; of one long row without the products in between."""
    return torch.dot(u_ND[0], g_ND[0])[None] if len(u_ND) == 1 else vecdot(u_ND, g_ND)


def correlations(h_ND: Tensor, e_NC: Tensor) -> Tensor:
    """(D, C) |Pearson(h_i, s_c)| over the samples in float64; NaN where either side is constant.

    The error e = s/N correlates as the score s does (EBD, arXiv 2504.11558, appendix J; metric A9 of the literature).
    """
    (h_ND, h_D), (e_NC, e_C) = (_centred(v.flatten(1)) for v in (h_ND, e_NC))
    pearson_DC: Tensor = (h_ND.mT @ e_NC).abs() / (h_D[:, None] * e_C)
    return pearson_DC


def _centred(v_ND: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) without the mean over the samples, in float64, and (D,) norms.

    Sums of equal float32 are exact in float64, so what is constant is 0 here and has the norm 0.
    """
    v_ND = v_ND.double()
    v_ND = v_ND - v_ND.sum(0) / len(v_ND)
    return v_ND, vecdot(v_ND, v_ND, dim=0).sqrt()


def _directed(norms_N: Tensor, u_ND: Tensor) -> Tensor:
    """(N,) the norms; NaN where the signal, put on the scale of a per-sample score, has no direction."""
    n, d = u_ND.shape
    return torch.where(norms_N * n / d**0.5 < FLOOR, torch.nan, norms_N)


def _deviation(values: Tensor) -> Tensor:
    """Standard deviation over the samples whose value is defined, with divisor n − 1."""
    n = (~values.isnan()).sum()
    squares = (values - values.nanmean()).square().nansum()
    return torch.where(n > 1, squares / (n - 1), torch.nan).sqrt()
