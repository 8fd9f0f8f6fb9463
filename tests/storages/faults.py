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
import random
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.storages.breakage import (
    Answer,
    Busy,
    Corrupt,
    Cut,
    Delay,
    Fault,
    Hang,
    Loop,
    LoseAnswer,
    Reset,
    Stall,
)
from tests.storages.relay import (
    Flow,
    Gate,
    Stop,
    answer_with,
    drain_upload,
    format_head,
    parse_head,
    pump,
    relay_answer,
)

__all__ = [
    "Answer",
    "Busy",
    "Corrupt",
    "Cut",
    "Delay",
    "Fault",
    "FaultProxy",
    "Hang",
    "Loop",
    "LoseAnswer",
    "Reset",
    "Rule",
    "Seen",
    "Stall",
]

HEAD_MAX = 64 * 1024


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
        self.gate = Gate()
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

    async def stalled(self) -> None:
        """Wait until a `Stall` has stopped a body."""
        await self.gate.reached.wait()

    def release(self) -> None:
        """Let stalled bodies go on, now and from now on."""
        self.gate.open()

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
        except (OSError, EOFError, ssl.SSLError, asyncio.LimitOverrunError, Stop, asyncio.CancelledError):
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
        line, headers = parse_head(head)
        method, path, _ = line.split(" ", 2)
        rule = next((rule for rule in self._rules if rule.strikes(method, path, self._rng)), None)
        fault = rule.fault if rule else None
        self.seen.append(Seen(method, path, fault, {name.lower(): value for name, value in headers}))
        await self._notify()
        if isinstance(fault, Reset):
            raise Stop
        if isinstance(fault, Hang):
            await reader.read()
            raise Stop
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, Loop):
            fault = Answer(fault.status, "Loop", (("Location", f"{self.url}{path}"),), b"")
        if isinstance(fault, Answer):
            await answer_with(writer, fault, with_body=method != "HEAD")
            await drain_upload(reader)
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
            up_writer.write(format_head(line, headers, host=f"{self._host}:{self._port}"))
            await up_writer.drain()
            sending = asyncio.create_task(pump(reader, up_writer, Flow(fault if upload else None, self.gate)))
            answering = asyncio.create_task(
                relay_answer(up_reader, writer, fault, Flow(None if upload else fault, self.gate))
            )
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
