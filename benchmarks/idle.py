"""What the engine adds to one transfer on an idle system, beside the same requests made by hand.

    python benchmarks/idle.py [--rounds 40] [--bytes 100000]

Two real XRootD servers on loopback. By hand: curl in one process per transfer makes the checks and the
copy that the engine makes (HEAD with digest at the source, HEAD at the destination, COPY, HEAD with
digest at the destination) on kept-alive connections. The engine: one job of one file, from
before the POST to the job service until its FINISHED is readable there. Rounds alternate, so that both
meet the same machine. Two engine figures are given: submitted through REST and polled every
millisecond, and submitted and awaited in the library.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.storages import Storages
from tests.storages.storage import Storage
from transfer_engine import JobOptions, Settings, Transfer, TransferEngine
from transfer_engine.service.server import open_door, serve


def by_hand(source: str, destination: str) -> float:
    """Milliseconds of one curl with the four requests."""
    quiet = ["-s", "-o", "/dev/null", "--max-time", "60"]
    want = ["-H", "Want-Digest: adler32"]
    command = ["curl", *quiet, "-I", *want, source]
    command += ["--next", *quiet, "-I", destination]
    command += ["--next", *quiet, "-X", "COPY", "-H", f"Source: {source}", "-H", "Credential: none", destination]
    command += ["--next", *quiet, "-I", *want, destination]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return (time.perf_counter() - began) * 1e3


async def in_library(engine: TransferEngine, source: str, destination: str) -> float:
    """Milliseconds from submit to the end of the job."""
    began = time.perf_counter()
    job = await engine.wait(await engine.submit(Transfer.of(source, destination), options=JobOptions(modes=("pull",))))
    spent = (time.perf_counter() - began) * 1e3
    if job.state != "FINISHED":
        raise SystemExit(f"{destination}: {[file.reason for file in await engine.files(job.job_id)]}")
    return spent


async def through_rest(session: aiohttp.ClientSession, url: str, source: str, destination: str) -> float:
    """Milliseconds from before the POST until FINISHED is seen."""
    body = {"files": [{"sources": [source], "destinations": [destination]}], "params": {"verify_checksum": "both"}}
    began = time.perf_counter()
    async with session.post(f"{url}/jobs", json=body) as answer:
        job_id = (await answer.json())["job_id"]
    state = ""
    while state not in {"FINISHED", "FAILED"}:
        await asyncio.sleep(0.001)
        async with session.get(f"{url}/jobs/{job_id}") as answer:
            state = (await answer.json())["job_state"]
    if state != "FINISHED":
        raise SystemExit(f"{destination}: {state}")
    return (time.perf_counter() - began) * 1e3


async def measure(a: Storage, b: Storage, directory: Path, rounds: int) -> dict[str, list[float]]:
    """Alternate the three ways."""
    found: dict[str, list[float]] = {"curl": [], "library": [], "rest": []}
    settings = Settings(database=f"sqlite:///{directory / 'idle.db'}", service={"port": 0}, tls={"discover": False})
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[str] = loop.create_future()
    async with TransferEngine(settings=settings) as engine, aiohttp.ClientSession() as session:
        server = asyncio.ensure_future(serve(engine, settings.service, open_door(), on_ready=ready.set_result))
        url = (await ready).rstrip("/")
        for n in range(rounds + 3):
            source = f"{a.url}/idle-{n}.bin"
            hand = await loop.run_in_executor(None, by_hand, source, f"{b.url}/hand-{n}.bin")
            library = await in_library(engine, source, f"{b.url}/library-{n}.bin")
            rest = await through_rest(session, url, source, f"{b.url}/rest-{n}.bin")
            if n >= 3:
                for name, value in (("curl", hand), ("library", library), ("rest", rest)):
                    found[name].append(value)
        server.cancel()
        await asyncio.wait([server])
    return found


def main() -> None:
    """Start the storages, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--bytes", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="te") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with Storages(directory) as storages:
            a, b = storages["xrootd-a"], storages["xrootd-b"]
            for n in range(args.rounds + 3):
                a.put(f"idle-{n}.bin", os.urandom(args.bytes))
            found = uvloop.run(measure(a, b, directory, args.rounds))
    curl = statistics.median(found["curl"])
    print(f"curl by hand            {curl:7.1f} ms (median of {args.rounds})")
    for way, label in (("library", "engine, in the library"), ("rest", "engine, through REST  ")):
        value = statistics.median(found[way])
        print(f"{label}  {value:7.1f} ms, adds {value - curl:+.1f} ms")


if __name__ == "__main__":
    main()
