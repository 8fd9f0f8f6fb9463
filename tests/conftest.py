"""Shared fixtures: real storages, started once per session and only when a test asks for them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from protocols.http import HttpAdapter
from tests.grid import Grid
from tests.storages import KINDS, Storages
from tests.storages.kinds import kind_of
from tests.storages.lab import missing
from tests.storages.storage import Storage


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-real",
        action="store_true",
        default=os.environ.get("CI", "").lower() in {"1", "true", "yes"},
        help="fail, instead of skip, the tests whose storage server is not installed (also with CI=true)",
    )


class LazyStorages:
    """`Storages` that fails or skips the asking test when a kind is not installed."""

    def __init__(self, storages: Storages, *, required: bool) -> None:
        self._storages = storages
        self._required = required
        self.ca_file = storages.ca_file
        self.authority = storages.authority

    @property
    def grid(self) -> Grid:
        """The users of the storages that want certificates."""
        return self._storages.grid

    def __getitem__(self, name: str) -> Storage:
        if name not in self._storages:
            self._check(kind_of(name))
        return self._storages[name]

    def another(self, kind: str, name: str) -> Storage:
        """One more of a kind than there are by name."""
        self._check(kind)
        return self._storages.another(kind, name)

    def _check(self, kind: str) -> None:
        if reason := missing(kind):
            if self._required:
                pytest.fail(f"{kind} cannot run here: {reason}", pytrace=False)
            pytest.skip(f"{kind} cannot run here: {reason}")


@pytest.fixture(scope="session")
def storages(request: pytest.FixtureRequest) -> Iterator[LazyStorages]:
    """Real storages by name: `storages["xrootd-a"].url`; see `tests.storages`.

    Names: xrootd-a, xrootd-b, xrootd-token-a, xrootd-token-b, xrootd-x509-a, xrootd-x509-b, nginx, apache, rclone.
    """
    # Not pytest's own directories: the servers run as another user, who cannot enter those of root.
    directory = Path(tempfile.mkdtemp(prefix="te"))
    try:
        with Storages(directory) as started:
            yield LazyStorages(started, required=request.config.getoption("--require-real"))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=[name for kind in KINDS.values() for name in kind.names])
def storage(request: pytest.FixtureRequest, storages: LazyStorages) -> Storage:
    """Each real storage in turn."""
    return storages[request.param]


@pytest_asyncio.fixture
async def adapter(storages: LazyStorages) -> AsyncIterator[HttpAdapter]:
    """An HTTP adapter that trusts the storages' authority and knows nothing of them yet."""
    http = HttpAdapter(ca=storages.ca_file)
    yield http
    await http.aclose()
