"""Fixtures for the tests that use the clients: imported by name, so that nothing starts unasked."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clients.secure import SecureSite, running_secure_site
from tests.clients.site import Site, running_site
from tests.clients.venv import missing


@pytest.fixture(scope="session")
def clients(request: pytest.FixtureRequest) -> None:
    """The venv with the clients; the asking test is skipped, or fails with --require-real, when it is not there."""
    if reason := missing():
        if request.config.getoption("--require-real"):
            pytest.fail(f"the clients cannot run here: {reason}", pytrace=False)
        pytest.skip(f"the clients cannot run here: {reason}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(clients: None) -> AsyncIterator[Site]:
    """One service over http for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="te") as directory:
        async with running_site(Path(directory)) as running:
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure_site(clients: None) -> AsyncIterator[SecureSite]:
    """One service over https for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="te") as directory:
        async with running_secure_site(Path(directory)) as running:
            yield running
