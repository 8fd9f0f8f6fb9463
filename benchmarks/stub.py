"""The cheapest storage there can be: it answers what an engine asks, and moves no byte.

    python benchmarks/stub.py [--hold SECONDS] [--latency-ms MS] [--markers N]

Prints `{"port": P, "hosts": ["127.0.0.1", …], "pid": N}` and serves until SIGTERM, SIGINT, or until
its standard input, when that is a pipe, is closed. Engines tell endpoints apart by host, so one
port on 13 loopback addresses makes 13 endpoints and more than 12 links.

Files are known by name, `NUMBER-SIZE-ADLER32` (`file_name`): below `/src/` all of them exist, below
`/dst/` those to which a COPY succeeded; numbers are unique over all endpoints. Any other name is a
directory that exists. HEAD always brings size and digest.

    GET /.times   little-endian doubles (number, monotonic time of the COPY's first byte), since the
                  last call: `parse_times`
    GET /.usage   JSON: cpu_s of this process, n_requests, n_copies, n_held, n_connections

Cost: 15 µs of CPU per request over kept connections, 40 to 60 thousand requests per second on one core
(`benchmarks/stub_cost.py`: HEAD, HEAD, COPY, HEAD with the headers and tokens of a real client).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import signal
import socket
import stat
import sys
import time
from array import array
from dataclasses import dataclass, field
from typing import cast

import uvloop

NUMBER_MAX = 64_000_000
"""Highest file number; one bit of memory each."""

HEAD_MAX_BYTES = 64 * 1024
"""Longest request head; a connection that sends more is closed."""

BODY_MAX_BYTES = 1024 * 1024

CONNECTION_BACKLOG = 4096


def file_name(number: int, size_bytes: int = 1_000_000) -> str:
    """The name of file `number`, at the source and at the destination."""
    return f"{number}-{size_bytes}-{number * 2654435761 & 0xFFFFFFFF:08x}"


def parse_times(body: bytes) -> dict[int, float]:
    """The answer to `/.times` → {file number: monotonic seconds}; the last COPY of a number counts."""
    values = array("d")
    values.frombytes(body)
    return {int(values[at]): values[at + 1] for at in range(0, len(values), 2)}


def _answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def marker(bytes_done: int) -> bytes:
    """One performance marker as a chunk."""
    return _chunk(
        b"Perf Marker\nTimestamp: 1\nStripe Index: 0\nStripe Bytes Transferred: %d\nTotal Stripe Count: 1\nEnd\n"
        % bytes_done
    )


OK = _answer("200 OK")
CREATED = _answer("201 Created")
NOT_FOUND = _answer("404 Not Found")
BAD_REQUEST = _answer("400 Bad Request")
NOT_ALLOWED = _answer("405 Method Not Allowed")
OPTIONS = _answer("200 OK", "Allow: OPTIONS, HEAD, DELETE, MKCOL, PROPFIND, COPY", "DAV: 1")
COPY_HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
COPY_END = _chunk(b"success: Created") + b"0\r\n\r\n"
HEAD_FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\nDigest: adler32=%b\r\n\r\n"
LISTING = (
    '<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>{path}</D:href><D:propstat><D:prop>'
    "<D:resourcetype>{kind}</D:resourcetype>{length}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
    "</D:response></D:multistatus>"
)


@dataclass(slots=True, kw_only=True)
class Stub:
    """What all connections share."""

    hold_s: float = 0.0
    latency_s: float = 0.0
    n_markers: int = 1
    marker_period_s: float = 5.0
    done: bytearray = field(default_factory=bytearray)
    """Bit `number`: a COPY to this file succeeded, and it was not deleted since."""
    times: array[float] = field(default_factory=lambda: array("d"))
    n_requests: int = 0
    n_copies: int = 0
    n_held: int = 0
    n_connections: int = 0
    copied_at_once: bytes = b""
    """The whole answer to a COPY that is not held."""

    def __post_init__(self) -> None:
        self.copied_at_once = COPY_HEAD + marker(0) * self.n_markers + COPY_END

    def is_done(self, number: int) -> bool:
        """Whether the file is at its destination."""
        index = number >> 3
        return index < len(self.done) and bool(self.done[index] >> (number & 7) & 1)

    def set_done(self, number: int) -> None:
        """The file is at its destination now."""
        index = number >> 3
        if index >= len(self.done):
            self.done.extend(bytes(index + 4096 - len(self.done)))
        self.done[index] |= 1 << (number & 7)

    def clear_done(self, number: int) -> bool:
        """Delete; False when it was not there."""
        if not self.is_done(number):
            return False
        self.done[number >> 3] &= ~(1 << (number & 7))
        return True

    def take_times(self) -> bytes:
        """What `/.times` answers, forgotten afterwards."""
        taken, self.times = self.times, array("d")
        if sys.byteorder == "big":
            taken.byteswap()
        return taken.tobytes()

    def usage(self) -> bytes:
        """What `/.usage` answers."""
        figures = {
            "cpu_s": time.process_time(),
            "n_requests": self.n_requests,
            "n_copies": self.n_copies,
            "n_held": self.n_held,
            "n_connections": self.n_connections,
        }
        return json.dumps(figures).encode()


def parse_name(path: bytes) -> tuple[int, bytes, bytes] | None:
    """(number, size, adler32) from the last component; None: it names a directory."""
    parts = path[path.rfind(b"/") + 1 :].split(b"-")
    if len(parts) != 3 or not parts[0].isdigit() or not parts[1].isdigit():
        return None
    number = int(parts[0])
    return (number, parts[1], parts[2]) if number <= NUMBER_MAX else None


def body_length(lower: bytes) -> int:
    """Bytes of body after a request head in lower case; -1 when that cannot be told."""
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return -1 if b"\r\ntransfer-encoding:" in lower else 0
    text = lower[at + 17 :].split(b"\r\n", 1)[0].strip()
    return int(text) if text.isdigit() and int(text) <= BODY_MAX_BYTES else -1


class Connection(asyncio.Protocol):
    """One client. Requests are answered in order; while an answer is held back, later ones wait in the buffer."""

    __slots__ = ("_at", "_buffer", "_closed", "_held", "_last", "_loop", "_stub", "_timer", "_transport")

    _transport: asyncio.Transport

    def __init__(self, stub: Stub, loop: asyncio.AbstractEventLoop) -> None:
        self._stub = stub
        self._loop = loop
        self._buffer = b""
        self._at = 0.0
        self._last = False
        """The client wants the connection closed after the present answer."""
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._held: tuple[int, int, float] | None = None
        """(number, size, loop time of the end) of the COPY that is held."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, not the base class.
        self._transport = cast("asyncio.Transport", transport)
        self._stub.n_connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._closed = True
        self._stub.n_connections -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held is not None:
            self._stub.n_held -= 1
            self._held = None

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            self._buffer += data
        else:
            self._at = time.monotonic()
            self._buffer = data
        if self._timer is None:
            self._answer_all()
        elif len(self._buffer) > HEAD_MAX_BYTES + BODY_MAX_BYTES:
            self._transport.abort()

    def _answer_all(self) -> None:
        """Answer what is complete in the buffer, until an answer has to wait."""
        while self._buffer and self._timer is None and not self._closed:
            buffer = self._buffer
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(buffer) > HEAD_MAX_BYTES:
                    self._transport.abort()
                return
            head = buffer[:end] if len(buffer) > end + 4 else buffer
            lower = head.lower()
            length = body_length(lower)
            if length < 0:
                self._last = True
                self._send(BAD_REQUEST)
                return
            if len(buffer) < end + 4 + length:
                return
            self._last = b"\r\nconnection: close" in lower
            self._buffer = buffer[end + 4 + length :]
            self._request(head)
            if self._buffer:
                self._at = time.monotonic()

    def _request(self, head: bytes) -> None:
        stub = self._stub
        stub.n_requests += 1
        method, _, rest = head.partition(b" ")
        path = rest[: rest.find(b" ")].partition(b"?")[0]
        if method == b"COPY":
            parsed = parse_name(path)
            if parsed is None:
                self._later(BAD_REQUEST)
                return
            stub.n_copies += 1
            stub.times.append(parsed[0])
            stub.times.append(self._at)
            if stub.hold_s:
                self._hold(parsed[0], int(parsed[1]))
                return
            # With latency, the file is there a little before the client hears of it.
            stub.set_done(parsed[0])
            self._later(stub.copied_at_once)
        elif path[:2] == b"/.":
            self._send(self._figures(path))
        else:
            self._later(self._plain(method, path))

    def _plain(self, method: bytes, path: bytes) -> bytes:
        """The answer to everything but COPY."""
        parsed = parse_name(path)
        if method == b"MKCOL":
            return CREATED
        if method == b"OPTIONS":
            return OPTIONS
        there = parsed is None or not path.startswith(b"/dst/") or self._stub.is_done(parsed[0])
        if not there:
            return NOT_FOUND
        if method == b"HEAD":
            return OK if parsed is None else HEAD_FOUND % (parsed[1], parsed[2])
        if method == b"DELETE":
            if parsed is not None:
                self._stub.clear_done(parsed[0])
            return OK
        if method == b"PROPFIND":
            length = "" if parsed is None else f"<D:getcontentlength>{int(parsed[1])}</D:getcontentlength>"
            kind = "<D:collection/>" if parsed is None else ""
            text = LISTING.format(path=path.decode("ascii", "replace"), kind=kind, length=length)
            return _answer("207 Multi-Status", "Content-Type: application/xml", body=text.encode())
        return NOT_ALLOWED

    def _figures(self, path: bytes) -> bytes:
        if path == b"/.times":
            return _answer("200 OK", "Content-Type: application/octet-stream", body=self._stub.take_times())
        if path == b"/.usage":
            return _answer("200 OK", "Content-Type: application/json", body=self._stub.usage())
        return NOT_FOUND

    def _later(self, data: bytes) -> None:
        """Send after the latency that was asked for."""
        if self._stub.latency_s:
            self._timer = self._loop.call_later(self._stub.latency_s, self._overdue, data)
        else:
            self._send(data)

    def _overdue(self, data: bytes) -> None:
        self._timer = None
        self._send(data)
        self._answer_all()

    def _send(self, data: bytes) -> None:
        """The end of an answer."""
        self._transport.write(data)
        if self._last:
            self._closed = True
            self._transport.close()

    def _hold(self, number: int, size_bytes: int) -> None:
        """Begin a COPY that stays open for a while."""
        self._held = (number, size_bytes, self._loop.time() + self._stub.hold_s)
        self._stub.n_held += 1
        self._transport.write(COPY_HEAD + marker(0))
        self._timer = self._loop.call_later(min(self._stub.hold_s, self._stub.marker_period_s), self._tick)

    def _tick(self) -> None:
        """The next marker of the COPY that is held, or its end."""
        self._timer = None
        if self._held is None:
            return
        number, size_bytes, ends_at = self._held
        left_s = ends_at - self._loop.time()
        # libuv counts in milliseconds: a timer can be early by less than one.
        if left_s > 0.001:
            self._transport.write(marker(int(size_bytes * (1 - left_s / self._stub.hold_s))))
            self._timer = self._loop.call_later(min(left_s, self._stub.marker_period_s), self._tick)
            return
        self._held = None
        self._stub.n_held -= 1
        self._stub.set_done(number)
        self._send(marker(size_bytes) + COPY_END)
        self._answer_all()


