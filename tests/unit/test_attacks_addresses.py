"""Users name storages: what answers only to this machine or its network is not reached through the service."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest

from protocols.api import CopyRequest, Mode
from protocols.errors import Again, Refused, Scope, TransferError, Unavailable
from protocols.http import HttpAdapter
from protocols.http.addresses import PublicOnly
from transfer_engine.config import Settings, TransferSettings
from transfer_engine.config_service import ReverseProxy, ServiceSettings
from transfer_engine.wiring import address_policy

INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:808:808::80ff:fffe",  # Teredo of 127.0.0.1
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
OUTSIDE = ["8.8.8.8", "188.184.0.1", "2001:1458:201::1", "::ffff:188.184.0.1", "64:ff9b::188.184.0.1"]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_of_this_machine_and_its_network(address: str) -> None:
    assert not PublicOnly()(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_of_the_internet(address: str) -> None:
    assert PublicOnly()(ipaddress.ip_address(address))


def test_networks_that_are_named() -> None:
    policy = PublicOnly([ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd12::/32")])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1"):
        assert policy(ipaddress.ip_address(address))
    for address in ("10.2.0.1", "fd13::1", "127.0.0.1"):
        assert not policy(ipaddress.ip_address(address))


def settings(host: str, **transfer: object) -> Settings:
    front = ReverseProxy(peers=(ipaddress.ip_network("127.0.0.1/32"),)) if host == "behind" else ReverseProxy()
    service = ServiceSettings(host="127.0.0.1" if host == "behind" else host, reverse_proxy=front)
    return Settings(service=service, transfer=TransferSettings.model_validate(transfer))


@pytest.mark.parametrize(
    ("host", "chosen", "anywhere"),
    [
        ("127.0.0.1", "auto", True),
        ("::1", "auto", True),
        ("0.0.0.0", "auto", False),
        ("fts.example.org", "auto", False),
        ("behind", "auto", False),
        ("127.0.0.1", "public", False),
        ("0.0.0.0", "any", True),
    ],
)
def test_who_reaches_the_service_decides(host: str, chosen: str, anywhere: bool) -> None:
    policy = address_policy(settings(host, storage_addresses=chosen))
    assert (policy is None) is anywhere
    if policy is not None:
        assert not policy(ipaddress.ip_address("127.0.0.1"))


def test_a_sites_own_networks_are_in_the_settings() -> None:
    policy = address_policy(settings("0.0.0.0", storage_networks=["192.168.0.0/16"]))
    assert policy is not None
    assert policy(ipaddress.ip_address("192.168.7.7"))
    assert not policy(ipaddress.ip_address("10.0.0.1"))


async def refused(url: str) -> TransferError:
    adapter = HttpAdapter(address_allowed=PublicOnly())
    try:
        with pytest.raises(TransferError) as caught:
            await adapter.stat(url)
    finally:
        await adapter.aclose()
    return caught.value


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_nothing_is_sent_there(host: str) -> None:
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda *_: connected.set(), "127.0.0.1", 0, family=socket.AF_INET)
    async with server:
        found = await refused(f"http://{host}:{server.sockets[0].getsockname()[1]}/f")
    assert isinstance(found, Refused)
    assert found.again is Again.NEVER
    assert "address policy" in found.message
    assert "storage_networks" in str(found.hint)
    assert not connected.is_set()


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", [Mode.PULL, Mode.PUSH])
@pytest.mark.parametrize(
    "inside", ["127.0.0.2", "[::1]", "[::ffff:127.0.0.2]", "10.0.0.1", "0x7f.2", "nowhere.invalid"]
)
async def test_no_storage_is_sent_there(inside: str, mode: Mode) -> None:
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda *_: connected.set(), "127.0.0.1", 0, family=socket.AF_INET)
    adapter = HttpAdapter(address_allowed=PublicOnly([ipaddress.ip_network("127.0.0.1/32")]))
    async with server:
        active, passive = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/f", f"http://{inside}:9/f"
        source, destination = (passive, active) if mode is Mode.PULL else (active, passive)
        request = CopyRequest(source_url=source, destination_url=destination, mode=mode)
        with pytest.raises((Refused, Unavailable)) as caught:
            await adapter.copy(request, lambda _: None)
    await adapter.aclose()
    assert caught.value.scope is (Scope.SOURCE if mode is Mode.PULL else Scope.DESTINATION)
    assert not connected.is_set()
