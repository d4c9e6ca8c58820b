"""How far a method's teaching signals point where backpropagation's do, per layer, on a fixed probe batch.

Both are taken on the same weights, batch and masks, in evaluation mode (Launay et al., arXiv 1906.04554, whose angles
these are; metrics A1 and A2 of the literature). A probe moves no weight, no buffer and no random state. What is
undefined, such as the cosine of a zero gradient, is None, never 0 or 1.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from credit import spec
from credit.events import Aligned, LayerAlignment
from credit.flow import Credit, params
from credit.nets.blocks import Net, Point
from credit.rule import Rule

FLOOR = 1e-12
"""A signal whose root mean square per entry and sample of the score s lies below this has no direction."""

Taps = dict[nn.Module, Tensor]


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


def measure(net: Net, rule: Rule, x: Tensor, y_N: Tensor) -> list[LayerAlignment]:
    """One probe: x (N, …) inputs, y (N,) labels -> one entry per layer, in order."""
    chain = rule.chain(net)
    with _probing(net, chain, rule) as taps:
        mine = _Side(chain, rule.assign(net, x, y_N, taps), taps)
        true = _Side(net, rule.reference(net, x, y_N, taps), taps)
        outputs = {point.layer: taps[net.get_submodule(point.output)].detach() for point in net.points}
    e_NC = true.signals.get(net.points[-1].output)
    return [_layer(point, mine, true, outputs[point.layer], e_NC) for point in net.points]


class _Side:
    """What one of the two rules told, by the paths of modules, which hold for a net and its mirror."""

    def __init__(self, chain: nn.Sequential, credit: Credit, taps: Taps) -> None:
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
        """(1, n) all weight gradients of a layer in a row; None where it was told nothing."""
        weights = [
            gradient.flatten()
            for path, gradient in self.gradients.items()
            if path.endswith("weight") and gradient.dim() > 1 and path.startswith(tuple(f"{m}." for m in modules))
        ]
        return torch.cat(weights)[None] if weights else None


def _layer(point: Point, mine: _Side, true: _Side, h: Tensor, e_NC: Tensor | None) -> LayerAlignment:
    cosine, angle, ratio = _compare(mine.signals.get(point.output), true.signals.get(point.output))
    before = None
    if point.preactivation:
        before, _, _ = _compare(mine.signals.get(point.preactivation), true.signals.get(point.preactivation))
    u, g = mine.update(point.modules), true.update(point.modules)
    return LayerAlignment(
        layer=point.layer,
        delta_cosine=_mean(cosine),
        delta_cosine_std=_deviation(cosine),
        preactivation_cosine=_mean(before),
        delta_angle=_mean(angle),
        update_cosine=_mean(None if u is None or g is None else cosines(u, g)),
        norm_ratio=_mean(ratio),
        activation_rms=_number(h.double().square().mean().sqrt()),
        score_correlation=_mean(None if e_NC is None else correlations(h, e_NC)),
    )


@contextmanager
def _probing(*modules: nn.Module) -> Iterator[Taps]:
    """Evaluation mode for all, and taps that fill with the outputs of the measured modules of every forward pass."""
    net, chain, _ = modules
    assert isinstance(net, Net)
    modes = [(part, part.training) for module in modules for part in module.modules()]
    taps: Taps = {}
    paths = {path for point in net.points for path in (point.preactivation, point.output) if path}
    measured = {part.get_submodule(path) for part in (net, chain) for path in paths}

    def keep(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        taps[module] = output

    handles = [module.register_forward_hook(keep) for module in measured]
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
    u, g = u_ND.flatten(1).double(), g_ND.flatten(1).double()
    norms = _norms(u), _norms(g)
    return (u * g).sum(1) / (norms[0] * norms[1])


def correlations(h_ND: Tensor, e_NC: Tensor) -> Tensor:
    """(D, C) |Pearson(h_i, s_c)| over the samples in float64; NaN where either side is constant.

    The error e = s/N correlates as the score s does (EBD, arXiv 2504.11558, appendix J; metric A9 of the literature).
    """
    h, e = (v.flatten(1).double() for v in (h_ND, e_NC))
    h, e = (torch.where((v == v[0]).all(0), torch.nan, v - v.mean(0)) for v in (h, e))
    norms_DC: Tensor = h.norm(dim=0)[:, None] * e.norm(dim=0)
    return (h.mT @ e).abs() / norms_DC


def _norms(u_ND: Tensor) -> Tensor:
    """(N,) norms; NaN where the signal, put on the scale of a per-sample score, has no direction."""
    n, d = u_ND.shape
    norms = u_ND.norm(dim=1)
    return torch.where(norms * n / d**0.5 < FLOOR, torch.nan, norms)


def _compare(u_ND: Tensor | None, g_ND: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Cosine, angle in degrees and ratio of norms ‖u‖/‖g‖ of each sample; None where nothing was told."""
    if u_ND is None or g_ND is None:
        return None, None, None
    u, g = u_ND.flatten(1).double(), g_ND.flatten(1).double()
    cosine = cosines(u, g)
    return cosine, torch.rad2deg(torch.acos(cosine.clamp(-1, 1))), u.norm(dim=1) / _norms(g)


def _number(value: Tensor) -> float | None:
    return float(value) if torch.isfinite(value) else None


def _mean(values: Tensor | None) -> float | None:
    return None if values is None else _number(values.nanmean())


def _deviation(values: Tensor | None) -> float | None:
    """Standard deviation over the samples whose value is defined, with divisor n − 1."""
    if values is None:
        return None
    defined = values[~values.isnan()]
    return float(defined.std()) if defined.numel() > 1 else None
