"""What users may rely on: the names at the top of the package. Taking one away is a decision, not an accident."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import transfer_engine

NAMES = [
    "Banned",
    "Conflict",
    "EngineError",
    "FileId",
    "FileState",
    "FileView",
    "Forbidden",
    "Invalid",
    "JobId",
    "JobOptions",
    "JobRequest",
    "JobState",
    "JobType",
    "JobView",
    "LinkStatus",
    "NotFound",
    "Running",
    "Settings",
    "StoreLocked",
    "StoreUnavailable",
    "StoredEvent",
    "Transfer",
    "TransferEngine",
    "Verify",
]


def test_the_public_names_are_these() -> None:
    assert sorted(transfer_engine.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(transfer_engine, name)
    if inspect.isclass(value):
        assert inspect.getdoc(value)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        transfer_engine.Nonsense  # noqa: B018


def test_a_star_import_gives_all_of_them() -> None:
    space: dict[str, object] = {}
    exec("from transfer_engine import *", space)
    assert set(NAMES) <= set(space)


@pytest.mark.parametrize(
    "method",
    [
        "submit",
        "cancel",
        "set_priority",
        "status",
        "job",
        "files",
        "wait",
        "events",
        "running",
        "links",
        "close",
        "ready",
    ],
)
def test_the_engine_offers(method: str) -> None:
    assert inspect.getdoc(getattr(transfer_engine.TransferEngine, method))


def test_importing_the_package_alone_loads_no_library() -> None:
    libraries = {"sqlalchemy", "aiohttp", "pydantic", "alembic"}
    script = f"import sys, transfer_engine; print(*sorted({libraries} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.split() == []
