"""What operators say that storages can do reaches the adapter that asks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocols.api import Capabilities
from protocols.http import HttpAdapter
from protocols.http.quirks import Quirks
from transfer_engine import TransferEngine
from transfer_engine.config import Settings

PULL, PUSH = Capabilities(pull=True, push=False), Capabilities(pull=False, push=True)


def test_what_is_said_of_an_endpoint_changes_what_was_learned_of_it_alone():
    quirks = Quirks(now=lambda: 0.0, configured={"https://a": PULL})
    a, b = quirks.of("https://a:443"), quirks.of("https://b:443")
    b.pull = False
    b.digests.add("adler32")
    a.digests.add("md5")
    quirks.configure({"https://a": PUSH})
    assert (a.pull, a.push, a.configured) == (False, True, True)
    assert a.digests == {"md5"}
    assert (b.pull, b.digests) == (False, {"adler32"})
    quirks.configure({})
    assert (a.pull, a.push, a.configured) == (None, None, False)
    quirks.configure({"*": PULL, "https://b": PUSH})
    assert quirks.capabilities("https://a:443").pull is True
    assert quirks.capabilities("https://b:443").pull is False
    assert quirks.capabilities("https://c:443") == PULL


@pytest.mark.asyncio
async def test_tpc_support_holds_at_once_over_the_settings_and_after_a_restart(tmp_path: Path):
    settings = Settings(limits={"endpoints": {"https://a.example": {"tpc": "push"}}})
    for n in range(2):
        adapter = HttpAdapter(capabilities={"https://a.example": PUSH})
        async with TransferEngine(str(tmp_path / "t.db"), settings=settings, adapters=[adapter]) as engine:
            if n == 0:
                assert adapter.capabilities("https://a.example:8443/x") == PUSH
                await engine.tunables.set_storages({"https://a.example": {"tpc_support": "PULL"}}, {})
            assert adapter.capabilities("https://a.example:8443/x") == PULL
            if n == 1:
                await engine.tunables.drop_storage("https://a.example")
                assert adapter.capabilities("https://a.example:8443/x") == PUSH
