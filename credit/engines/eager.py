"""The plain engine, and what the others do otherwise."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from credit.flow import Credit

Update = Callable[[Tensor, Tensor], Credit]
"""(x, y_N) -> the credit of a batch, with which net and rule have been updated."""


class Engine:
    """One operation after the other."""

    name = "eager"

    def step(self, update: Update, x: Tensor, y_N: Tensor) -> Credit:
        """Update on a batch: x (N, …) inputs, y (N,) labels; the credit holds until the next step.

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
