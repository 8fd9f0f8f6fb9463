"""Storages that lie, hang, reset and talk nonsense, through the whole engine: never FINISHED wrongly, never stuck."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.storages.faults import Answer, Busy, Corrupt, Cut, FaultProxy, Hang, Loop, LoseAnswer, Reset, Stall
from tests.storages.relay import Stop
from tests.tpc_server import TpcServer
from transfer_engine import FileState, FileView, JobOptions, Settings, Transfer, TransferEngine
from transfer_engine.config import RetrySettings, TlsSettings, TransferSettings

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.timeout(40)]

DATA = bytes(range(256)) * 400
SETTINGS = Settings(
    retry=RetrySettings(retries_max=2, delay_s=0.01, few_max=2, uncharged_max=0),
    transfer=TransferSettings(
        modes=("pull",),
        connect_s=1,
        request_s=0.6,
        digest_s=0.6,
        first_response_s=0.6,
        silence_s=0.6,
        stall_s=0.6,
        quarantine_s=0.3,
        probe_max_s=3,
        cleanup_s=1,
        require_checksum=True,
    ),
    tls=TlsSettings(discover=False),
)


@dataclass
class Pair:
    """An engine between two honest storages that something stands in front of."""

    engine: TransferEngine
    source: FaultProxy
    destination: FaultProxy
    origin: TpcServer
    target: TpcServer
    database: Path
    reasons: list[str] = field(default_factory=list)
    """Of the failed attempts of the last transfer."""

    async def move(self, name: str = "/f", **options: Any) -> FileView:
        """One transfer, until it has ended."""
        self.origin.files[name] = DATA
        job_id = await self.engine.submit(
            Transfer.of(f"{self.source.url}{name}", f"{self.destination.url}{name}"), options=JobOptions(**options)
        )
        await self.engine.wait(job_id, timeout_s=25)
        (file,) = await self.engine.files(job_id)
        self.reasons = [attempt.reason for attempt in await self.engine.reader.attempts(job_id, file.file_id)]
        self.check(file, name)
        return file

    def check(self, file: FileView, name: str) -> None:
        """FINISHED exactly when the right bytes are there; the store says the same."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            (stored,) = db.execute("SELECT state FROM transfers WHERE id = ?", (file.file_id,)).fetchone()
        assert stored == file.state
        assert (self.target.files.get(name) == DATA) == (file.state is FileState.FINISHED)
        assert not self.engine.running()


@pytest.fixture
def pair(tmp_path: Path) -> Callable[[], Any]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Pair]:
        database = tmp_path / "queue.sqlite"
        async with (
            TpcServer().running() as origin,
            TpcServer().running() as target,
            FaultProxy(origin.url) as source,
            FaultProxy(target.url) as destination,
            TransferEngine(str(database), settings=SETTINGS) as engine,
        ):
            yield Pair(engine, source, destination, origin, target, database)

    return opened


MARKER = b"Perf Marker\n Stripe Index: 0\n Stripe Bytes Transferred: %d\nEnd\n"


DONE = b"success: Created"
LONG_LINE = b"x" * 1_000_000 + b"\n"
ESCAPES = MARKER % 5 + b"failure: \x1b[31mdisk on fire\r\n"
ABSURD = MARKER % 10**30
NOISE = b"\x00\xff" * 5000


def copy_answer(body: bytes, status: int = 202) -> Answer:
    return Answer(status, "Accepted", (("Content-Type", "text/perf-marker-stream"),), body)


# ---- what passes: the transfer is repeated and FINISHED

