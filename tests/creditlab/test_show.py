"""What is printed while one waits, where there is no terminal."""

import io

from rich.console import Console

from credit.events import Fetching
from creditlab import show
from creditlab.cli_fleet import gpu_row
from tests import factories

JOB = {"status": "running", "spec": {"method": {"name": "dfa"}}, "progress": {}}


def test_a_download_is_a_line_for_every_tenth_of_it():
    out = io.StringIO()
    with show.Board(Console(file=out, width=200)) as board:
        for received in range(0, 20_000_001, 100_000):
            board.update(JOB | {"fetching": Fetching(received=received, size=20_000_000)})
        board.update(JOB | {"progress": {"epoch": 0.5, "epochs": 2, "fraction": 0.25}})
    lines = out.getvalue().splitlines()
    assert len(lines) == 12
    assert lines[1] == "dfa: running, downloading the data set, 2.0 of 20.0 MB"
    assert lines[-1] == "dfa: running, epoch 0.5 of 2"


def test_a_download_of_unknown_size_is_told_once():
    out = io.StringIO()
    with show.Board(Console(file=out, width=200)) as board:
        for received in range(0, 20_000_001, 100_000):
            board.update(JOB | {"fetching": Fetching(received=received, size=0)})
    assert out.getvalue() == "dfa: running, downloading the data set, 0.0 MB\n"


def test_a_gpu_is_a_line_without_what_its_driver_does_not_tell():
    assert gpu_row(factories.gpu()) == "GPU 0 H100, 75 % busy, 3.0 of 80.0 GiB, 61 °C, 312 W"
    silent = dict.fromkeys(("name", "utilization", "memory_total_bytes", "temperature_celsius", "power_watts"))
    assert gpu_row(factories.gpu(index=3, **silent)) == "GPU 3"
