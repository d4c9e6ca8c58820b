"""The README's curl lines, run as they stand against the real service; only the port and the job's id are put in."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from creditlab.client import Client
from tests.stack import Up, poll, up

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "http://127.0.0.1:8000"
MOVING = {"pausing", "cancelling"}
SECONDS = 90


def curl_lines() -> Iterator[list[str]]:
    """The arguments of each curl command in the README's code blocks; one may go over several lines."""
    for block in re.findall(r"^```bash\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE):
        lines = iter(block.splitlines())
        for line in lines:
            if line.startswith("curl "):
                yield words(line, lines)


def words(command: str, following: Iterator[str]) -> list[str]:
    """The words of a command, read on until its quotes are closed."""
    while True:
        try:
            return shlex.split(command, comments=True)
        except ValueError:
            command += "\n" + next(following)


def answer(command: list[str]) -> Any:
    """The JSON that the command gets."""
    told = subprocess.run([*command, "--fail-with-body"], check=False, capture_output=True, text=True, timeout=SECONDS)
    assert told.returncode == 0, (command, told.stdout, told.stderr)
    return json.loads(told.stdout)


def first_event(command: list[str]) -> Any:
    """The data of the first event of a stream, which is left then."""
    with subprocess.Popen([*command, "--fail-with-body", "--max-time", str(SECONDS)], stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        lines = (line.decode() for line in curl.stdout)
        found = next((line.removeprefix("data:") for line in lines if line.startswith("data:")), "null")
        curl.terminate()
    return json.loads(found)


def settled(service: Up, job_id: str) -> None:
    """Wait until the job is on no way to another status."""
    with Client(service.url) as lab:
        poll(lambda: lab.get(job_id)["status"] not in MOVING)


@pytest.mark.slow
def test_every_curl_line_succeeds(tmp_path: Path) -> None:
    commands = list(curl_lines())
    job_id = None
    with up(tmp_path / "data") as service:
        for command in commands:
            ready = [word.replace(ADDRESS, service.url).replace("/JOB", f"/{job_id}") for word in command]
            if "-sN" in command:
                assert first_event(ready)["job_id"] == job_id
                continue
            told = answer(ready)
            if job_id is None:
                assert told["object"] == "job"
                job_id = told["id"]
            settled(service, job_id)
    assert len(commands) >= 10
    assert job_id is not None
