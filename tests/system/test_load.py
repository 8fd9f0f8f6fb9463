"""10,000 transfers through the job service, over twelve links and more, with faults at the storages."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.storages.process import free_port
from tests.system.processes import Client, ModelStorages, ServiceProcess, client_of, model_storages

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.timeout(180)]

N_TRANSFERS = 10_000
JOB_FILES = 200
N_FILES = 500
SIZE_BYTES = 2000
FOREIGN = b"somebody else's"
FOREIGN_EVERY = 1000

CONFIG = """
[limits]
node = 200
link = 20
endpoint_inbound = 60
endpoint_outbound = 60
[retry]
retries_max = 5
few_max = 5
delay_s = 0.2
[transfer]
quarantine_s = 2.0
stall_s = 1.5
silence_s = 1.5
cleanup_s = 10
require_checksum = true
[tls]
discover = false
"""

# Together 5 % of the COPYs. A copy that hangs at a storage which never looks at its client would hold
# the destination for ever, so only storages that do notice may stall.
NOTICING = {
    "unavailable": 0.01, "refuse": 0.002, "failure_line": 0.008, "cut_done": 0.006, "cut_zombie": 0.004,
    "cut_partial": 0.004, "corrupt": 0.006, "short": 0.005, "stall": 0.001, "silent": 0.001, "slow": 0.003,
}  # fmt: skip
SWALLOWING = {name: rate for name, rate in NOTICING.items() if name not in {"stall", "silent"}}


def rates(faults: dict[str, float]) -> str:
    return ",".join(f"{name}={rate}" for name, rate in faults.items())


def options(kinds: str, count: int, faults: dict[str, float]) -> list[str]:
    return [
        *("--count", str(count), "--kinds", kinds, "--files", f"{N_FILES}x{SIZE_BYTES}", "--seed", "7"),
        *("--faults", rates(faults), "--head-faults", "no_digest=0.01,unavailable=0.005"),
        *("--fault-attempts-max", "2", "--retry-after", "0", "--zombie", "0.5", "--marker-period", "0.5"),
    ]


@dataclass
class Plan:
    """What is submitted, and what is known of it beforehand."""

    files: list[dict[str, Any]]
    foreign: set[str] = field(default_factory=set)
    """Destinations where somebody else's file lies."""

    @classmethod
    def make(cls, sources: list[str], destinations: list[str], pattern: str) -> Plan:
        plan = cls([])
        for n in range(N_TRANSFERS):
            source = sources[n % len(sources)] + pattern % (n % N_FILES + 1)
            # gfal's way to ask for a push.
            source += "?copy_mode=push" if n % 10 == 9 else ""
            destination = f"{destinations[n // len(sources) % len(destinations)]}/dst/{n % 50}/f{n}"
            plan.files.append({"sources": [source], "destinations": [destination], "metadata": {"n": n}})
            if n % FOREIGN_EVERY == 500:
                plan.foreign.add(destination)
        return plan

    def jobs(self) -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(self.files), JOB_FILES):
            yield self.files[start : start + JOB_FILES]

    def links(self) -> set[tuple[str, str]]:
        return {
            (urlsplit(f["sources"][0]).hostname or "", urlsplit(f["destinations"][0]).hostname or "")
            for f in self.files
        }


async def place_foreign(http: aiohttp.ClientSession, plan: Plan) -> None:
    for url in sorted(plan.foreign):
        parent = url.rpartition("/")[0]
        for path in (parent.rpartition("/")[0], parent):
            async with http.request("MKCOL", path) as answer:
                assert answer.status in {201, 405}
        async with http.put(url, data=FOREIGN) as answer:
            assert answer.status == 201


async def submit_all(client: Client, plan: Plan) -> list[str]:
    waiting = list(plan.jobs())
    job_ids: list[str] = []

    async def submitter() -> None:
        while waiting:
            job_ids.append(await client.submit(waiting.pop(0)))

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(submitter())
    return job_ids


