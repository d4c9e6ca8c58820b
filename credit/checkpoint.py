"""A run's state in one file, from which it goes on to the very numbers of an undisturbed run.

safetensors, with the plain values as JSON in its header: nothing is ever unpickled. In the file are the weights and
buffers, the rule's feedback and correlations, the optimizer's moments, the random states that no stream derives
(dropout draws from them), the losses of the interval that is not yet reported, and what the results need of the steps
before. Order of samples, augmentation and learning rate follow from seed and step. A file appears whole or not at all;
whoever reads it compares its checksum first.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from credit.durable import publish, sha256
from credit.results import Ledger
from credit.setup import Setup
from credit.tally import Tally

FORMAT = 1


class DamagedError(Exception):
    """The file is not a checkpoint that this run can go on from; the message says why."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that has been read and checked."""

    step: int
    plain: dict[str, Any]
    tensors: dict[str, Tensor]
    file: tuple[Path, str]
    """Where it is, and its SHA-256."""


def write(path: Path, setup: Setup, ledger: Ledger, tally: Tally, step: int) -> None:
    """Store the state after ``step`` steps at ``path``, whole or not at all.

    Raises:
        OSError: there is no room, or nothing may be written there.
    """
    plain = {"format": FORMAT, "step": step, "ledger": ledger.plain(), "tally": tally.plain()}
    tensors = {
        **prefixed("net.", setup.net.state_dict()),
        **prefixed("rule.", setup.rule.state_dict()),
        **prefixed("optimizer.", dict(moments(setup.optimizer))),
        **prefixed("random.", random_states(setup.device)),
        **prefixed("ledger.", ledger.tensors()),
        "tally.losses": tally.losses[: tally.steps],
    }
    draft = path.with_name(f"{path.name}.part")
    try:
        header = {"state": json.dumps(plain, allow_nan=False)}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, draft, header)
        publish(draft, path)
    except SafetensorError as error:  # it wraps what the system said
        raise OSError(str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path, digest: str) -> Saved:
    """The checkpoint at ``path``, whose SHA-256 was ``digest`` when it was written.

    Raises:
        DamagedError: it is not there, not what was written, or of another version.
    """
    try:
        if sha256(path) != digest:
            raise DamagedError("its checksum is not the one it was stored with")
        with safe_open(path, "pt") as file:
            plain = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"it cannot be read: {error}") from error
    if plain["format"] != FORMAT:
        raise DamagedError(f"it has format {plain['format']}, and this version reads {FORMAT}")
    return Saved(plain["step"], plain, tensors, (path, digest))


def restore(saved: Saved, setup: Setup, ledger: Ledger, tally: Tally) -> None:
    """Put a freshly built run where the saved one was."""
    setup.net.load_state_dict(part(saved.tensors, "net."))
    setup.rule.load_state_dict(part(saved.tensors, "rule."))
    load_moments(setup.optimizer, part(saved.tensors, "optimizer."))
    set_random_states(part(saved.tensors, "random."), setup.device)
    for epoch in range(saved.step // setup.steps_per_epoch):
        ledger.visit(setup.streams.order(epoch, len(setup.splits.train)))
    ledger.restore(saved.plain["ledger"], part(saved.tensors, "ledger."))
    tally.restore(saved.plain["tally"], saved.tensors["tally.losses"])


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def moments(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """What the optimizer keeps of each parameter, by the parameter's place and the name of the moment."""
    for place, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                yield f"{place}.{name}", value


def load_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        place, name = key.split(".")
        state.setdefault(int(place), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_states(device: torch.device) -> dict[str, Tensor]:
    own = {"cpu": torch.get_rng_state()}
    return own | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
