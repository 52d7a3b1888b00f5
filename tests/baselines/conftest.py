"""Every test of rivals runs on one thread."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def quiet(one_thread):
    """The shared fixture, for all modules here."""
