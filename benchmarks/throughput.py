"""How many transfers a second the whole path carries, and what each costs.

    python benchmarks/throughput.py [--transfers 20000] [--queued 1000,100000,1000000] [--json FILE]

The path is the product's own: jobs are submitted through REST to `transfer-engine serve` on a SQLite
file, decided, claimed, copied by COPY with markers, verified by HEAD with digest, and FINISHED when
that is committed (`synchronous=FULL`). Three processes: the service, a storage stub that answers at
about 15 µs a request and moves no bytes (`benchmarks/stub.py`), and this one, which submits and looks.

For each queue length the service is filled with that many transfers while nothing may start, then
restarted with its limits open: the first `--warm` transfers are not counted, the next
`--transfers` are. With 1,000 queued the queue is kept at about that length by submitting as it drains.
CPU is what the kernel charged each process (user and system), so that it can be read on a noisy
machine. The optimizer is on and begins at the limits: from two copies on its search takes half a minute with
files of some milliseconds, and what is measured here is the engine at work (`optimizer.py` measures the
search). The latency run submits jobs of one file at a low rate into an idle service: `submit → COPY`
is from before the POST until the COPY's first byte reaches the storage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.stub import file_name, parse_times

FILES_PER_JOB = 200
LINKS = 12
TICKS_S = os.sysconf("SC_CLK_TCK")

OPEN = """
[limits]
node = 400
link = 60
endpoint_inbound = 400
endpoint_outbound = 400
[optimizer]
initial = 400
[tls]
discover = false
"""
CLOSED = OPEN.replace("node = 400", "node = 0")


@dataclass
class Figure:
    """One line of the result."""

    queued: int
    transfers_s: float
    engine_ms: float
    """Engine CPU per transfer."""
    stub_ms: float
    client_ms: float
    filled_mib: float
    """Memory of the process that took the queue in, when all of it was queued."""
    rss_mib: float
    """Memory of the process that worked on it, at the end."""
    peak_mib: float
    start_s: float
    """From the start of the process with that queue until it serves."""


def cpu_s(pid: int) -> float:
    """User and system CPU of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def memory_mib(pid: int, name: str) -> float:
    """`VmRSS` or `VmHWM` of a process."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextlib.contextmanager
def stub() -> Iterator[tuple[int, int, list[str]]]:
    """(pid, port, hosts) of a running storage stub."""
    script = Path(__file__).with_name("stub.py")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield process.pid, told["port"], told["hosts"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


class Service:
    """One run of `transfer-engine serve`."""

    def __init__(self, directory: Path, config: str) -> None:
        self._config = directory / "bench.toml"
        self._config.write_text(config, "utf-8")
        self.database = directory / "bench.db"
        self.pid = 0
        self.url = ""
        self.start_s = 0.0

    async def __aenter__(self) -> Self:
        began = time.monotonic()
        command = ("-m", "transfer_engine.cli.main", "serve", "--no-auth", "--host", "127.0.0.1", "--port", "0")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            "--database",
            f"sqlite:///{self.database}",
            "--config",
            str(self._config),
            stdout=asyncio.subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            if "http://" in line:
                self.url = "http://" + line.split("http://", 1)[1].split()[0].rstrip(".,;/")
                break
        else:
            raise SystemExit("the service did not start")
        self.start_s = time.monotonic() - began
        self._drain = asyncio.ensure_future(self._process.stdout.read())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
        await self._drain

    def finished(self) -> int:
        """Transfers that are FINISHED and committed."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT sum(n_finished), sum(n_failed) FROM jobs").fetchone()
        if row[1]:
            raise SystemExit(f"{row[1]} transfers failed: the figure would be worth nothing")
        return row[0] or 0


def job(first: int, n: int, port: int, hosts: list[str]) -> dict[str, Any]:
    """A submission of `n` files, spread over the links; numbers from `first`."""
    files = []
    for number in range(first, first + n):
        name = file_name(number)
        host = hosts[1 + number % LINKS]
        digest = name.rpartition("-")[2]
        files.append(
            {
                "sources": [f"http://{hosts[0]}:{port}/src/day/{name}"],
                "destinations": [f"http://{host}:{port}/dst/day/{name}"],
                "filesize": 1_000_000,
                "checksum": f"ADLER32:{digest}",
                "metadata": {"scope": "bench", "name": name},
            }
        )
    return {"files": files, "params": {"verify_checksum": "both", "job_metadata": {"issuer": "bench"}}}


