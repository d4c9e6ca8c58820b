"""The plain engine, and what the others do otherwise."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

Told = tuple[Tensor, Tensor]
"""The loss of a batch and its hits."""
Update = Callable[[Tensor, Tensor], Told]
"""(x, y_N) -> what is told of the batch on which net and rule have been updated."""


class Engine:
    """One operation after the other."""

    name = "eager"

    def step(self, update: Update, x: Tensor, y_N: Tensor) -> Told:
        """Update on a batch: x (N, …) inputs, y (N,) labels; what it tells holds until the next step.

        Raises:
            RunError: this machine cannot run the step this way.
        """
        return update(x, y_N)

    def prepares(self, samples: int) -> bool:
        """Whether the next step, on so many samples, also prepares later ones, and takes far longer than they do."""
        del samples
        return False

    def aside(self) -> AbstractContextManager[object]:
        """The body runs eagerly."""
        return nullcontext()
