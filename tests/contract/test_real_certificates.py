"""Real XRootD that lets nobody in without a certificate: proxies in memory, and macaroons for the other party."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from protocols.api import ANONYMOUS, CopyRequest, Credential, Mode
from protocols.checksum import compute
from protocols.credentials import Secret
from protocols.errors import Denied, Missing
from tests.contract.wire import BRIEF, DATA, ignore
from tests.grid import Identity

pytestmark = [pytest.mark.real, pytest.mark.asyncio]


def shown(identity: Identity) -> Credential:
    return Credential(pem=Secret(identity.pem.decode()))


@pytest.fixture
def pair(storages):
    return storages["xrootd-x509-a"], storages["xrootd-x509-b"]


@pytest.fixture
def alice(storages) -> Credential:
    return shown(storages.grid.proxy(storages.grid.proxy(storages.grid.user("alice"))))


@pytest.fixture
def bob(storages) -> Credential:
    return shown(storages.grid.user("bob"))


def copy_of(pair, name: str, mode: Mode, source: Credential, destination: Credential, **more) -> CopyRequest:
    return CopyRequest(
        source_url=f"{pair[0].url}/{name}",
        destination_url=f"{pair[1].url}/{name}",
        mode=mode,
        source_credential=source,
        destination_credential=destination,
        timeouts=BRIEF,
        **more,
    )


def told(storage, since: int) -> str:
    """What its log has since."""
    return Path(storage.log).read_bytes()[since:].decode(errors="replace")


@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH])
async def test_a_users_proxy_is_enough_for_both(pair, adapter, alice, mode):
    name = f"{mode}.bin"
    pair[0].put(name, DATA)
    passive = pair[0] if mode is Mode.PULL else pair[1]
    since = passive.log.stat().st_size
    end = await adapter.copy(copy_of(pair, name, mode, alice, alice, size_bytes=len(DATA)), ignore)
    assert end.message.lower().startswith("success")
    assert pair[1].read(name) == DATA
    found = await adapter.stat(f"{pair[1].url}/{name}", credential=alice, digest="adler32", timeouts=BRIEF)
    assert found.checksums["adler32"] == compute("adler32", DATA)
    # The active party has no certificate of hers: what let it in was the macaroon.
    log = told(passive, since)
    assert "Setting the request name to alice" in log
    assert f"resource=/{name}, protocol=https, name=alice" in log


@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH])
async def test_what_is_there_may_be_written_over(pair, adapter, alice, mode):
    name = f"over-{mode}.bin"
    pair[0].put(name, DATA)
    pair[1].put(name, b"old")
    await adapter.copy(copy_of(pair, name, mode, alice, alice, overwrite=True), ignore)
    assert pair[1].read(name) == DATA


@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH])
async def test_who_is_not_let_in_copies_nothing(pair, adapter, alice, bob, mode):
    name = f"denied-{mode}.bin"
    pair[0].put(name, DATA)
    for source, destination in ((ANONYMOUS, alice), (alice, ANONYMOUS), (bob, alice), (alice, bob), (bob, bob)):
        with pytest.raises(Denied) as caught:
            await adapter.copy(copy_of(pair, name, mode, source, destination, overwrite=True), ignore)
        assert caught.value.scope == (
            "DESTINATION" if source is alice else "SOURCE" if destination is alice else mode_of(mode)
        )
    assert name not in pair[1].names() or pair[1].read(name) == b""


def mode_of(mode: Mode) -> str:
    """Whose side the active party is on."""
    return "DESTINATION" if mode is Mode.PULL else "SOURCE"


async def test_metadata_needs_the_certificate_alone(pair, adapter, alice, bob):
    url = pair[0].put("meta.bin", DATA)
    assert (await adapter.stat(url, credential=alice, timeouts=BRIEF)).size_bytes == len(DATA)
    for other in (ANONYMOUS, bob):
        with pytest.raises(Denied):
            await adapter.stat(url, credential=other, timeouts=BRIEF)
        with pytest.raises(Denied):
            await adapter.delete(url, credential=other, timeouts=BRIEF)
    await adapter.make_parents(f"{pair[0].url}/new/deep/f.bin", credential=alice, timeouts=BRIEF)
    assert await adapter.delete(url, credential=alice, timeouts=BRIEF)
    with pytest.raises(Missing):
        await adapter.stat(url, credential=alice, timeouts=BRIEF)


async def test_users_at_once_are_not_mixed_up(pair, adapter, alice, bob):
    """Their connections go to the same storage from the same adapter."""
    url = pair[0].put("mixed.bin", DATA)

    async def ask(credential: Credential) -> bool:
        try:
            await adapter.stat(url, credential=credential, timeouts=BRIEF)
        except Denied:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        asked = [(who is alice, group.create_task(ask(who))) for who in [alice, bob, ANONYMOUS] * 8]
    assert all(task.result() is known for known, task in asked)


@pytest.mark.parametrize("passive", ["xrootd-a", "nginx", "apache", "rclone"])
async def test_a_storage_without_macaroons_is_asked_once(storages, pair, adapter, alice, passive):
    """It is read by everybody, so the copy needs none."""
    other = storages[passive]
    for n in range(2):
        other.put(f"open-{n}.bin", DATA)
        request = CopyRequest(
            source_url=f"{other.https_url}/open-{n}.bin",
            destination_url=f"{pair[1].url}/open-{passive}-{n}.bin",
            mode=Mode.PULL,
            source_credential=alice,
            destination_credential=alice,
            timeouts=BRIEF,
        )
        await adapter.copy(request, ignore)
        assert pair[1].read(f"open-{passive}-{n}.bin") == DATA
    (refusal,) = adapter._copier._macaroons._refusals.values()
    assert refusal.why