class Client:
    """Submits; keeps count of file numbers."""

    def __init__(self, session: aiohttp.ClientSession, port: int, hosts: list[str]) -> None:
        self._session = session
        self._port, self._hosts = port, hosts
        self.next = 1

    async def submit(self, url: str, n: int) -> int:
        """One job of `n` files; the number of its first."""
        first, self.next = self.next, self.next + n
        body = json.dumps(job(first, n, self._port, self._hosts)).encode()
        headers = {"Content-Type": "application/json"}
        async with self._session.post(url + "/jobs", data=body, headers=headers) as answer:
            if answer.status != 200:
                raise SystemExit(f"submission refused: {answer.status} {await answer.text()}")
            await answer.read()
        return first

    async def fill(self, url: str, n: int) -> float:
        """`n` files in jobs of 200, eight at a time; files per second."""
        began = time.monotonic()
        left = [FILES_PER_JOB] * (n // FILES_PER_JOB)

        async def worker() -> None:
            while left:
                await self.submit(url, left.pop())

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(worker())
        return n / (time.monotonic() - began)


async def throughput(client: Client, pids: dict[str, int], directory: Path, queued: int, args: Any) -> Figure:
    """Measure one queue length."""
    total = args.warm + args.transfers
    async with Service(directory, CLOSED) as service:
        done_before = service.finished()
        rate = await client.fill(service.url, max(queued, 1000))
        filled_mib = memory_mib(service.pid, "VmRSS")
    print(f"  filled {max(queued, 1000)} at {rate:,.0f} files/s", file=sys.stderr)
    async with Service(directory, OPEN) as service:
        feeder = asyncio.ensure_future(feed(client, service, done_before, queued, total))
        await until(service, done_before + args.warm)
        began, start = time.monotonic(), {name: cpu_s(pid) for name, pid in pids.items()}
        engine, first = cpu_s(service.pid), service.finished()
        await until(service, first + args.transfers)
        n, wall = service.finished() - first, time.monotonic() - began
        figure = Figure(
            queued=queued,
            transfers_s=n / wall,
            engine_ms=(cpu_s(service.pid) - engine) / n * 1e3,
            stub_ms=(cpu_s(pids["stub"]) - start["stub"]) / n * 1e3,
            client_ms=(cpu_s(pids["client"]) - start["client"]) / n * 1e3,
            filled_mib=filled_mib,
            rss_mib=memory_mib(service.pid, "VmRSS"),
            peak_mib=memory_mib(service.pid, "VmHWM"),
            start_s=service.start_s,
        )
        feeder.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeder
    return figure


async def feed(client: Client, service: Service, done_before: int, queued: int, total: int) -> None:
    """Keep the queue at its length while the measured transfers run."""
    submitted = 0
    while submitted < total:
        done = service.finished() - done_before
        while submitted < done:
            await client.submit(service.url, FILES_PER_JOB)
            submitted += FILES_PER_JOB
        await asyncio.sleep(0.05)


async def until(service: Service, n: int) -> None:
    """Wait until `n` transfers are finished in all."""
    stalled, last = 0, -1
    while (now := service.finished()) < n:
        stalled = stalled + 1 if now == last else 0
        if stalled > 600:
            raise SystemExit(f"no transfer finished for a minute, {now} of {n}")
        last = now
        await asyncio.sleep(0.1)


async def latency(client: Client, directory: Path, port: int, hosts: list[str], args: Any) -> dict[str, float]:
    """`submit → COPY` of single-file jobs into an idle service, in milliseconds."""
    sent: dict[int, float] = {}
    (directory / "bench.db").unlink(missing_ok=True)
    async with Service(directory, OPEN) as service, aiohttp.ClientSession() as session:
        await (await session.get(f"http://{hosts[0]}:{port}/.times")).read()
        for _ in range(args.samples):
            now = time.monotonic()
            sent[await client.submit(service.url, 1)] = now
            await asyncio.sleep(args.gap)
        await asyncio.sleep(1)
        async with session.get(f"http://{hosts[0]}:{port}/.times") as answer:
            seen = parse_times(await answer.read())
    values = sorted((seen[number] - at) * 1e3 for number, at in sent.items() if number in seen)
    return {
        "samples": len(values),
        "p50_ms": statistics.median(values),
        "p99_ms": values[min(len(values) - 1, int(len(values) * 0.99))],
    }


@contextlib.asynccontextmanager
async def bench_client(port: int, hosts: list[str]) -> AsyncIterator[Client]:
    """A client with its connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(session, port, hosts)


async def run(args: Any) -> dict[str, Any]:
    """Everything that was asked for."""
    figures = []
    with stub() as (pid, port, hosts), tempfile.TemporaryDirectory(prefix="te-bench-") as name:
        directory = Path(name)
        async with bench_client(port, hosts) as client:
            for queued in args.queued:
                for leftover in directory.glob("bench.db*"):
                    leftover.unlink()
                figure = await throughput(client, {"stub": pid, "client": os.getpid()}, directory, queued, args)
                figures.append(figure)
                print(
                    f"{figure.queued:>9,} queued: {figure.transfers_s:7.0f} transfers/s   CPU ms/transfer: "
                    f"engine {figure.engine_ms:.3f}  stub {figure.stub_ms:.3f}  client {figure.client_ms:.3f}   "
                    f"MiB: filled {figure.filled_mib:.0f}, working {figure.rss_mib:.0f}, peak {figure.peak_mib:.0f}   "
                    f"start {figure.start_s:.1f} s"
                )
            for leftover in directory.glob("bench.db*"):
                leftover.unlink()
            measured = await latency(client, directory, port, hosts, args)
            line = "submit → COPY, idle: p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms ({samples} samples)"
            print(line.format(**measured))
    return {"throughput": [asdict(figure) for figure in figures], "latency": measured}


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transfers", type=int, default=20_000, help="counted transfers per queue length")
    parser.add_argument("--warm", type=int, default=4_000, help="transfers before counting begins")
    parser.add_argument(
        "--queued",
        type=lambda text: [int(float(part)) for part in text.split(",")],
        default=[1_000, 100_000, 1_000_000],
        help="queue lengths, comma-separated",
    )
    parser.add_argument("--samples", type=int, default=300, help="samples of the latency run")
    parser.add_argument("--gap", type=float, default=0.02, help="seconds between two of them")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()
    result = asyncio.run(run(args))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
