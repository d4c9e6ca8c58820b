"""A step as one CUDA graph: recorded once, then replayed, so that the host launches one thing per step, not hundreds.

What a step reads from the host (learning rate, drawn magnitudes) is written into tensors on the device beforehand.
"""

import torch
from torch import Tensor

from credit.engines.eager import Engine, Told, Update
from credit.events import RunError

WARM = 3
"""Whole batches that are run eagerly first: the optimizer makes its state, libraries their workspaces."""


class Graph(Engine):
    """Records at the fourth whole batch.

    Args:
        whole: samples of a whole batch.
    """

    name = "graph"

    def __init__(self, whole: int) -> None:
        self.whole, self.seen = whole, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def step(self, update: Update, x: Tensor, y_N: Tensor) -> Told:
        if len(x) == self.whole:
            self.seen += 1
        if len(x) != self.whole or self.seen <= WARM:
            return update(x, y_N)
        if self.graph is None:
            self.graph = self._record(update, x, y_N)
        self.x.copy_(x)
        self.y_N.copy_(y_N)
        self.graph.replay()
        return self.told

    def prepares(self, samples: int) -> bool:
        return samples == self.whole and self.graph is None and self.seen >= WARM

    def _record(self, update: Update, x: Tensor, y_N: Tensor) -> torch.cuda.CUDAGraph:
        """What an update does on the device. Nothing is computed yet."""
        self.x, self.y_N = x.clone(), y_N.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.told = update(self.x, self.y_N)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(
                "user_error",
                f"training.engine graph: a step of this method and model cannot be recorded ({reason}); "
                "training.engine eager can train it",
            ) from error
        return graph
