"""Move HTTP messages from one connection to another, with or without damage."""

from __future__ import annotations

import asyncio
import contextlib

from tests.storages.breakage import Answer, Corrupt, Cut, Fault, LoseAnswer, Stall

BLOCK = 64 * 1024


class Stop(Exception):
    """End this connection now."""


async def relay_answer(
    up_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None, flow: Flow
) -> None:
    """Relay the storage's answer: interim heads as they are, the final one with `Connection: close`."""
    while True:
        line, headers = parse_head((await up_reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
        if line.split(" ")[1].startswith("1"):
            writer.write(format_head(line, headers))
            continue
        break
    lose = isinstance(fault, LoseAnswer)
    if not lose or (isinstance(fault, LoseAnswer) and fault.keep_head):
        writer.write(format_head(line, [h for h in headers if h[0].lower() != "keep-alive"], close=True))
        await writer.drain()
    if lose:
        await _swallow(up_reader, {name.lower(): value for name, value in headers})
        raise Stop
    await pump(up_reader, writer, flow)


async def _swallow(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
    """Read a body to its end. XRootD 5 keeps its connection open after a COPY, whatever it was asked."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
    elif "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    else:
        await reader.read()


class Flow:
    """What becomes of the bytes in one direction."""

    def __init__(self, fault: Fault | None, gate: Gate) -> None:
        self._fault = fault
        self._gate = gate
        self._position = 0

    async def send(self, block: bytes, writer: asyncio.StreamWriter) -> None:
        """Send a block as far as the fault lets it through; Stop when the flow ends there."""
        fault, start = self._fault, self._position
        self._position += len(block)
        if isinstance(fault, Corrupt) and start <= fault.offset < self._position:
            at = fault.offset - start
            block = block[:at] + bytes([block[at] ^ 0xFF]) + block[at + 1 :]
        if not isinstance(fault, Cut | Stall) or self._position < fault.after_bytes:
            await _write(writer, block)
            return
        self._fault = None
        await _write(writer, block[: fault.after_bytes - start])
        if isinstance(fault, Cut):
            raise Stop
        await self._gate.hold()
        await _write(writer, block[fault.after_bytes - start :])


class Gate:
    """Where stalled bodies wait."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._open = asyncio.Event()

    async def hold(self) -> None:
        """Wait here until somebody opens."""
        self.reached.set()
        await self._open.wait()

    def open(self) -> None:
        """Let go who waits, and who comes later."""
        self._open.set()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow) -> None:
    """Relay until the end of `reader`."""
    while block := await reader.read(BLOCK):
        await flow.send(block, writer)


async def _write(writer: asyncio.StreamWriter, block: bytes) -> None:
    writer.write(block)
    await writer.drain()


async def answer_with(writer: asyncio.StreamWriter, answer: Answer, *, with_body: bool) -> None:
    """Send an answer of our own."""
    headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    writer.write(format_head(f"HTTP/1.1 {answer.status} {answer.reason}", headers, close=True))
    if with_body:
        writer.write(answer.body)
    await writer.drain()


async def drain_upload(reader: asyncio.StreamReader) -> None:
    """Take what the client still sends, for a moment: closing on unread data would reset its connection."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(0.5):
            while await reader.read(BLOCK):
                pass


def parse_head(head: str) -> tuple[str, list[tuple[str, str]]]:
    """(first line, [(header, value)]) of a message head."""
    line, *rest = head.rstrip("\r\n").split("\r\n")
    pairs = [row.partition(":") for row in rest]
    return line, [(name, value.strip()) for name, _, value in pairs]


def format_head(line: str, headers: list[tuple[str, str]], *, host: str | None = None, close: bool = False) -> bytes:
    """A message head; with `host` (a request) or `close` (an answer) it asks for closing."""
    drop = {"host", "connection"} if host else {"connection"} if close else set()
    rows = [line, *(f"{name}: {value}" for name, value in headers if name.lower() not in drop)]
    if host:
        rows.append(f"Host: {host}")
    if host or close:
        rows.append("Connection: close")
    return ("\r\n".join(rows) + "\r\n\r\n").encode("latin-1")
