"""A storage that is dead for twenty minutes and back again: nobody fails for it, nobody storms it, little is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from protocols.errors import CopyFailed, Overloaded, Scope, TransferError, Unavailable
from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine import JobState, Transfer
from transfer_engine.engine import Engine
from transfer_engine.places import Place
from transfer_engine.testing import run

pytestmark = pytest.mark.slow

N_FILES = 500
OUTAGE_S = 1200.0
COPY_S = 10.0
B = "sim://b"


def _error(kind: type[TransferError], **more: float) -> Callable[[], TransferError]:
    return lambda: kind("planned", scope=Scope.DESTINATION, **more)  # type: ignore[arg-type]


DEAD = {
    "refuses": Rule(match=B, error=_error(Unavailable)),
    "hangs": Rule(match=B, latency_s=1e6),
    "says later": Rule(match=B, error=_error(Overloaded, retry_after_s=30.0)),
    "fails copies": Rule(match=B, operations=frozenset({"copy"}), error=_error(CopyFailed)),
}


def _transfers(storages: ScriptedAdapter) -> list[Transfer]:
    found = []
    storages.storage(B)
    for n in range(N_FILES):
        source = f"sim://a{n % 4}"
        storages.storage(source).add(f"/{n}", size_bytes=10_000_000)
        found.append(Transfer.of(f"{source}/{n}", f"{B}/w{n}"))
    return found


async def _watch_the_return(engine: Engine, job: str) -> None:
    """It is tried by one, then by a few more with each success."""
    began_at = asyncio.get_running_loop().time()
    before = (await engine.job(job)).n_finished
    health = engine._dispatcher.governor.health
    while (done := (await engine.job(job)).n_finished - before) < 8:
        cap = health.cap(Place("in", B))
        n = len(engine.running())
        # Each success doubles their number; one that was put off and went on does not count as new.
        assert cap is None or n <= max(cap.limit, 1), f"{n} at once after {done} had ended well"
        if cap is None:
            break
        await asyncio.sleep(0.5)
        assert asyncio.get_running_loop().time() - began_at < OUTAGE_S / 2


@pytest.mark.parametrize("warm_s", [0.0, 60.0])
@pytest.mark.parametrize("how", DEAD)
def test_nobody_fails_for_an_outage(how: str, warm_s: float) -> None:
    async def scenario(engine: Engine, storages: ScriptedAdapter) -> None:
        storages.add_rule(Rule(match=f"{B}/*", operations=frozenset({"copy"}), rate_bytes_s=1e6))
        job = await engine.submit(_transfers(storages))
        await asyncio.sleep(warm_s)
        storages._rules.insert(0, DEAD[how])
        await asyncio.sleep(OUTAGE_S)
        left = N_FILES - (await engine.job(job)).n_finished
        storages.remove_rule(DEAD[how])
        began_at = asyncio.get_running_loop().time()
        if how in {"refuses", "fails copies"}:
            await _watch_the_return(engine, job)
        view = await engine.wait(job, 3000)
        lost_s = asyncio.get_running_loop().time() - began_at - left * COPY_S / 60
        assert view.state is JobState.FINISHED
        # A third of the outage at most until it is tried (and a part of that by chance), then the way back.
        assert lost_s < 1.2 * OUTAGE_S / 3 + 100
        assert max(file.n_failed for file in await engine.files(job)) <= 3

    run(scenario)