def bind(n_hosts: int, port: int) -> list[socket.socket]:
    """Sockets on 127.0.0.1, 127.0.0.2, … with one port; 0 takes one that is free on all of them."""
    while True:
        sockets: list[socket.socket] = []
        chosen = port
        try:
            for number in range(1, n_hosts + 1):
                one = socket.socket()
                sockets.append(one)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind((f"127.0.0.{number}", chosen))
                chosen = one.getsockname()[1]
        except OSError:
            for one in sockets:
                one.close()
            # A port that is free on the first address can be taken on another one: draw again.
            if port or len(sockets) == 1:
                raise
        else:
            return sockets


async def serve(options: argparse.Namespace) -> None:
    """Answer until told to end."""
    loop = asyncio.get_running_loop()
    stub = Stub(
        hold_s=options.hold,
        latency_s=options.latency_ms / 1000,
        n_markers=options.markers,
        marker_period_s=options.marker_period,
    )
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    sockets = bind(options.hosts, options.port)
    servers = [
        await loop.create_server(lambda: Connection(stub, loop), sock=one, backlog=CONNECTION_BACKLOG)
        for one in sockets
    ]
    ready = {
        "port": sockets[0].getsockname()[1],
        "hosts": [one.getsockname()[0] for one in sockets],
        "pid": os.getpid(),
    }
    print(json.dumps(ready), flush=True)
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):

        def readable() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin.fileno())
                ended.set()

        loop.add_reader(sys.stdin.fileno(), readable)
    # Nothing here makes reference cycles; the collector would only look through long-lived objects.
    gc.freeze()
    await ended.wait()
    for server in servers:
        server.close()


def main() -> None:
    """Serve as the options say."""
    parser = argparse.ArgumentParser(description="A storage that answers and moves no byte.")
    parser.add_argument("--hosts", type=int, default=13, help="loopback addresses to listen on, from 127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--hold", type=float, default=0.0, help="seconds that each COPY stays open")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="before each answer")
    parser.add_argument("--markers", type=int, default=1, help="markers of a COPY that is not held")
    parser.add_argument("--marker-period", type=float, default=5.0, help="seconds, when held")
    options = parser.parse_args()
    if not 1 <= options.hosts <= 250:
        parser.error("--hosts is 1 … 250")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(serve(options))


if __name__ == "__main__":
    main()
