"""DFA with Launay's settings on CIFAR-10, beside what the authors' own code measured: epoch by epoch, layer by layer.

    python benchmarks/launay.py --datasets FOLDER [--seeds 0 1] [--threads 2]

Accuracy and cosines depend on the draw of weights and feedback, so the two columns of the authors (their seeds 0 and
1) show how far apart two draws of the same method are.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from credit.events import Aligned, Evaluated
from credit.train import run
from lab import specs

HERE = Path(__file__).parent
SPEC = HERE.parent / "examples" / "launay_fc_cifar10.json"
REFERENCE = HERE / "reference" / "launay_fc_cifar10.json"


def measure(seed: int, threads: int, datasets: Path | None, cache: Path) -> list[dict]:
    """Test accuracy and cosines after each epoch of our run."""
    chosen = specs.resolve(specs.parse(json.loads(SPEC.read_text())), threads=threads)
    chosen = replace(chosen, training=replace(chosen.training, seed=seed))
    epochs: list[dict] = []
    for event in run(chosen, datasets=datasets, cache=cache):
        if isinstance(event, Aligned) and event.step:
            epochs.append({"delta_cosine": {layer.layer: layer.delta_cosine for layer in event.layers}})
        if isinstance(event, Evaluated):
            epochs[-1]["test_accuracy"] = event.accuracy
            print(f"seed {seed}, epoch {len(epochs)}: {event.accuracy:.4f}", flush=True)
    return epochs


def table(ours: list[list[dict]], authors: list[list[dict]]) -> str:
    """Markdown, a row an epoch: accuracy and the three hidden cosines of every run."""
    runs = [
        *((f"ours {k}", run) for k, run in enumerate(ours)),
        *((f"authors {k}", run) for k, run in enumerate(authors)),
    ]
    lines = [
        "| epoch | " + " | ".join(f"{name}: accuracy, cosines" for name, _ in runs) + " |",
        "| --- " * (len(runs) + 1) + "|",
    ]
    for k in range(len(authors[0])):
        cells = []
        for _, epochs in runs:
            cosines = " ".join(f"{epochs[k]['delta_cosine'][f'hidden{j}']:.3f}" for j in (1, 2, 3))
            cells.append(f"{100 * epochs[k]['test_accuracy']:.2f} %, {cosines}")
        lines.append(f"| {k + 1} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, help="folder of pre-placed data sets; else CIFAR-10 is downloaded")
    parser.add_argument("--cache", type=Path, default=Path(".creditlab/datasets"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    authors = json.loads(REFERENCE.read_text())["seeds"]
    ours = [measure(seed, chosen.threads, chosen.datasets, chosen.cache) for seed in chosen.seeds]
    print(table(ours, authors))


if __name__ == "__main__":
    main()
