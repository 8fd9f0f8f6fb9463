"""A proxy in front of any HTTP storage that breaks things on purpose.

    async with FaultProxy(storages["xrootd-a"].url) as proxy:
        proxy.add(Cut(after_bytes=1000), methods={"GET"}, times=1)
        ... f"{proxy.url}/file.bin" ...

One request per connection: the proxy asks both sides to close, and relays bytes without reading
bodies, so that chunked answers, markers and `100 Continue` pass as they are. When the client goes
away, its connection to the storage is closed too; that is how a cancelled COPY reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

HEAD_MAX = 64 * 1024
BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Cut:
    """Close both connections after so many bytes of the body (of a PUT's upload, else of the answer)."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Stop relaying the body after so many bytes and keep the connection."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Flip every bit of the body's byte at `offset`."""

    offset: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Do not ask the storage, answer this; `Busy` is the usual one."""

    status: int
    reason: str = "Injected"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"injected fault\n"


def Busy(retry_after_s: int | None = None, status: int = 503) -> Answer:  # noqa: N802 - reads like the other faults
    """An overloaded storage, with `Retry-After` when given."""
    after = () if retry_after_s is None else (("Retry-After", str(retry_after_s)),)
    return Answer(status, "Busy", after)


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait before anything is relayed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Take the request and never answer, without asking the storage."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Redirect to the very same URL."""

    status: int = 307


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Let the storage do everything, then close without a word of its answer.

    `keep_head` relays status line and headers first.
    """

    keep_head: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the connection instead of answering, without asking the storage."""


Fault = Cut | Stall | Corrupt | Answer | Delay | Hang | Loop | LoseAnswer | Reset


@dataclass(slots=True)
class Rule:
    """When a fault strikes."""

    fault: Fault
    methods: frozenset[str] | None = None
    path: str = ""
    """Only requests whose path begins like this."""
    left: int | None = None
    """How often yet; None: without end."""
    chance: float = 1.0

    def strikes(self, method: str, path: str, rng: random.Random) -> bool:
        """Decide for one request, and count."""
        if self.left == 0 or not path.startswith(self.path):
            return False
        if self.methods is not None and method not in self.methods:
            return False
        if self.chance < 1.0 and rng.random() >= self.chance:
            return False
        if self.left is not None:
            self.left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came, and what was done to it."""

    method: str
    path: str
    fault: Fault | None
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""


class _Stop(Exception):
    """End this connection now."""


class FaultProxy:
    """Relays to the plain-http storage at `upstream`, doing what the rules say.

    `seed` decides rules with a chance; `tls` makes the proxy itself speak https.
    """

    def __init__(self, upstream: str, *, seed: int = 0, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "localhost", parts.port or 80
        self._rng = random.Random(seed)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._rules: list[Rule] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._change = asyncio.Condition()
        self.seen: list[Seen] = []

    @property
    def url(self) -> str:
        """Its base URL; paths are those of the storage."""
        assert self._server is not None
        scheme = "https" if self._tls else "http"
        return f"{scheme}://localhost:{self._server.sockets[0].getsockname()[1]}"

    def add(
        self,
        fault: Fault,
        *,
        methods: Collection[str] | None = None,
        path: str = "",
        times: int | None = None,
        chance: float = 1.0,
    ) -> Rule:
        """Add a rule; the first that strikes wins."""
        rule = Rule(fault, frozenset(methods) if methods else None, path, times, chance)
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget all rules: relay only."""
        self._rules.clear()

    def count(self, method: str) -> int:
        """How many requests of a method came."""
        return sum(seen.method == method for seen in self.seen)

    async def arrived(self, method: str, n_times: int = 1) -> None:
        """Wait until so many requests of a method have come."""
        async with self._change:
            await self._change.wait_for(lambda: self.count(method) >= n_times)

    async def idle(self) -> None:
        """Wait until no connection is left."""
        async with self._change:
            await self._change.wait_for(lambda: not self._connections)

    async def __aenter__(self) -> Self:
        # Clients of `localhost` try ::1 or 127.0.0.1 first; nobody listens at the other, they fall back.
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_MAX, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._request(reader, writer)
        except (OSError, EOFError, ssl.SSLError, asyncio.LimitOverrunError, _Stop, asyncio.CancelledError):
            # A cancelled handler would be reported by asyncio's stream server; the proxy is closing.
            pass
        finally:
            writer.close()
            self._connections.discard(task)
            await self._notify()

    async def _notify(self) -> None:
        async with self._change:
            self._change.notify_all()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, headers = _parse(head)
        method, path, _ = line.split(" ", 2)
        rule = next((rule for rule in self._rules if rule.strikes(method, path, self._rng)), None)
        fault = rule.fault if rule else None
        self.seen.append(Seen(method, path, fault, {name.lower(): value for name, value in headers}))
        await self._notify()
        if isinstance(fault, Reset):
            raise _Stop
        if isinstance(fault, Hang):
            await reader.read()
            raise _Stop
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, Loop):
            fault = Answer(fault.status, "Loop", (("Location", f"{self.url}{path}"),), b"")
        if isinstance(fault, Answer):
            await _answer(writer, fault, with_body=method != "HEAD")
            await _drain_upload(reader)
            return
        await self._relay(reader, writer, (line, headers), fault)

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: tuple[str, list[tuple[str, str]]],
        fault: Fault | None,
    ) -> None:
        line, headers = request
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port, limit=HEAD_MAX)
        upload = line.startswith("PUT ")
        try:
            up_writer.write(_head(line, headers, host=f"{self._host}:{self._port}"))
            await up_writer.drain()
            sending = asyncio.create_task(_pump(reader, up_writer, _mangler(fault if upload else None)))
            answering = asyncio.create_task(_answer_from(up_reader, writer, None if upload else fault, fault))
            try:
                # The client's end of file means that it went away: it keeps its side open otherwise.
                done, _ = await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                sending.cancel()
                answering.cancel()
                await asyncio.gather(sending, answering, return_exceptions=True)
        finally:
            up_writer.close()


