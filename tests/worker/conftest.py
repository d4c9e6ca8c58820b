"""A service of one worker, shared by the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from creditlab.broker import EmbeddedBroker
from tests.conftest import fresh_database
from tests.service import Service, serving


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, broker: EmbeddedBroker
) -> Iterator[Service]:
    """A service with one worker of two slots."""
    folder = tmp_path_factory.mktemp("service")
    with fresh_database(request.param, request, folder) as url, serving(url, folder, broker) as made:
        made.start_worker()
        yield made


@pytest.fixture
def own_service(request: pytest.FixtureRequest, tmp_path: Path, broker: EmbeddedBroker) -> Iterator[Service]:
    """A service with no worker yet."""
    with fresh_database("sqlite", request, tmp_path) as url, serving(url, tmp_path, broker) as made:
        yield made
