"""Blocks on their way: held to a rate, and broken when a fault says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from transfer_engine.demo.content import BLOCK_BYTES, Content
from transfer_engine.demo.faults import Fault, Faults

PACED_BLOCK_BYTES: Final = 16 * 1024
"""Blocks of a stream with a rate: small ones, so that progress is seen."""


class BrokenOnPurpose(Exception):
    """A fault ends the stream here."""


class Pace:
    """A rate that all streams of one storage share.

    Args:
        bytes_s: bytes per second; None: as fast as it goes.
    """

    def __init__(self, bytes_s: float | None) -> None:
        self._bytes_s = bytes_s
        self._free_at = 0.0

    @property
    def block_bytes(self) -> int:
        """How large blocks should be to keep the rate smooth."""
        return BLOCK_BYTES if self._bytes_s is None else PACED_BLOCK_BYTES

    async def take(self, n_bytes: int) -> None:
        """Wait until `n_bytes` more fit the rate."""
        if self._bytes_s is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + n_bytes / self._bytes_s
        await asyncio.sleep(self._free_at - now)


async def read_blocks(content: Content, start: int, stop: int, pace: Pace) -> AsyncIterator[bytes]:
    """The bytes of `content` from `start` up to `stop`; fewer when the file shrinks meanwhile."""
    offset = start
    while offset < stop:
        block = content.read(offset, min(pace.block_bytes, stop - offset))
        if not block:
            return
        await pace.take(len(block))
        yield block
        offset += len(block)


def short_length(size_bytes: int) -> int:
    """How much of a file `Fault.SHORT` leaves: nine tenths, and at least one byte less than all."""
    return max(0, size_bytes - max(1, size_bytes // 10))


def _turning_point(fault: Fault, size_bytes: int, faults: Faults) -> int:
    """Offset at which the fault shows."""
    if fault is Fault.SHORT:
        return short_length(size_bytes)
    if fault is Fault.CORRUPT:
        return min(int(size_bytes * faults.fraction), max(0, size_bytes - 1))
    return int(size_bytes * faults.fraction)


async def distort(
    blocks: AsyncIterator[bytes], *, fault: Fault | None, faults: Faults, size_bytes: int, cut: Callable[[], None]
) -> AsyncIterator[bytes]:
    """`blocks` as the fault lets them through.

    Args:
        size_bytes: length of the whole stream.
        cut: called when the control connection is to be closed while the stream goes on.

    Raises: BrokenOnPurpose.
    """
    if fault is None or fault in {Fault.UNAVAILABLE, Fault.REFUSE, Fault.NO_DIGEST, Fault.CUT_DONE}:
        async for block in blocks:
            yield block
        return
    if fault is Fault.SLOW:
        slow = Pace(faults.slow_bytes_s)
        async for block in blocks:
            for at in range(0, len(block), PACED_BLOCK_BYTES):
                part = block[at : at + PACED_BLOCK_BYTES]
                await slow.take(len(part))
                yield part
        return
    turn = _turning_point(fault, size_bytes, faults)
    offset = 0
    turned = False
    async for block in blocks:
        if turned or offset + len(block) <= turn:
            offset += len(block)
            yield block
            continue
        turned = True
        if block[: turn - offset]:
            yield block[: turn - offset]
        rest = await _turn(fault, block[turn - offset :], faults, cut)
        offset += len(block)
        if rest is None:
            return
        yield rest
    if not turned and fault is not Fault.SHORT:
        await _turn(fault, b"", faults, cut)


async def _turn(fault: Fault, rest: bytes, faults: Faults, cut: Callable[[], None]) -> bytes | None:
    """What becomes of the rest of a block at the turning point; None: the stream ends well, but short."""
    match fault:
        case Fault.CORRUPT:
            return bytes((rest[0] ^ 0xFF,)) + rest[1:] if rest else b""
        case Fault.SHORT:
            return None
        case Fault.STALL | Fault.SILENT:
            await asyncio.Event().wait()
        case Fault.CUT_ZOMBIE:
            cut()
            await asyncio.sleep(faults.zombie_s)
        case _:
            raise BrokenOnPurpose(fault.value)
    return rest