PASSING = [
    pytest.param("destination", Busy(0), {"COPY"}, "DESTINATION [16]", id="503 at the copy"),
    pytest.param("destination", Busy(0), {"HEAD", "PROPFIND"}, "DESTINATION [16]", id="503 at a look"),
    pytest.param("source", Busy(0, 429), {"HEAD", "PROPFIND"}, "SOURCE [16]", id="429 at the source"),
    pytest.param("source", Busy(0), {"GET"}, "SOURCE [16]", id="503 at the source's data"),
    pytest.param("source", Hang(), {"HEAD", "PROPFIND"}, "SOURCE [110]", id="hangs at a look"),
    pytest.param("destination", Hang(), {"COPY"}, "TRANSFER [110]", id="hangs at the copy"),
    pytest.param("destination", Reset(), {"COPY"}, "TRANSFER [103]", id="reset at the copy"),
    pytest.param("source", Loop(), {"HEAD", "PROPFIND"}, "SOURCE [71]", id="redirects in a loop"),
    pytest.param("destination", Loop(), {"COPY"}, "TRANSFER [71]", id="redirects a copy in a loop"),
    pytest.param("source", Corrupt(1000), {"GET"}, "DESTINATION [5]", id="corrupts on the way"),
    pytest.param("destination", copy_answer(DONE), {"COPY"}, "DESTINATION [5]", id="success without a file"),
    pytest.param("destination", copy_answer(LONG_LINE + DONE), {"COPY"}, "TRANSFER [71]", id="a line of 1 MB"),
    pytest.param("destination", copy_answer(ESCAPES), {"COPY"}, "TRANSFER [5]", id="failure with escapes"),
    pytest.param("destination", copy_answer(ABSURD), {"COPY"}, "TRANSFER [103]", id="ends without a word"),
    pytest.param("destination", copy_answer(NOISE), {"COPY"}, "TRANSFER [71]", id="noise"),
]


@pytest.mark.parametrize(("side", "fault", "methods", "reason"), PASSING)
async def test_what_passes_is_repeated(pair, side: str, fault: Any, methods: set[str], reason: str):
    async with pair() as it:
        getattr(it, side).add(fault, methods=methods, times=1)
        file = await it.move()
        assert file.state is FileState.FINISHED
        assert file.evidence == "size+checksum"
        assert len(it.reasons) == 1, it.reasons
        assert it.reasons[0].startswith(reason), it.reasons
        assert it.reasons[0].isprintable()


@pytest.mark.parametrize("fault", [LoseAnswer(), LoseAnswer(keep_head=True), Cut(after_bytes=20)], ids=repr)
async def test_a_copy_that_was_done_is_not_repeated(pair, fault: Any):
    """The answer is lost, the file is complete: it is taken over."""
    async with pair() as it:
        it.destination.add(fault, methods={"COPY"}, times=1)
        file = await it.move()
        assert file.state is FileState.FINISHED
        assert it.destination.count("COPY") == 1


# ---- what stays: FAILED, with the reason, and nothing left at the destination

STAYING = [
    pytest.param("source", Reset(), {"HEAD", "PROPFIND"}, "UNAVAILABLE", 3, id="resets for ever"),
    pytest.param("destination", Busy(0), {"COPY"}, "OVERLOADED", 3, id="503 for ever"),
    pytest.param("source", Hang(), {"HEAD", "PROPFIND"}, "TIMED_OUT", 3, id="hangs for ever"),
    pytest.param("source", Loop(), {"HEAD", "PROPFIND"}, "BAD_SERVER", 3, id="loops for ever"),
    pytest.param("source", Corrupt(1000), {"GET"}, "CHECKSUM_MISMATCH", 3, id="corrupts for ever"),
    pytest.param("source", Answer(403, "Forbidden"), {"HEAD", "PROPFIND"}, "DENIED", 1, id="forbidden"),
    pytest.param("source", Answer(404, "Not Found"), {"HEAD", "PROPFIND"}, "MISSING", 1, id="missing"),
    pytest.param("destination", Answer(403, "Forbidden"), {"COPY"}, "DENIED", 1, id="copy forbidden"),
    pytest.param("destination", copy_answer(DONE), {"COPY"}, "COPY_FAILED", 3, id="lies for ever"),
    pytest.param("destination", copy_answer(LONG_LINE), {"COPY"}, None, 3, id="lines of 1 MB for ever"),
]


