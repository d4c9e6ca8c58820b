"""Runs that are trained alone and by two processes: what each of the two does, so that they make the same steps.

``python -m tests.credit.sharing MEETING FOLDER`` is the second process: it trains all of them beside the first one and
leaves the tensors of each in the folder.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from credit import checkpoint, spec
from credit.data import Images, load
from credit.data.split import split
from credit.events import Event
from credit.parallel import Group, Team
from credit.setup import furnish, prepare
from credit.train import _train, never
from tests.credit.builders import METHODS, fitting

ALL = spec.Regularizers(power=spec.Power(weight=0.01), entropy=spec.Entropy(weight=0.01, forgetting=0.9), l1=1e-4)
MAPS = spec.CNN(blocks=(spec.ConvBlock(channels=4, pool=spec.Pooling(kind="max")),), hidden=(12,), activation="tanh")
PATCHES = spec.MLPMixer(patch_size=7, width=12, depth=1, token_width=8, channel_width=16)
QUICK = 0.9
"""Forgetting of correlations that move within ten steps."""
SLOW = spec.SGD(lr=0.001, momentum=0.9)
"""For signals that are batch size times the usual."""
OPTIONS: dict[str, dict[str, Any]] = {
    "dfa, sum of the scores": {"method": spec.DFA(score_reduction="sum", regularizers=ALL), "optimizer": SLOW},
    "dfa, signs": {"method": spec.DFA(score_transform="sign", score_reduction="sum"), "optimizer": SLOW},
    "drtp, sum": {"method": spec.DRTP(score_reduction="sum"), "optimizer": SLOW},
    "dkp, quick": {"method": spec.DKP(feedback=spec.LearnedFeedback(lr=0.1), regularizers=ALL)},
    "sbd, quick": {"method": spec.SBD(forgetting=QUICK, normalize_r=True, regularizers=ALL)},
    "sbd, forward": {
        "method": spec.SBD(
            forgetting=QUICK,
            g="square",
            forward_projection=0.1,
            weight_sparsity=0.3,
            score_expansion=spec.ScoreExpansion(kind="random_feat"),
        )
    },
    "ff, global": {"method": spec.FF(locality="global", peer_weight=1.0)},
    "mono_forward, greedy": {"method": spec.MonoForward(schedule="greedy")},
    "local_loss, maps": {"method": spec.LocalLoss(), "model": MAPS},
    "local_loss, tokens": {"method": spec.LocalLoss(loss="sim"), "model": PATCHES},
    "fa, maps": {"method": spec.FA(), "model": MAPS},
    "mono_forward, tokens": {"method": spec.MonoForward(), "model": PATCHES},
    "pepita, first": {"method": spec.PEPITA(output_error="first")},
    "dropout": {"method": spec.FA(), "model": spec.MLP(hidden=(16, 12), dropout=0.3)},
    "dropout of cut blocks": {"method": spec.SBD(), "model": spec.MLP(hidden=(16, 12), dropout=0.3)},
    "augmented": {"dataset": spec.FashionMNISTMini(train_samples=230, test_samples=50, augment="flip_crop")},
    "adam": {"optimizer": spec.Adam(lr=1e-4)},
}
"""What each method's options could make depend on the share."""


def small(*, devices: int = 2, **changes: Any) -> spec.Run:
    """Ten steps, the last two of them on batches that do not divide evenly."""
    base = spec.Run(
        method=spec.DFA(),
        model=spec.MLP(hidden=(16, 12)),
        dataset=spec.FashionMNISTMini(train_samples=230, test_samples=50),
        optimizer=spec.SGD(lr=0.05, momentum=0.9),
        training=spec.Training(epochs=2, batch_size=51, seed=3, threads=1, log_every=1, devices=devices),
        alignment=spec.Alignment(samples=16, every=4),
    )
    return replace(base, **changes)


def cases() -> dict[str, spec.Run]:
    """Every method with its defaults, and what could go wrong besides."""
    plain = {name: small(**fitting(name, hidden=(16, 12))) for name in METHODS}
    return plain | {
        name: small(**(fitting(changes["method"].name, hidden=(16, 12)) if "method" in changes else {}) | changes)
        for name, changes in OPTIONS.items()
    }


def images(cache: Path) -> Images:
    """Of all runs."""
    prepare(threads=1)
    return load(small().dataset, datasets=None, cache=cache)


def trained(chosen: spec.Run, given: Images, **group: Group) -> tuple[list[Event], dict[str, Tensor]]:
    """All that a run says, and the tensors of net and rule at the end."""
    device = torch.device("cpu")
    setup = furnish(chosen, device, split(given, chosen.dataset, device), given.sha256, Path(), **group)
    events = list(_train(setup, None, None, never))
    state = checkpoint.prefixed("net.", setup.net.state_dict()) | checkpoint.prefixed("rule.", setup.rule.state_dict())
    return events, {name: tensor.clone() for name, tensor in state.items()}


def main(meeting: Path, folder: Path) -> None:
    given = images(folder)
    with Team(1, 2) as team:
        team.join(meeting, torch.device("cpu"), 60)
        for name, chosen in cases().items():
            _, state = trained(chosen, given, group=team)
            save_file(state, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
