"""Delegated proxies for attempts: the newest one, the own one, and clear words when there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from protocols.api import Credential
from protocols.errors import Again, Phase, Scope, TransferError
from tests.unit.test_settle import ORDER
from transfer_engine.credentials.fixed import OneForAll
from transfer_engine.credentials.keeper import TokenKeeper
from transfer_engine.credentials.proxies import Proxies, about_proxy
from transfer_engine.credentials.source import UserCredentials
from transfer_engine.errors import StoreUnavailable
from transfer_engine.model import JobOptions
from transfer_engine.sealed import Delegated
from transfer_engine.store.memory import MemoryStore
from transfer_engine.vault import Vault

pytestmark = pytest.mark.asyncio
NOW = 1_700_000_000.0
OWN = Credential()


class _NoIssuers:
    def serves(self, issuer: str) -> bool:
        return False


class _Store(MemoryStore):
    away = False

    async def credential(self, delegation_id: str) -> Delegated | None:
        if self.away:
            raise StoreUnavailable("disk")
        return await super().credential(delegation_id)


@dataclass
class Bench:
    store: _Store
    vault: Vault
    at: float = NOW

    def __post_init__(self) -> None:
        proxies = Proxies(store=self.store, vault=lambda: self.vault, now=lambda: self.at)
        keeper = TokenKeeper(
            store=self.store,
            vault=lambda: self.vault,
            issuers=_NoIssuers(),  # type: ignore[arg-type]
            now=lambda: self.at,
            margin_s=300,
        )
        self.credentials = UserCredentials(own=OneForAll(lambda _: OWN), tokens=keeper, proxies=proxies)

    async def delegate(self, name: str, pem: str, *, lives_s: float = 3600.0) -> None:
        await self.store.put_credential(
            Delegated(
                delegation_id=name,
                user_dn=f"/CN={name}",
                vo="dteam",
                attributes=(),
                expires_at=self.at + lives_s,
                since=self.at,
                sealed=self.vault.seal(pem.encode(), about_proxy(name)),
            )
        )

    async def shown(self, name: str, *, own_credential: bool = True) -> Credential:
        order = replace(ORDER, cred_id=name, options=JobOptions(own_credential=own_credential))
        return await self.credentials.destination(order)

    async def refused(self, name: str) -> TransferError:
        order = replace(ORDER, cred_id=name, options=JobOptions(own_credential=True))
        with pytest.raises(TransferError) as caught:
            await self.credentials.source(order)
        assert (caught.value.scope, caught.value.phase) == (Scope.SOURCE, Phase.PREPARATION)
        return caught.value


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    store = _Store(incarnation="one", now=lambda: NOW)
    await store.open()
    yield Bench(store, Vault.transient())
    await store.close()


async def test_each_user_has_the_own_proxy_and_keeps_it(bench: Bench) -> None:
    await bench.delegate("alice", "PEM of alice")
    await bench.delegate("bob", "PEM of bob")
    shown = await bench.shown("alice")
    assert shown.pem is not None
    assert shown.pem.reveal() == "PEM of alice"
    bench.at += 60
    assert await bench.shown("alice") is shown, "connections that were made with it are used again"
    other = await bench.shown("bob")
    assert other.pem is not None
    assert other.pem.reveal() == "PEM of bob"


async def test_a_newer_proxy_is_soon_used(bench: Bench) -> None:
    await bench.delegate("alice", "old")
    await bench.shown("alice")
    bench.at += 31
    await bench.delegate("alice", "new")
    shown = await bench.shown("alice")
    assert shown.pem is not None
    assert shown.pem.reveal() == "new"


async def test_a_proxy_that_has_ended_is_told_and_may_be_delegated_again(bench: Bench) -> None:
    await bench.delegate("alice", "old")
    bench.at += 3601
    failure = await bench.refused("alice")
    assert (failure.code, failure.again) == ("PROXY_ENDED", Again.LATE)
    assert failure.message == "the delegated proxy of /CN=alice ended at 2023-11-14T23:13:20Z"
    assert "delegate again" in failure.hint
    await bench.delegate("alice", "new")
    bench.at += 31
    assert (await bench.shown("alice")).pem is not None
    bench.at += 3600 - 40
    assert (await bench.refused("alice")).message == "the delegated proxy of /CN=alice ends in 9 s"


async def test_a_proxy_that_was_dropped_is_gone(bench: Bench) -> None:
    await bench.delegate("alice", "old")
    await bench.shown("alice")
    await bench.store.drop_credential("alice")
    bench.at += 31
    assert (await bench.refused("alice")).message == "the user of this transfer has no delegated proxy here any more"


async def test_the_engines_own_is_shown_only_where_the_user_has_none_to_give(bench: Bench) -> None:
    assert await bench.shown("somebody", own_credential=False) is OWN
    assert (await bench.refused("somebody")).code == "PROXY_ENDED"


async def test_another_key_is_no_reason_to_show_something_else(bench: Bench) -> None:
    await bench.delegate("alice", "pem")
    bench.vault = Vault.transient()
    failure = await bench.refused("alice")
    assert (failure.code, failure.hint) == ("SECRET_LOST", "delegate again")
    assert "PEM" not in str(failure)


async def test_a_database_that_does_not_answer_is_waited_for(bench: Bench) -> None:
    await bench.delegate("alice", "pem")
    shown = await bench.shown("alice")

    bench.store.away = True
    bench.at += 31
    assert await bench.shown("alice") is shown
    assert (await bench.refused("bob")).again is Again.SOON
