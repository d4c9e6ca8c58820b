"""``make demo``: from an empty folder to a report, in one command."""

import subprocess
import sys

import psutil
import pytest


@pytest.mark.slow
def test_the_demo(tmp_path):
    command = [sys.executable, "-m", "creditlab.demo"]
    told = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert told.returncode == 0, told.stdout + told.stderr
    for word in ("dfa", "bp", "shallow", "gap to bp", "angle to BP", "hidden3", "step time", "peak memory", "%"):
        assert word in told.stdout
    assert str(tmp_path / "report.html") in told.stdout
    page = (tmp_path / "report.html").read_text()
    assert "equal in all 3" in page
    assert page.count("<svg") == 2
    here = [
        process for process in psutil.process_iter(["cmdline"]) if "creditlab-demo-" in str(process.info["cmdline"])
    ]
    assert not here