@pytest.mark.parametrize(("side", "fault", "methods", "code", "n_attempts"), STAYING)
async def test_what_stays_fails(pair, side: str, fault: Any, methods: set[str], code: str | None, n_attempts: int):
    async with pair() as it:
        getattr(it, side).add(fault, methods=methods)
        file = await it.move()
        assert file.state is FileState.FAILED
        assert len(it.reasons) == n_attempts
        assert file.failure is not None
        assert code is None or file.failure["code"] == code
        assert file.reason
        assert file.failure["hint"]
        assert it.target.files == {}


async def test_a_full_storage_is_left_alone_for_long(pair):
    """507 is repeated only after somebody has had time to act."""
    async with pair() as it:
        it.destination.add(Answer(507, "Insufficient Storage"), methods={"COPY"})
        it.origin.files["/f"] = DATA
        job_id = await it.engine.submit(Transfer.of(f"{it.source.url}/f", f"{it.destination.url}/f"))
        async with asyncio.timeout(10):
            async for event in it.engine.events(after=0, job_id=job_id):
                if event.kind == "transfer" and event.state == "SUBMITTED" and event.reason:
                    break
        (file,) = await it.engine.files(job_id)
        assert file.failure is not None
        assert file.failure["code"] == "NO_SPACE"
        assert it.destination.count("COPY") == 1
        await it.engine.cancel(job_id)
        await it.engine.wait(job_id, timeout_s=5)


async def test_what_the_storage_asks_to_wait_is_waited(pair):
    async with pair() as it:
        it.destination.add(Busy(1), methods={"COPY"}, times=1)
        began = asyncio.get_running_loop().time()
        file = await it.move()
        assert file.state is FileState.FINISHED
        assert asyncio.get_running_loop().time() - began >= 1


async def test_somebody_elses_file_is_left_alone(pair):
    async with pair() as it:
        it.target.files["/f"] = b"somebody else's"
        it.origin.files["/f"] = DATA
        job_id = await it.engine.submit(Transfer.of(f"{it.source.url}/f", f"{it.destination.url}/f"))
        await it.engine.wait(job_id, timeout_s=10)
        (file,) = await it.engine.files(job_id)
        assert file.failure is not None
        assert file.failure["code"] == "ALREADY_EXISTS"
        assert it.target.files["/f"] == b"somebody else's"
        assert it.destination.count("DELETE") == 0


async def test_an_upload_that_stalls_ends(pair):
    """The passive party stops in the middle: markers come, bytes do not."""
    async with pair() as it:
        it.source.add(Stall(after_bytes=2000), methods={"GET"}, times=1)
        file = await it.move()
        assert file.state is FileState.FINISHED
        assert it.reasons
        it.source.release()


# ---- a server that is worse than any proxy

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Status and headers byte by byte, without end (slowloris)."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-A: ")
    while not reader.at_eof():
        writer.write(b"a")
        await writer.drain()
        with_pause = asyncio.Event()
        try:
            async with asyncio.timeout(0.05):
                await with_pause.wait()
        except TimeoutError:
            continue


async def endless_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Header: " + b"a" * 60_000 + b"\r\n")
        await writer.drain()


async def no_http(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n" * 10)
    await writer.drain()


async def negative_length(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")
    await writer.drain()


async def absurd_length(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n")
    await writer.drain()


@asynccontextmanager
async def server_that(talk: Talk) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        except (OSError, EOFError, Stop, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))


@pytest.mark.parametrize("talk", [slow_head, endless_head, no_http, negative_length, absurd_length])
@pytest.mark.parametrize("side", ["source", "destination"])
async def test_nonsense_fails_in_bounded_time(pair, talk: Talk, side: str):
    async with pair() as it, server_that(talk) as url:
        it.origin.files["/f"] = DATA
        source = url if side == "source" else it.source.url
        destination = url if side == "destination" else it.destination.url
        job_id = await it.engine.submit(Transfer.of(f"{source}/f", f"{destination}/f"))
        await it.engine.wait(job_id, timeout_s=20)
        (file,) = await it.engine.files(job_id)
        assert file.state is FileState.FAILED
        assert file.failure is not None
        assert file.failure["code"] != "ENGINE_BUG"
        assert it.target.files == {}
