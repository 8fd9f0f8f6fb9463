"""Asking a storage again: for a look that got lost, for a checksum that was left out, for a clean-up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from protocols.api import Stat
from protocols.errors import Again, TimedOut, TransferError, Unavailable

CLEANUP_PAUSE_S: Final = 0.5
"""Before the first repetition of a clean-up; doubles with each further one."""
DIGEST_PAUSES_S: Final = (1.0, 2.0)
LOOK_AGAIN_S: Final = 1.0
"""Before a first look that failed for a passing reason is repeated, once."""


async def patiently(look: Callable[[], Awaitable[Stat]]) -> Stat:
    """Look, and once more when the first look failed for a reason that may have passed already.

    A single lost request must not cost an attempt with its back-off; a storage that asks for time
    or does not answer at all is not pressed.
    """
    try:
        return await look()
    except TransferError as error:
        if error.again is not Again.SOON or error.retry_after_s is not None or isinstance(error, TimedOut):
            raise
    await asyncio.sleep(LOOK_AGAIN_S)
    return await look()


async def surely(
    look: Callable[[], Awaitable[Stat]], algorithm: str | None, offered: Callable[[], Collection[str]]
) -> Stat:
    """Look until the checksum is there that this storage has offered before.

    A storage under load, or a proxy before it, leaves a checksum out now and then. Taking the size for
    proof would then let through what the checksum is there to catch.

    Args: algorithm: what is wanted; None: nothing. offered: what the storage is known to offer.
    Raises: Unavailable: it is left out again and again.
    """
    stat = await patiently(look)
    for pause in DIGEST_PAUSES_S:
        if algorithm is None or algorithm in stat.checksums or stat.is_directory or algorithm not in offered():
            return stat
        await asyncio.sleep(pause)
        stat = await patiently(look)
    if algorithm is None or algorithm in stat.checksums:
        return stat
    raise Unavailable(f"no {algorithm.upper()} checksum, though this storage has offered it before")


async def remove(delete: Callable[[], Awaitable[object]], limit_s: float) -> bool:
    """Delete, again and again for up to `limit_s`, until the storage has done it or says that it never will.

    A storage in trouble is the usual reason for having to clean up at all: giving up at its first
    refusal would leave the remains for somebody to find.
    """
    pause = CLEANUP_PAUSE_S
    try:
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    await delete()
                except TransferError as error:
                    if error.again is Again.NEVER:
                        return False
                    await asyncio.sleep(max(pause, min(error.retry_after_s or 0.0, limit_s)))
                    pause *= 2
                else:
                    return True
    except TimeoutError:
        return False
