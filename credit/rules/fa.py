"""Feedback alignment (Lillicrap, Cownden, Tweed and Akerman, arXiv 1411.0247).

δ_L = s        δ_k = (δ_{k+1} B_{k+1}) ⊙ f′_k(a_k)        B_{k+1}: n_{k+1} × n_k, fixed and random
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from credit.flow import NONE, Credit, Taps, backward
from credit.mirror import mirror
from credit.rule import Rule, Task, draw_like


class FA(Rule):
    """Backward through a mirror that shares every weight but transports by B."""

    def __init__(self, net: nn.Sequential, task: Task, *, feedback: dict[str, Any]) -> None:
        super().__init__(net, task)
        _, *later = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Linear)]
        self.paths = {path: f"B_{k}" for k, (path, _) in enumerate(later, start=2)}
        for k, (_, linear) in enumerate(later, start=2):
            self.register_buffer(f"B_{k}", draw_like(linear.weight, task.generator, feedback["init"]))
        self.mirrors: list[tuple[nn.Sequential, nn.Sequential]] = []  # kept from nn.Module: its weights are the net's

    def chain(self, net: nn.Sequential) -> nn.Sequential:
        if not self.mirrors or self.mirrors[0][0] is not net:
            feedback = {path: partial(self.get_buffer, name) for path, name in self.paths.items()}
            self.mirrors = [(net, mirror(net, feedback))]
        return self.mirrors[0][1]

    def assign(self, net: nn.Sequential, x: Tensor, y_N: Tensor, taps: Taps = NONE) -> Credit:
        return backward(self.chain(net), x, y_N, self.loss, taps)
