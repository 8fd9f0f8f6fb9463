"""Model storages in a process of their own: `python -m transfer_engine.demo.storages --count 6`.

Prints one line of JSON when all of them listen,

    {"storages": [{"name": "se1", "kind": "xrootd", "url": "http://127.0.0.1:40001"}, …],
     "files": {"pattern": "/src/f%06d", "count": 1000, "size_bytes": 100000}}

and serves until SIGTERM, SIGINT, or until its standard input, when that is a pipe, is closed.
Files are numbered from 1 and are the same on every storage, so that each can be a replica.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import uvloop

from transfer_engine.demo.faults import Fault, Faults
from transfer_engine.demo.kinds import Kind
from transfer_engine.demo.storage import ModelStorage

FILE_PATTERN: Final = "/src/f%06d"

COUNT_MAX: Final = 250
"""Storages in one process: each has a loopback address of its own."""

UNITS: Final = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}


def parse_size(text: str) -> int:
    """`100k` → 100000; decimal units k, M, G."""
    found = re.fullmatch(r"(\d+)([kmg]?)b?", text.strip().lower())
    if found is None:
        msg = f"{text!r} is not a size such as 100k"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]) * UNITS[found[2]]


def parse_files(text: str) -> tuple[int, int]:
    """`1000x100k` → (1000, 100000)."""
    count, cross, size = text.partition("x")
    if not cross or not count.isdigit():
        msg = f"{text!r} is not COUNTxSIZE, such as 1000x100k"
        raise argparse.ArgumentTypeError(msg)
    return int(count), parse_size(size)


def parse_rates(text: str) -> dict[Fault, float]:
    """`corrupt=0.01,unavailable=0.1` → rates."""
    try:
        return {Fault(name.strip()): float(rate) for name, _, rate in (part.partition("=") for part in text.split(","))}
    except ValueError as error:
        msg = f"{error}; expected FAULT=RATE,…; faults are {', '.join(Fault)}"
        raise argparse.ArgumentTypeError(msg) from error


def parse_kinds(text: str) -> list[Kind]:
    """`xrootd,storm` → kinds."""
    try:
        return [Kind(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m transfer_engine.demo.storages", description="Model storages.")
    add = parser.add_argument
    add("--count", type=int, default=2, help="number of storages (default 2)")
    add("--seed", type=int, default=0, help="contents and chance follow from it")
    add("--kinds", type=parse_kinds, default=[Kind.XROOTD], help="families in turn: xrootd,storm,dcache")
    add("--one-host", action="store_true", help="all on 127.0.0.1; else 127.0.0.1, 127.0.0.2, …")
    add("--port", type=int, default=0, help="the same port on every address (default: any free one each)")
    add("--files", type=parse_files, default=(0, 0), help="files to begin with, COUNTxSIZE, such as 1000x100k")
    add("--faults", type=parse_rates, default={}, help="chances at COPY, such as corrupt=0.01,unavailable=0.1")
    add("--head-faults", type=parse_rates, default={}, help="the same at HEAD")
    add("--fault-attempts-max", type=int, help="only the first so many requests on a path can go wrong")
    add("--retry-after", type=float, default=1.0, help="seconds, with 503")
    add("--zombie", type=float, default=5.0, help="seconds that a copy goes on after its connection was cut")
    add("--bandwidth", type=parse_size, help="bytes per second of each storage, such as 10M")
    add("--latency-ms", type=float, default=0.0, help="before each request is answered")
    add("--marker-period", type=float, default=5.0, help="seconds between performance markers")
    add("--journal-dir", type=Path, help="directory for one journal per storage, NAME.jsonl")
    add("--expose-journal", action="store_true", help="serve /.journal and /.files")
    return parser


def build_storages(options: argparse.Namespace) -> list[ModelStorage]:
    """The storages that the options ask for, with their files, not started."""
    faults = Faults(
        rates=options.faults,
        head_rates=options.head_faults,
        attempts_max=options.fault_attempts_max,
        retry_after_s=options.retry_after,
        zombie_s=options.zombie,
    )
    count, size_bytes = options.files
    storages = []
    for number in range(1, options.count + 1):
        name = f"se{number}"
        storage = ModelStorage(
            name=name,
            kind=options.kinds[(number - 1) % len(options.kinds)],
            seed=options.seed,
            faults=faults,
            host="127.0.0.1" if options.one_host else f"127.0.0.{number}",
            bandwidth_bytes_s=options.bandwidth,
            latency_s=options.latency_ms / 1000,
            marker_period_s=options.marker_period,
            journal_file=options.journal_dir / f"{name}.jsonl" if options.journal_dir else None,
            expose_journal=options.expose_journal,
        )
        for n in range(1, count + 1):
            storage.add_file(FILE_PATTERN % n, size_bytes, options.seed * 1_000_003 + n)
        storages.append(storage)
    return storages


def _end_on_eof(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Watch standard input if it is a pipe: whoever started us holds its other end."""
    descriptor = sys.stdin.fileno()
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            ended.set()

    loop.add_reader(descriptor, readable)


async def serve(options: argparse.Namespace) -> None:
    """Run the storages until told to end."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    count, size_bytes = options.files
    async with AsyncExitStack() as stack:
        rows = []
        for storage, kind in zip(build_storages(options), options.kinds * options.count, strict=False):
            stack.push_async_callback(storage.stop)
            rows.append({"name": storage.name, "kind": kind.value, "url": await storage.start(options.port)})
        ready = {
            "storages": rows,
            "files": {"pattern": FILE_PATTERN, "count": count, "size_bytes": size_bytes},
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        _end_on_eof(loop, ended)
        await ended.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not 1 <= options.count <= COUNT_MAX:
        parser.error(f"--count is 1 … {COUNT_MAX}")
    if options.port and options.one_host and options.count > 1:
        parser.error("--port with --one-host is for one storage")
    uvloop.run(serve(options))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