async def _answer_from(
    up_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_body: Fault | None, fault: Fault | None
) -> None:
    """Relay the storage's answer: interim heads as they are, the final one with `Connection: close`."""
    while True:
        line, headers = _parse((await up_reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
        if line.split(" ")[1].startswith("1"):
            writer.write(_head(line, headers))
            continue
        break
    lose = isinstance(fault, LoseAnswer)
    if not lose or (isinstance(fault, LoseAnswer) and fault.keep_head):
        writer.write(_head(line, [h for h in headers if h[0].lower() != "keep-alive"], close=True))
        await writer.drain()
    if lose:
        await _swallow(up_reader, {name.lower(): value for name, value in headers})
        raise _Stop
    await _pump(up_reader, writer, _mangler(on_body))


async def _swallow(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
    """Read a body to its end. XRootD 5 keeps its connection open after a COPY, whatever it was asked."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
    elif "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    else:
        await reader.read()


Mangler = Callable[[bytes], tuple[bytes, Fault | None]]


def _mangler(fault: Fault | None) -> Mangler:
    """A function block → (what to send of it, the fault that ends the flow after it)."""
    position = 0

    def mangle(block: bytes) -> tuple[bytes, Fault | None]:
        nonlocal position
        start, position = position, position + len(block)
        if isinstance(fault, Corrupt) and start <= fault.offset < position:
            at = fault.offset - start
            return block[:at] + bytes([block[at] ^ 0xFF]) + block[at + 1 :], None
        if isinstance(fault, Cut | Stall) and position >= fault.after_bytes:
            return block[: fault.after_bytes - start], fault
        return block, None

    return mangle


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mangle: Mangler) -> None:
    while block := await reader.read(BLOCK):
        out, end = mangle(block)
        writer.write(out)
        await writer.drain()
        if isinstance(end, Cut):
            raise _Stop
        if isinstance(end, Stall):
            await asyncio.Event().wait()


async def _answer(writer: asyncio.StreamWriter, answer: Answer, *, with_body: bool) -> None:
    headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    writer.write(_head(f"HTTP/1.1 {answer.status} {answer.reason}", headers, close=True))
    if with_body:
        writer.write(answer.body)
    await writer.drain()


async def _drain_upload(reader: asyncio.StreamReader) -> None:
    """Take what the client still sends, for a moment: closing on unread data would reset its connection."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(0.5):
            while await reader.read(BLOCK):
                pass


def _parse(head: str) -> tuple[str, list[tuple[str, str]]]:
    line, *rest = head.rstrip("\r\n").split("\r\n")
    pairs = [row.partition(":") for row in rest]
    return line, [(name, value.strip()) for name, _, value in pairs]


def _head(line: str, headers: list[tuple[str, str]], *, host: str | None = None, close: bool = False) -> bytes:
    """A message head; with `host` (a request) or `close` (an answer) it asks for closing."""
    drop = {"host", "connection"} if host else {"connection"} if close else set()
    rows = [line, *(f"{name}: {value}" for name, value in headers if name.lower() not in drop)]
    if host:
        rows.append(f"Host: {host}")
    if host or close:
        rows.append("Connection: close")
    return ("\r\n".join(rows) + "\r\n\r\n").encode("latin-1")
