"""The model storages and the stub in processes of their own: one line tells where, and they end when told to."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from benchmarks.stub import file_name
from transfer_engine.demo.faults import Fault
from transfer_engine.demo.storages import FILE_PATTERN, build_parser, build_storages, main

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process, json.loads(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["eof", signal.SIGTERM, signal.SIGINT])
async def test_storages(tmp_path, end):
    options = "-m transfer_engine.demo.storages --count 2 --kinds xrootd,dcache --files 3x10k --expose-journal"
    async with running(*options.split(), "--journal-dir", str(tmp_path)) as (process, ready):
        one, two = ready["storages"]
        assert [one["kind"], two["kind"]] == ["xrootd", "dcache"]
        assert one["url"].startswith("http://127.0.0.1:")
        assert two["url"].startswith("http://127.0.0.2:")
        assert ready["files"] == {"pattern": FILE_PATTERN, "count": 3, "size_bytes": 10_000}
        path = FILE_PATTERN % 3
        async with aiohttp.ClientSession() as client:
            headers = {"Source": two["url"] + path}
            async with client.request("COPY", one["url"] + "/dst/f", headers=headers) as response:
                assert "success: Created" in await response.text()
            async with client.get(one["url"] + "/.files") as response:
                files = await response.json()
        assert files["/dst/f"] == files[path]
        if end == "eof":
            process.stdin.close()
        else:
            process.send_signal(end)
        assert await process.wait() == 0
    assert json.loads((tmp_path / "se1.jsonl").read_text())["path"] == "/dst/f"


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_stub():
    async with running("benchmarks/stub.py", "--hosts", "3") as (process, ready):
        assert ready["hosts"] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        async with aiohttp.ClientSession() as client:
            for number, host in enumerate(ready["hosts"]):
                url = f"http://{host}:{ready['port']}/dst/{file_name(number)}"
                async with client.request("COPY", url, headers={"Source": "http://127.0.0.9:1/src/x"}) as response:
                    assert (await response.text()).endswith("success: Created")
                async with client.head(url) as response:
                    assert response.status == 200
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


def test_options_become_storages():
    options = build_parser().parse_args(
        ["--count=3", "--files=2x1k", "--faults=corrupt=0.1,stall=0.2", "--head-faults=no_digest=1", "--bandwidth=2M"]
    )
    storages = build_storages(options)
    assert [storage.host for storage in storages] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert len({str(storage.files()) for storage in storages}) == 1
    assert dict(storages[0].faults.rates) == {Fault.CORRUPT: 0.1, Fault.STALL: 0.2}
    assert len(set(storages[0].files().values())) == 2


@pytest.mark.parametrize(
    "wrong", ["--files 10", "--files 3xbig", "--faults nonsense=1", "--kinds tape", "--count 0", "--port 1 --one-host"]
)
def test_wrong_options_are_explained(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        main(wrong.split())
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
