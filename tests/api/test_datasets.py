"""A user's own data sets: taken in every format, refused with the reason, kept once, and safe from those who use them."""

import pytest

from tests.api.conftest import Service

SMALL = {"upload_limit_bytes": 4 << 20, "upload_decoded_bytes": 64 << 20}


@pytest.fixture(scope="module")
def small(shared: Service) -> Service:
    """The service of the module, with limits that a test can reach."""
    shared.app.state.settings = shared.settings.model_copy(update=SMALL)
    return shared
