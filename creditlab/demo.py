"""``make demo``: the whole service once, from an empty folder to a report, with real training over HTTP."""

import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from rich.console import Console

from credit import report
from creditlab import show
from creditlab.broker import free_port
from creditlab.client import ENDED, JSON, ApiError, Client, Unreachable
from creditlab.up import Stack, UpError
from lab.settings import Settings

SPEC: JSON = {
    "name": "Direct feedback alignment on Fashion-MNIST (mini)",
    "method": {"name": "dfa", "feedback": {"kind": "unified", "distribution": "gaussian", "normalize": True}},
    "model": {"name": "mlp", "hidden": [512, 512, 512], "activation": "tanh"},
    "dataset": "fashion-mnist-mini",
    "optimizer": {"name": "adam", "lr": 3e-4, "schedule": {"name": "cosine"}},
    "training": {"epochs": 12, "batch_size": 128, "seed": 0},
    "alignment": {"every": 21},
    "controls": ["bp", "shallow"],
}
PAGE = Path("report.html")
PATIENCE_SECONDS = 600.0
LOOK_SECONDS = 0.25


class DemoError(Exception):
    """Something of the demo did not go as it must."""


def main() -> int:
    """Run the demo; returns the exit status."""
    out = show.console()
    signal.signal(signal.SIGTERM, interrupt)
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="creditlab-demo-") as folder:
            demo(Path(folder), out)
    except (DemoError, UpError, ApiError, Unreachable) as error:
        sys.stderr.write(f"the demo failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; everything is stopped\n")
        return 130
    out.print(f"everything is stopped; {time.monotonic() - started:.0f} s in all")
    return 0


def demo(folder: Path, out: Console) -> None:
    """Service up, jobs in, results and report out, service down."""
    for name in ("DATABASE_URL", "BROKER_URL", "ARTIFACT_URL"):  # the demo leaves a real installation alone
        os.environ.pop(f"CREDITLAB_{name}", None)
    os.environ["CREDITLAB_DATA_DIR"] = str(folder)
    os.environ["CREDITLAB_AUTH"] = "off"  # on a loopback address, for these minutes

    def say(line: str) -> None:
        out.print(f"   {line}", markup=False, soft_wrap=True)

    out.print("[bold]1  The service[/bold]: broker, database, API and worker in a temporary folder")
    with (
        Stack(Settings.load(), host="127.0.0.1", port=free_port(), workers=1, say=say) as stack,
        Client(stack.url) as lab,
    ):
        out.print("[bold]2  The jobs[/bold]: DFA, and the same net by backprop and with frozen hidden layers")
        records = train(lab, out)
        out.print("[bold]3  The results[/bold]")
        show.print_all(out, show.results([record["results"] for record in records]))
        check(records)
        report.write(PAGE, records)
        out.print(f"[bold]4  The report[/bold]: {PAGE.absolute()}", soft_wrap=True)


def train(lab: Client, out: Console) -> list[JSON]:
    """Submit the job, show it and its twins until all have ended; the records of all."""
    own = lab.submit(SPEC)
    ids = [own["id"], *(twin["job_id"] for twin in own["twins"])]
    deadline = time.monotonic() + PATIENCE_SECONDS
    with show.Board(out) as board:
        while True:
            jobs = [lab.get(job_id) for job_id in ids]
            for job in jobs:
                board.update(job, accuracy_so_far(lab, job))
            if all(job["status"] in ENDED for job in jobs):
                break
            if time.monotonic() > deadline:
                raise DemoError(f"the jobs have not ended after {PATIENCE_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
    failed = [f"{job['spec']['method']['name']} {show.standing(job)}" for job in jobs if job["status"] != "succeeded"]
    if failed:
        raise DemoError("; ".join(failed))
    return [lab.record(job_id) for job_id in ids]


def accuracy_so_far(lab: Client, job: JSON) -> str:
    test = lab.results(job["id"])["test"]
    return f"test accuracy {show.percent(test['accuracy'])}" if test else ""


def check(records: list[JSON]) -> None:
    """What the demo is to show, shown: a proven pair, DFA far above frozen layers, signals that came to align."""
    own = records[0]["results"]
    accuracy = {record["results"]["method"]: record["results"]["test"]["accuracy"] for record in records}
    if not all(twin["paired"] for twin in own["pairing"]["twins"]):
        raise DemoError("the job and its twins did not start from the same weights and see the same order of samples")
    if accuracy["dfa"] < accuracy["shallow"] + 0.02:
        raise DemoError(f"DFA reached {accuracy['dfa']:.4f}, frozen hidden layers {accuracy['shallow']:.4f}")
    weak = [
        layer["layer"]
        for layer in own["alignment"]["layers"]
        if layer["delta_cosine"]["mean"] is None or layer["delta_cosine"]["mean"] < 0.2
    ]
    if weak:
        raise DemoError(f"the signals of {', '.join(weak)} do not align with backprop")


def interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
