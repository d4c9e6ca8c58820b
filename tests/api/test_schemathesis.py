"""Schemathesis, all checks, against the running service: every answer is one that the OpenAPI document tells of.

``FUZZ_EXAMPLES`` is how many cases an operation gets beside those that cover its schema:

    FUZZ_EXAMPLES=10 .venv/bin/pytest tests/api/test_schemathesis.py -s
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from creditlab.broker import EmbeddedBroker
from lab.settings import Settings
from tests.api.conftest import Service, serving
from tests.conftest import fresh_database

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
QUICK = ("--max-examples", "3", "--phases", "examples,fuzzing,stateful")
OWN_KEY = ("--exclude-path", "/v1/keys/{key_id}")
"""With which it would revoke, or take the scopes of, the key that it goes by; without keys they are tried."""


@pytest.fixture(params=["off", "required"])
def unlimited(request: pytest.FixtureRequest, broker: EmbeddedBroker, tmp_path: Path) -> Iterator[Service]:
    """A service without and with keys, whose quotas no number of cases exhausts and where nothing is trained."""
    with fresh_database("sqlite", request, tmp_path) as url:
        settings = Settings(
            data_dir=tmp_path / "data",
            database_url=url,
            broker_url=broker.url,
            threads=1,
            auth=request.param,
            quota_requests_per_minute=10**9,
            quota_queued_jobs=10**9,
            webhook_allow="127.0.0.0/8",
        )
        settings.data_dir.mkdir()
        with serving(settings) as running:
            yield running


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_answer_is_documented(unlimited: Service) -> None:
    options: list[str] = []
    if unlimited.settings.auth == "required":
        options = ["--header", f"Authorization: Bearer {unlimited.key('fuzzed', 'admin')}", *OWN_KEY]
    amount = ("--max-examples", EXAMPLES) if EXAMPLES else QUICK
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", "--no-color", *amount]
    told = subprocess.run(
        [*command, *options, f"{unlimited.client.base_url}/openapi.json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=unlimited.settings.data_dir,  # where it keeps what it has found
    )
    sys.stdout.write(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr
