"""Golden loss curves: a change of structure must not change a number.

``python -m tests.credit.test_golden`` writes them anew; a changed curve needs a line in CHANGELOG.md that says why.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from credit import spec
from credit.events import Progress
from credit.train import run
from tests.credit.builders import METHODS, fitting

FOLDER = Path(__file__).parent / "golden"


def losses(name: str, cache: Path) -> list[float]:
    """The training loss of 50 steps, MLP, with batch norm where the method admits it, Adam."""
    parts = fitting(name, hidden=(64, 48, 64))
    parts["model"] = replace(parts["model"], batch_norm=not METHODS[name].plain)
    chosen = spec.Run(
        **parts,
        dataset=spec.FashionMNISTMini(train_samples=50 * 32, test_samples=100),
        training=spec.Training(epochs=1, batch_size=32, seed=11, threads=1, log_every=1),
        alignment=spec.Alignment(every="never"),
    )
    events = run(chosen, datasets=None, cache=cache)
    return [loss for event in events if isinstance(event, Progress) for _, _, loss, _ in event.intervals]


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_the_golden_ones(name, tmp_path):
    """To 1e-4 only, because other processors round sums in another order."""
    golden = json.loads((FOLDER / f"{name}-mlp.json").read_text())
    assert losses(name, tmp_path) == pytest.approx(golden, rel=1e-4)


if __name__ == "__main__":
    for name in METHODS:
        with tempfile.TemporaryDirectory() as cache:
            (FOLDER / f"{name}-mlp.json").write_text(json.dumps(losses(name, Path(cache)), indent=0) + "\n")
        sys.stdout.write(f"{name}\n")