@dataclass
class Truth:
    """What the storages themselves say."""

    files: dict[str, tuple[int, str]]
    """URL → (size, adler32)."""
    violations: list[Any]
    interrupted: set[str]
    """URLs whose last entry in the journal is no complete file."""

    @classmethod
    async def ask(cls, http: aiohttp.ClientSession, *groups: ModelStorages) -> Truth:
        truth = cls({}, [], set())
        for storages in groups:
            for url in storages.urls:
                for path, (size, adler32) in (await storages.ask(http, url, "/.files")).items():
                    truth.files[url + path] = (size, adler32)
                last = {}
                for entry in await storages.ask(http, url, "/.journal"):
                    last[entry["path"]] = entry["event"]
                    if entry["event"] == "violation":
                        truth.violations.append(entry)
                truth.interrupted |= {url + path for path, event in last.items() if event == "partial"}
        return truth


def in_store(database: Path) -> Counter[str]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return Counter(dict(db.execute("SELECT state, count(*) FROM transfers GROUP BY state").fetchall()))


def check_each(plan: Plan, rows: dict[str, dict[str, Any]], truth: Truth) -> None:
    """FINISHED exactly where the right bytes are; what failed left nothing."""
    for file in plan.files:
        source, destination = file["sources"][0].partition("?")[0], file["destinations"][0]
        state, there = rows[destination]["file_state"], truth.files.get(destination)
        story = (rows[destination], there)
        if destination in plan.foreign:
            assert (state, there and there[0]) == ("FAILED", len(FOREIGN)), story
            assert "[17]" in rows[destination]["reason"], story
        elif state == "FINISHED":
            assert there == truth.files[source], story
        else:
            assert state == "FAILED", story
            assert there is None, story
            assert rows[destination]["reason"], story


async def test_ten_thousand_transfers_with_faults(tmp_path: Path):
    config = tmp_path / "service.toml"
    config.write_text(CONFIG, "utf-8")
    service = ServiceProcess(tmp_path / "queue.sqlite", config, free_port(set()))
    async with (
        model_storages(*options("xrootd,dcache", 5, NOTICING)) as noticing,
        model_storages(*options("storm", 7, SWALLOWING)) as swallowing,
        service,
        client_of(service) as client,
    ):
        # The two processes share the addresses from 127.0.0.1 on; an endpoint has no port in its name.
        plan = Plan.make(noticing.urls[:3], [*noticing.urls[3:], *swallowing.urls[5:]], noticing.pattern)
        assert len(plan.links()) >= 12
        await place_foreign(client.http, plan)
        await service.start()
        job_ids = await submit_all(client, plan)
        assert sum(in_store(service.database).values()) == N_TRANSFERS
        await client.wait(job_ids, within_s=150)
        jobs = await client.jobs(job_ids, "file_state,dest_surl,reason")
        truth = await Truth.ask(client.http, noticing, swallowing)
        await check_counts(client, service, jobs)
        rows = {file["dest_surl"]: file for job in jobs for file in job["files"]}
        assert len(rows) == N_TRANSFERS
        check_each(plan, rows, truth)
        assert not truth.violations
        assert not truth.interrupted
        # Most faults heal: only what is refused for good, and the foreign files, may fail.
        states = Counter(file["file_state"] for file in rows.values())
        assert states["FAILED"] < N_TRANSFERS * 0.01, Counter(
            file["reason"] for file in rows.values() if file["file_state"] == "FAILED"
        )
        assert await service.terminate() == 0
        later = await Truth.ask(client.http, noticing, swallowing)
        assert later.files == truth.files


async def check_counts(client: Client, service: ServiceProcess, jobs: list[dict[str, Any]]) -> None:
    """Accepted = Σ of the terminal states, by REST and by the store, for transfers and for jobs."""
    shown = Counter(file["file_state"] for job in jobs for file in job["files"])
    stored = in_store(service.database)
    assert shown == stored
    assert set(shown) <= {"FINISHED", "FAILED"}
    assert sum(shown.values()) == N_TRANSFERS
    for job in jobs:
        states = {file["file_state"] for file in job["files"]}
        expected = "FINISHEDDIRTY" if len(states) == 2 else states.pop()
        assert job["job_state"] == expected
    assert await client.get("/jobs?state_in=SUBMITTED,ACTIVE") == []
