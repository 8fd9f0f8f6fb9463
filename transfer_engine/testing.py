"""For the tests of programs that use the engine: the real engine, on storages that follow a script, in virtual time.

    def test_my_program():
        async def scenario(engine, storages):
            storages.storage("sim://a").add("/data/1", size_bytes=5_000_000_000)
            storages.storage("sim://b")
            job_id = await engine.submit(Transfer.of("sim://a/data/1", "sim://b/data/1"))
            assert (await engine.wait(job_id)).state == "FINISHED"

        run(scenario)

Hours pass in milliseconds: the loop's clock jumps to the next timer whenever nothing is left to do.
Everything that is waited for must therefore be a timer or another task, never a thread or a socket.
The storages are `protocols.scripted.ScriptedAdapter`, whose rules make them slow, broken or dishonest.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from protocols.scripted import ScriptedAdapter
from transfer_engine.clock import Deps
from transfer_engine.config import Settings
from transfer_engine.virtual import DeadlockError, VirtualTimeLoop
from transfer_engine.wiring import TransferEngine

__all__ = [
    "EPOCH",
    "DeadlockError",
    "VirtualClock",
    "VirtualTimeLoop",
    "deps",
    "engine",
    "run",
    "run_virtual",
]

T = TypeVar("T")

EPOCH: Final = 1_700_000_000.0
"""The instant at which virtual time begins."""


class VirtualClock:
    """Instants that follow a virtual loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        """Seconds since the epoch in virtual time."""
        return EPOCH + self._loop.time()


def deps(loop: asyncio.AbstractEventLoop, seed: int) -> Deps:
    """Clock, chance and ids that are the same in every run with this seed."""
    rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
    return Deps(clock=VirtualClock(loop), rng=rng, new_id=lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)))


def engine(
    storages: ScriptedAdapter, *, seed: int = 0, settings: Settings | None = None, database: str = "sqlite://"
) -> TransferEngine:
    """A real engine on scripted storages; to be made inside a `VirtualTimeLoop`."""
    return TransferEngine(
        database,
        settings=settings or Settings(),
        adapters=[storages],
        deps=deps(asyncio.get_running_loop(), seed),
        inline=True,
    )


def run_virtual(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_as_coroutine(main))


async def _as_coroutine(main: Callable[[], Awaitable[T]]) -> T:
    return await main()


def run(
    scenario: Callable[[TransferEngine, ScriptedAdapter], Awaitable[Any]],
    *,
    seed: int = 0,
    settings: Settings | None = None,
) -> Any:
    """Run `scenario(engine, storages)` in virtual time; its result."""

    async def main() -> Any:
        storages = ScriptedAdapter(rng=random.Random(seed))  # noqa: S311 - reproducible on purpose
        async with engine(storages, seed=seed, settings=settings) as opened:
            return await scenario(opened, storages)

    return run_virtual(main)
