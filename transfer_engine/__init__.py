"""A third-party-copy scheduler for scientific data lakes, embedded.

async with TransferEngine("transfers.db") as engine:
    job_id = await engine.submit([Transfer.of(source_url, destination_url)])
    job = await engine.wait(job_id)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer_engine.config import Settings
    from transfer_engine.errors import (
        Banned,
        Conflict,
        EngineError,
        Forbidden,
        Invalid,
        NotFound,
        StoreLocked,
        StoreUnavailable,
    )
    from transfer_engine.figures import LinkStatus, Running
    from transfer_engine.model import FileId, JobId, JobOptions, JobRequest, Transfer, Verify
    from transfer_engine.states import FileState, JobState, JobType
    from transfer_engine.views import FileView, JobView, StoredEvent
    from transfer_engine.wiring import TransferEngine

__all__ = [
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

_HOME = {
    "transfer_engine.config": ("Settings",),
    "transfer_engine.figures": ("LinkStatus", "Running"),
    "transfer_engine.errors": (
        "Banned",
        "Conflict",
        "EngineError",
        "Forbidden",
        "Invalid",
        "NotFound",
        "StoreLocked",
        "StoreUnavailable",
    ),
    "transfer_engine.model": (
        "FileId",
        "JobId",
        "JobOptions",
        "JobRequest",
        "Transfer",
        "Verify",
    ),
    "transfer_engine.states": ("FileState", "JobState", "JobType"),
    "transfer_engine.views": ("FileView", "JobView", "StoredEvent"),
    "transfer_engine.wiring": ("TransferEngine",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line starts without loading everything."""
    module = _MODULE_OF.get(name)
    if module is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
