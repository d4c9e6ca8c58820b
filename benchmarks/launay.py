"""DFA with Launay's settings on CIFAR-10, beside what the authors' own code measured: epoch by epoch, layer by layer.

    python benchmarks/launay.py --datasets FOLDER [--seeds 0 1] [--threads 2] [--quick]

Accuracy and cosines depend on the draw of weights and feedback, so the two columns of the authors (their seeds 0 and
1) show how far apart two draws of the same method are.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from credit.events import Aligned, Evaluated, RunError
from credit.train import run
from lab import specs
from lab.settings import Settings

HERE = Path(__file__).parent
SPEC = HERE.parent / "examples" / "launay_fc_cifar10.json"
REFERENCE = HERE / "reference" / "launay_fc_cifar10.json"


def measure(seed: int, epochs_to_run: int, threads: int, datasets: Path | None, cache: Path) -> list[dict]:
    """Test accuracy and cosines after each epoch of our run."""
    chosen = specs.resolve(specs.parse(json.loads(SPEC.read_text())), threads=threads)
    chosen = replace(chosen, training=replace(chosen.training, seed=seed, epochs=epochs_to_run))
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
    for k in range(len(ours[0])):
        cells = []
        for _, epochs in runs:
            cosines = " ".join(f"{epochs[k]['delta_cosine'][f'hidden{j}']:.3f}" for j in (1, 2, 3))
            cells.append(f"{100 * epochs[k]['test_accuracy']:.2f} %, {cosines}")
        lines.append(f"| {k + 1} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings = Settings.load()
    parser.add_argument("--datasets", type=Path, default=settings.datasets_dir, help="folder of pre-placed data sets")
    parser.add_argument("--cache", type=Path, default=settings.cache_dir, help="folder for downloads")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two epochs of the first seed")
    chosen = parser.parse_args()
    authors = json.loads(REFERENCE.read_text())["seeds"]
    seeds, epochs = (chosen.seeds[:1], 2) if chosen.quick else (chosen.seeds, len(authors[0]))
    try:
        ours = [measure(seed, epochs, chosen.threads, chosen.datasets, chosen.cache) for seed in seeds]
    except RunError as error:
        if not chosen.quick:
            sys.exit(str(error))
        print(f"skipped: {error}")
        return
    print(table(ours, authors))


if __name__ == "__main__":
    main()
