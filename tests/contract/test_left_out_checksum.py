"""A storage that has offered checksums leaves one out: its size alone is no proof then."""

from __future__ import annotations

import pytest

from transfer_engine import JobState, Settings, Transfer, TransferEngine
from transfer_engine.demo.faults import Fault, Faults, Rule
from transfer_engine.demo.storage import ModelStorage

pytestmark = pytest.mark.asyncio

FAST = Settings(
    retry={"delay_s": 0.05},  # type: ignore[arg-type]
    transfer={"quarantine_s": 0.1},  # type: ignore[arg-type]
    tls={"discover": False},  # type: ignore[arg-type]
)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 4])
async def test_a_corrupt_copy_is_caught_though_its_checksum_is_left_out(times: int) -> None:
    async with ModelStorage(name="a") as a, ModelStorage(name="b", host="127.0.0.2") as b:
        for name in ("first", "second"):
            a.add_file(f"/{name}", 50_000)
        async with TransferEngine(settings=FAST) as engine:
            first = await engine.submit(Transfer.of(f"{a.url}/first", f"{b.url}/first"))
            assert (await engine.wait(first, 20)).state is JobState.FINISHED
            b.faults = Faults(
                rules=(
                    Rule(fault=Fault.CORRUPT, path="/second", times=1),
                    Rule(fault=Fault.NO_DIGEST, method="HEAD", path="/second", times=times),
                )
            )
            second = await engine.submit(Transfer.of(f"{a.url}/second", f"{b.url}/second"))
            assert (await engine.wait(second, 30)).state is JobState.FINISHED
            (file,) = await engine.files(second)
            assert "checksum" in (file.evidence or "")
        assert b.files()["/second"] == a.files()["/second"]
