"""Bring a database's schema to this version."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from transfer_engine.errors import StoreUnavailable

HERE: Final = Path(__file__).parent / "migrations"


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Run the steps that are missing, in the connection's transaction.

    Raises: StoreUnavailable: the database is of a newer version than this program.
    """
    config = _config(connection)
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current == script.get_current_head():
        return
    try:
        if current is not None:
            script.get_revision(current)
        command.upgrade(config, "head")
    except CommandError as error:
        msg = f"the database has schema {current!r}, which this version does not know: upgrade transfer-engine"
        raise StoreUnavailable(msg) from error
