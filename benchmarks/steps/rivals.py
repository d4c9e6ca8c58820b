"""What others would write: the nets as plain PyTorch modules, trained by its autograd, and by BioTorch's layers.

The plain step is the one of every tutorial: ``zero_grad``, the loss, ``backward``, the optimizer's step.
"""

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.checkpoint import checkpoint

Step = Callable[[Tensor, Tensor], None]
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"adam": optim.Adam, "sgd": optim.SGD}


class TokenMixing(nn.Module):
    def __init__(self, tokens: int, width: int, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(tokens, units), nn.GELU(), nn.Linear(units, tokens))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mlp(self.norm(x).transpose(1, 2))
        return x + mixed.transpose(1, 2)


class ChannelMixing(nn.Module):
    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, units), nn.GELU(), nn.Linear(units, width))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mlp(self.norm(x))
        return x + mixed


class Stem(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.patches(x)
        return tokens.flatten(2).transpose(1, 2)


class Readout(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.linear(self.norm(x).mean(1))
        return z


def launay_fc() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Linear(784, 800), nn.Tanh()),
        nn.Sequential(nn.Linear(800, 800), nn.Tanh()),
        nn.Sequential(nn.Linear(800, 800), nn.Tanh()),
        nn.Linear(800, 10),
    )


def wide_mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Linear(784, 2048), nn.ReLU()),
        nn.Sequential(nn.Linear(2048, 2048), nn.ReLU()),
        nn.Sequential(nn.Linear(2048, 2048), nn.ReLU()),
        nn.Linear(2048, 10),
    )


def launay_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), nn.Tanh(), nn.MaxPool2d(3, 2)),
        nn.Sequential(nn.Conv2d(32, 64, 5, padding=2), nn.Tanh(), nn.MaxPool2d(3, 2)),
        nn.Sequential(nn.Conv2d(64, 64, 5, padding=2), nn.Tanh(), nn.MaxPool2d(3, 2)),
        nn.Sequential(nn.Flatten(), nn.Linear(576, 128), nn.Tanh()),
        nn.Linear(128, 10),
    )


def mlp_mixer() -> nn.Sequential:
    layers = [layer for _ in range(4) for layer in (TokenMixing(64, 128, 64), ChannelMixing(128, 512))]
    return nn.Sequential(Stem(3, 128, 4), *layers, Readout(128, 10))


PLAIN = {"launay_fc": launay_fc, "mlp_3x2048": wide_mlp, "launay_cnn": launay_cnn, "mlp_mixer": mlp_mixer}


def backprop(net: nn.Module, optimizer: optim.Optimizer) -> Step:
    """The training step as PyTorch's tutorials write it."""

    def step(x: Tensor, y_N: Tensor) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y_N)
        loss.backward()
        optimizer.step()

    return step


class Checkpointed(nn.Module):
    """Keeps the input of each layer but the last and runs the layer again on the way back.

    The last has just run when its gradient is due: to run it again would save nothing. No dropout, so no random state.
    """

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        *hidden, output = self.net
        for layer in hidden:
            x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
        z: Tensor = output(x)
        return z


class Unavailable(Exception):  # noqa: N818
    """A contender cannot run here; the message says why."""


def biotorch(net: nn.Module, mode: str, sample: Tensor) -> nn.Module:
    """BioTorch's form of a net (Sanfiz and Akrout, arXiv 2108.13446). Raises Unavailable."""
    try:
        from biotorch.module.biomodule import BioModule  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(f"{error}; `pip install --no-deps biotorch` is enough") from None
    warnings.filterwarnings("ignore", message="Using a non-full backward hook")
    with contextlib.redirect_stdout(io.StringIO()):  # it reports every layer that it converted
        made: nn.Module = BioModule(net, mode=mode, output_dim=10)
    try:
        biotorch_step(made, mode, optim.SGD(made.parameters(), lr=0.0))(sample, torch.zeros(len(sample)).long())
    except (RuntimeError, TypeError, AttributeError) as error:
        raise Unavailable(f"its {mode} fails on this net: {str(error).splitlines()[0]}") from None
    return made


def biotorch_step(net: nn.Module, mode: str, optimizer: optim.Optimizer) -> Step:
    """The step of BioTorch's own trainer."""
    told: dict[str, Any] = {}

    def step(x: Tensor, y_N: Tensor) -> None:
        if mode == "dfa":
            told.update(targets=y_N, loss_function=F.cross_entropy)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x, **told), y_N)
        loss.backward()
        optimizer.step()

    return step
