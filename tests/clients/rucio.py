"""The configuration of a Rucio that exists for one test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.clients.venv import VENV

Sections = Mapping[str, Mapping[str, object]]

_QUIET: dict[str, dict[str, object]] = {
    "loggers": {"keys": "root"},
    "handlers": {"keys": ""},
    "formatters": {"keys": ""},
    "logger_root": {"level": "INFO", "handlers": ""},
}
"""Alembic does not start without a configuration of the logging."""


def write_config(home: Path, more: Sections | None = None) -> dict[str, str]:
    """Write `rucio.cfg` into `home`; the variables with which Rucio finds it.

    Nothing is cached: with memcached, which may run on this machine for others, one test would see
    another's answers.
    """
    sections: dict[str, dict[str, object]] = {
        "common": {"logdir": home, "loglevel": "INFO"},
        "cache": {"url": "127.0.0.1:1"},
        "database": {"default": f"sqlite:///{home / 'rucio.db'}", "echo": 0},
        "alembic": {"cfg": home / "alembic.ini"},
        "conveyor": {"use_deterministic_id": True, "use_preparer": True, "transfertool": "fts3"},
        "transfers": {"use_multihop": True},
        "policy": {"permission": "generic", "schema": "generic"},
        "monitor": {"enable_metrics": False},
    }
    for name, values in (more or {}).items():
        sections.setdefault(name, {}).update(values)
    (home / "rucio.cfg").write_text(_text(sections), "utf-8")
    (scripts,) = VENV.glob("lib/python3*/site-packages/rucio/db/sqla/migrate_repo")
    alembic: dict[str, dict[str, object]] = {
        "alembic": {"script_location": scripts, "sqlalchemy.url": sections["database"]["default"]},
        **_QUIET,
    }
    (home / "alembic.ini").write_text(_text(alembic), "utf-8")
    return {"RUCIO_CONFIG": str(home / "rucio.cfg"), "RUCIO_HOME": str(home)}


def _text(sections: Sections) -> str:
    blocks = [
        "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), ""])
        for name, values in sections.items()
    ]
    return "\n".join(blocks)
