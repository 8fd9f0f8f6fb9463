"""Credentials that have ended do not stay for ever in a running engine."""

from __future__ import annotations

import asyncio

from protocols.scripted import ScriptedAdapter
from transfer_engine import TransferEngine
from transfer_engine.sealed import Delegated, StoredToken
from transfer_engine.testing import run

OWNER = "0123456789abcdef"
DAY_S = 86_400.0


def test_they_go_a_day_after_their_end() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        del storages
        store, now = engine._store, engine._deps.clock.now()
        proxy = Delegated(
            delegation_id=OWNER,
            user_dn="/CN=alice",
            vo="vo",
            attributes=(),
            expires_at=now + 3600,
            since=now,
            sealed=b"proxy",
        )
        token = StoredToken(
            token_id="t",
            cred_id=OWNER,
            issuer="https://issuer.org/",
            audience="",
            scope="",
            expires_at=now + 3600,
            managed=False,
            since=now,
            sealed=b"token",
        )
        await store.put_credential(proxy)
        await store.put_tokens([token])
        await asyncio.sleep(DAY_S)
        assert await store.credential(OWNER) == proxy
        assert await store.token("t", OWNER) == token
        await asyncio.sleep(2 * 3600)
        assert await store.credential(OWNER) is None
        assert await store.token("t", OWNER) is None

    run(scenario)
