"""The built site, shared with the tests that open it in a browser."""

from __future__ import annotations

import pytest

from tests.website.building import Site, built


@pytest.fixture(scope="session")
def site() -> Site:
    return built()
