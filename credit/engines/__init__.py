"""How the operations of a training step are run: one after the other, compiled block by block, or as one CUDA graph.

Compiled code and graphs hold for one shape, so they serve whole batches. The smaller last batch of an epoch, the step
whose cost is counted, probes and evaluations run eagerly, on the same weights.
"""

from pathlib import Path

import torch
from torch import nn

from credit import spec
from credit.engines.eager import Engine
from credit.events import RunError
from credit.rule import Rule


def build_engine(chosen: spec.Run, device: torch.device, net: nn.Sequential, rule: Rule, cache: Path) -> Engine:
    """The engine of a spec, for a net and a rule on their device; ``auto`` is ``eager``. ``cache`` keeps compiled code.

    Raises:
        RunError: ``graph`` without a CUDA device.
    """
    whole = chosen.training.batch_size
    match chosen.training.engine:
        case "compiled":
            from credit.engines.compiled import Compiled  # noqa: PLC0415  (the compiler takes seconds to import)

            return Compiled(rule.chain(net), whole, cache / "compiled")
        case "graph":
            from credit.engines.graph import Graph  # noqa: PLC0415  (as above, for the sake of one way)

            if device.type != "cuda":
                raise RunError("user_error", "training.engine graph needs a CUDA device, and this run is on the CPU")
            return Graph(whole)
        case _:
            return Engine()
