"""Blocks compiled by ``torch.compile``, each by itself: a compiler of the whole step would keep alive the tensors of
blocks that are done with, and with them the memory that broadcast and local methods save.

Equal blocks share their code. Dropout draws as it does eagerly. On a CPU, a C++ compiler is needed.
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from credit.engines.eager import Engine, Told, Update
from credit.events import RunError

VARIANTS = 4
"""The most forms of one block: with and without a graph, and for as many samples again (``ff`` runs two at once)."""


class Compiled(Engine):
    """Compiles at the first whole batch; nothing is compiled afterwards.

    Args:
        chain: the modules that the rule walks.
        whole: samples of a whole batch.
        folder: where compiled code is kept for later runs.
    """

    name = "compiled"

    def __init__(self, chain: nn.Sequential, whole: int, folder: Path) -> None:
        self.whole, self.ready = whole, False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        for block in chain:
            block.compile(
                fullgraph=True,
                dynamic=False,
                recompile_limit=VARIANTS * len(chain),
                options={"fallback_random": True, "compile_threads": 1},
            )

    def step(self, update: Update, x: Tensor, y_N: Tensor) -> Told:
        if len(x) != self.whole:
            with self.aside():
                return update(x, y_N)
        try:
            told = update(x, y_N)
        except TorchDynamoException as error:
            reason = str(getattr(error, "inner_exception", error)).strip().splitlines()[0]
            raise RunError(
                "user_error",
                f"training.engine compiled: this machine cannot compile the model ({reason}); on a CPU it takes a C++ "
                "compiler such as g++. training.engine eager needs none",
            ) from error
        self.ready = True
        return told

    def prepares(self, samples: int) -> bool:
        return samples == self.whole and not self.ready

    def aside(self) -> AbstractContextManager[object]:
        eagerly: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return eagerly
