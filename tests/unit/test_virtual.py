"""The loop with virtual time keeps asyncio's promises, and jumps."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from transfer_engine.virtual import VOID_MAX, DeadlockError, VirtualTimeLoop


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def loop() -> VirtualTimeLoop:
    found = asyncio.get_running_loop()
    assert isinstance(found, VirtualTimeLoop)
    return found


def test_time_jumps_to_the_next_timer() -> None:
    async def main() -> list[float]:
        seen = []
        for pause in (3600.0, 0.0, 0.25):
            await asyncio.sleep(pause)
            seen.append(loop().time())
        await loop().after(86_400.0 * 3)
        return [*seen, loop().time()]

    assert run(main()) == [3600.0, 3600.0, 3600.25, 3600.25 + 3 * 86_400.0]


def test_what_is_due_at_one_instant_comes_in_the_order_in_which_it_was_set() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        for n in range(50):
            loop().call_at(5.0, seen.append, n)
        loop().call_at(4.0, seen.append, -1)
        await asyncio.sleep(6)
        return seen

    assert run(main()) == [-1, *range(50)]


def test_a_timer_can_be_cancelled_and_cancelled_ones_do_not_pile_up() -> None:
    async def main() -> None:
        seen: list[int] = []
        kept = loop().call_later(10, seen.append, 1)
        for n in range(20 * VOID_MAX):
            loop().call_later(1000 + n, seen.append, 2).cancel()
        assert len(loop()._timers) <= 2 * VOID_MAX + 2
        assert not kept.cancelled()
        await asyncio.sleep(11)
        assert seen == [1]
        kept.cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10_000)
        assert loop().time() == 16

    run(main())


def test_whoever_waits_can_be_cancelled() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_wait(50))
            await asyncio.sleep(1)
            waiting.cancel()
        assert waiting.cancelled()
        await loop().after(100)
        assert loop().time() == 101

    async def _wait(seconds: float) -> None:
        await loop().after(seconds)

    run(main())


def test_a_wake_up_that_never_comes_is_a_deadlock() -> None:
    with pytest.raises(DeadlockError):
        run(asyncio.Event().wait())


def test_an_exception_in_a_callback_is_told_and_the_loop_goes_on() -> None:
    async def main() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        loop().set_exception_handler(lambda _loop, context: told.append(context))
        loop().call_soon(int, "x")
        loop().call_later(1, int, "y")
        await asyncio.sleep(2)
        return told

    first, second = run(main())
    assert isinstance(first["exception"], ValueError)
    assert isinstance(second["exception"], ValueError)


def test_signals_and_threads_are_heard() -> None:
    async def main() -> None:
        heard = asyncio.Event()
        loop().add_signal_handler(signal.SIGUSR1, heard.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await heard.wait()
        loop().remove_signal_handler(signal.SIGUSR1)
        called = asyncio.Event()
        thread = threading.Thread(target=loop().call_soon_threadsafe, args=(called.set,))
        thread.start()
        thread.join()
        await called.wait()

    run(main())


def test_a_closed_loop_takes_nothing() -> None:
    closed = VirtualTimeLoop()
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.call_soon(print)
    with pytest.raises(RuntimeError, match="closed"):
        closed.call_later(1, print)
