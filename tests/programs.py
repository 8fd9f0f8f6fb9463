"""Programs that tests hold this software against, by the Debian packages that bring them."""

from __future__ import annotations

from typing import Final

import pytest

from tests.storages.process import CannotRun, find_program

PACKAGES: Final = {
    "curl": "curl",
    "openssl": "openssl",
    "nginx": "nginx-extras",
    "apache2": "apache2",
    "voms-proxy-fake": "voms-clients",
}


def need(request: pytest.FixtureRequest, name: str) -> str:
    """The program's path; without it the asking test is skipped, or fails with --require-real."""
    try:
        return find_program(name, PACKAGES[name])
    except CannotRun as error:
        if request.config.getoption("--require-real"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
