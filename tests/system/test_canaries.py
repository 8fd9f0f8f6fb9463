"""No secret comes out of the service: not in its log, its files, its answers, its messages or its command line."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.canaries import deeds, transfers
from tests.canaries.cage import Sighting
from tests.canaries.world import World, running_world
from tests.storages.process import free_port
from tests.system.processes import ServiceProcess
from transfer_engine.config import load
from transfer_engine.service.server import serve
from transfer_engine.wiring import TransferEngine, door_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(120)]

FILES = re.compile(
    r"(queue\.sqlite(-wal|-shm|-journal|\.lock)?|null|urandom|uv_inotify|pipe:.*|socket:.*|anon_inode:.*)$"
)


class TalkativeService(ServiceProcess):
    """As an operator runs it who looks for something."""

    def command(self) -> list[str]:
        return [*super().command(), "-v"]


def searched(world: World, log: bytes) -> list[Sighting]:
    """Where canaries are that must not be there."""
    found = world.cage.search("log", log)
    for path in world.directory.glob("queue.sqlite*"):
        if path.suffix != ".key":
            found += world.cage.search("database", path.read_bytes())
    found += world.cage.search("answers", b"\n".join(world.answers))
    return found + world.cage.search("messages", b"\n".join(world.broker.messages))


def told(found: list[Sighting]) -> str:
    """For whoever has to mend it."""
    return "\n".join(f"{seen.place}: {seen.name} ({seen.form}): {seen.around!r}" for seen in found)


def open_files(pid: int) -> list[str]:
    """Names of what a process has open, other than what it needs."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if not FILES.search(link) and "memfd:" not in link]


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def live(world: World, run: str) -> None:
    """A busy hour of the service."""
    await deeds.log_in(world)
    await deeds.submit_wrongly(world)
    await deeds.delegate(world)
    world.storage.n_echoes = 0
    files = await transfers.copy_everything(world, run)
    assert world.storage.n_echoes > 20
    assert sum("You sent" in (file["reason"] or "") for file in files) > 8, "storages have been quoted"
    assert "invalid_grant" in await transfers.renew_in_vain(world)
    await deeds.give_orders(world)
    await deeds.follow_events(world)


def break_tables(world: World) -> None:
    """What a failing disk does to a database."""
    with closing(sqlite3.connect(world.database, timeout=10)) as connection:
        for table in ("tokens", "credentials", "delegations"):
            connection.execute(f"ALTER TABLE {table} RENAME TO broken_{table}")
        connection.execute("UPDATE jobs SET options = '{broken'")
        connection.commit()


def job_of(world: World) -> str:
    """A job of bob's."""
    with closing(sqlite3.connect(world.database, timeout=10)) as connection:
        (found,) = connection.execute("SELECT job_id FROM jobs WHERE user_dn = 'bob'").fetchone()
    return str(found)


async def fail_inside(world: World) -> None:
    """Requests with secrets in a service whose tables are gone: errors with tracebacks."""
    bearer = {"Authorization": f"Bearer {world.bearer('bearer of a failure')}"}
    token = world.storage_token("token of a failure")
    file = world.file("/there/z?authz=x", "/new/z", source_tokens=[token], destination_tokens=[token])
    break_tables(world)
    assert (await world.submit([file], headers=bearer))[0] in {500, 503}
    assert (await world.ask("GET", "/delegation", by=world.alice))[0] in {500, 503}
    job_id = job_of(world)
    assert (await world.ask("GET", f"/jobs/{job_id}?authz=Bearer%20{token}", headers=bearer))[0] == 500


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


async def test_nothing_comes_out_of_the_process(directory: Path) -> None:
    async with running_world(directory) as world:
        service = TalkativeService(world.database, world.config, free_port(set()), ca=world.grid.bundle)
        world.url = service.url.replace("127.0.0.1", "localhost")
        async with service:
            await service.start()
            await live(world, "first")
            assert service._process is not None
            pid = service._process.pid
            assert open_files(pid) == []
            assert not (leaks := told(searched(world, command_line(pid)))), leaks
            await service.kill()
            assert not (leaks := told(searched(world, service.log))), leaks
            await service.start()
            await transfers.copy_everything(world, "second")
            await fail_inside(world)
            await service.terminate()
        assert b"credential refused" in service.log
        assert b"Traceback" in service.log
        assert world.broker.n_refused
        assert world.broker.messages
        assert world.storage.n_macaroons
        assert not (leaks := told(searched(world, service.log))), leaks


class Everything(logging.Handler):
    """Every record of every library, as it is: no filter, no formatter of ours."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text: list[str] = []
        self.rows: list[str] = []
        """Of the database, as SQLAlchemy tells them when it is asked to tell everything."""
        self._formatter = logging.Formatter("%(name)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        text = self.rows if record.name.startswith("sqlalchemy") and record.levelno == logging.DEBUG else self.text
        text.append(f"{self._formatter.format(record)} {vars(record)!r}")


@asynccontextmanager
async def everything_logged() -> AsyncIterator[Everything]:
    handler = Everything()
    # These have a level of their own.
    loggers = [logging.getLogger(name) for name in ("", "sqlalchemy", "sqlalchemy.pool")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    loggers[0].addHandler(handler)
    asyncio.get_running_loop().set_debug(True)
    try:
        yield handler
    finally:
        loggers[0].removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


async def test_nothing_is_logged_at_any_level_without_the_mask(directory: Path) -> None:
    async with running_world(directory) as world, everything_logged() as handler:
        settings = load(world.config, {"database": f"sqlite:///{world.database}", "service": {"port": 0}})
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with TransferEngine(settings=settings) as engine, asyncio.TaskGroup() as group:
            door = door_of(settings, engine)
            task = group.create_task(serve(engine, settings.service, door, on_ready=listening.set_result))
            world.url = (await listening).replace("127.0.0.1", "localhost")
            await live(world, "inside")
            await fail_inside(world)
            task.cancel()
        assert any("request failed" in text for text in handler.text)
        assert {text.partition(".")[0] for text in handler.text} >= {"transfer_engine", "sqlalchemy"}
        assert handler.rows
        assert not (leaks := told(world.cage.search("database", "\n".join(handler.rows)))), leaks
        assert not (leaks := told(searched(world, "\n".join(handler.text).encode()))), leaks
