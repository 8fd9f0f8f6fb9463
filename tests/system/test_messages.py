"""Messages to a real broker: what a receiver like Rucio's gets, and what it does not miss."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import CopyFailed
from protocols.scripted import Rule, ScriptedAdapter
from tests.broker import PASSWORD, USER, RealBroker, Receiver, check
from tests.storages.authority import Authority
from tests.storages.process import CannotRun
from tests.unit.test_messages_documents import COMPLETE, FIRST_STATE, START, STATE
from transfer_engine import JobOptions, JobRequest, JobState, JobType, Settings, Transfer, TransferEngine
from transfer_engine.config_service import Broker, MessageSettings
from transfer_engine.messages.broker import BrokerAway
from transfer_engine.messages.letters import Letter
from transfer_engine.messages.stomp import Stomp

pytestmark = pytest.mark.asyncio

TOPICS = [f"/topic/transfer.fts_monitoring_{name}" for name in ("start", "complete", "state")]
STARTS, COMPLETIONS, STATES = TOPICS


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest) -> Iterator[RealBroker]:
    try:
        check()
    except CannotRun as error:
        if request.config.getoption("--require-real"):
            pytest.fail(f"no broker can run here: {error}", pytrace=False)
        pytest.skip(f"no broker can run here: {error}")
    directory = Path(tempfile.mkdtemp(prefix="te"))
    started = RealBroker(directory / "broker", Authority(directory / "pki"))
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def receiver(broker: RealBroker) -> Iterator[Receiver]:
    listening = Receiver(broker, TOPICS)
    listening.connect()
    yield listening
    listening.close()


def settings(broker: RealBroker, **more: Any) -> MessageSettings:
    values: dict[str, Any] = {
        "brokers": (Broker(host="127.0.0.1", port=broker.port),),
        "username": USER,
        "password": PASSWORD,
        "vhost": "/",
        "retry_max_s": 1.0,
    }
    return MessageSettings(**(values | more))


@asynccontextmanager
async def engine(
    broker: RealBroker, database: str = "sqlite://"
) -> AsyncIterator[tuple[TransferEngine, ScriptedAdapter]]:
    storages = ScriptedAdapter(rng=random.Random(0))
    for host in "abcd":
        storages.storage(f"sim://{host}")
    storages.storage("sim://a").add("/f", size_bytes=1000)
    configured = Settings(messages=settings(broker), service={"alias": "fts.example"}, transfer={"quarantine_s": 0.1})  # type: ignore[arg-type]
    async with TransferEngine(database, settings=configured, adapters=[storages]) as opened:
        yield opened, storages


def _outcomes(receiver: Receiver, job_id: str) -> list[tuple[str, str]]:
    found = [document for document in receiver.of(COMPLETIONS) if document["job_id"] == job_id]
    return [(document["t_final_transfer_state"], document["job_state"]) for document in found]


async def _well(opened: TransferEngine) -> None:
    """Return when messages go out."""
    async with asyncio.timeout(10):
        while opened.companions.troubles():
            await opened.reader.last_event()


async def _until(receiver: Receiver, n_complete: int) -> None:
    await asyncio.to_thread(receiver.wait, lambda: len({d["tr_id"] for d in receiver.of(COMPLETIONS)}) >= n_complete)


@pytest.mark.slow
async def test_every_kind_of_job_is_told_with_every_key(broker: RealBroker, receiver: Receiver) -> None:
    async with engine(broker) as (opened, storages):
        storages.add_rule(Rule(match="sim://b/slow", operations=frozenset({"copy"}), rate_bytes_s=10.0))
        storages.rule("sim://b/broken", operations={"copy"}, error=lambda: CopyFailed("disk"))
        storages.storage("sim://c").add("/g", size_bytes=10)
        marks = {"metadata": {"issuer": "rucio"}, "vo": "cms"}
        wanted = {
            "done": [Transfer.of("sim://a/f", "sim://b/f", metadata={"request_id": "r1"})],
            "failed": [Transfer.of("sim://a/f", "sim://b/broken")],
            "cancelled": [Transfer.of("sim://a/f", "sim://b/slow")],
            "replicas": [
                Transfer(sources=("sim://a/g", "sim://c/g"), destination="sim://b/g", selection_strategy="orderly")
            ],
        }
        options = JobOptions(retries_max=0)
        ids = {name: await opened.submit(job, options=options, **marks) for name, job in wanted.items()}  # type: ignore[arg-type]
        hops = tuple(Transfer.of(*pair) for pair in itertools.pairwise(f"sim://{host}/f" for host in "acd"))
        ids["route"] = await opened.submit(JobRequest(transfers=hops, job_type=JobType.MULTIHOP, vo="cms"))
        for name in ("done", "failed", "replicas", "route"):
            await opened.wait(ids[name], 20)
        await opened.cancel(ids["cancelled"])
        await _until(receiver, 7)
    assert {name: _outcomes(receiver, job_id) for name, job_id in ids.items()} == {
        "done": [("Ok", "UNKNOWN")],
        "failed": [("Error", "UNKNOWN")],
        "cancelled": [("Abort", "UNKNOWN")],
        "replicas": [("Error", "ACTIVE"), ("Ok", "FINISHED")],
        "route": [("Ok", "ACTIVE"), ("Ok", "FINISHED")],
    }
    for topic, expected in ((STARTS, (START,)), (COMPLETIONS, (COMPLETE,)), (STATES, (STATE, FIRST_STATE))):
        for document in receiver.of(topic):
            assert set(document) in [set(keys) for keys in expected]
            assert document.get("endpnt") == "fts.example"
    headers = receiver.messages[0][1]
    assert (headers["vo"], headers["persistent"], headers["content-type"]) == ("cms", "true", "application/json")
    assert int(headers["expires"]) > 1e12


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_broker_that_is_killed_misses_nothing(broker: RealBroker, receiver: Receiver, tmp_path: Path) -> None:
    n = 60
    async with engine(broker, str(tmp_path / "t.db")) as (opened, storages):
        for number in range(n):
            storages.storage("sim://a").add(f"/m{number}", size_bytes=1000)
        first = [await opened.submit(Transfer.of(f"sim://a/m{k}", f"sim://b/m{k}")) for k in range(n // 2)]
        await asyncio.to_thread(receiver.wait, lambda: len(receiver.messages) > 20)
        await asyncio.to_thread(broker.kill)
        later = [await opened.submit(Transfer.of(f"sim://a/m{k}", f"sim://b/m{k}")) for k in range(n // 2, n)]
        for job_id in (*first, *later):
            assert (await opened.wait(job_id, 20)).state is JobState.FINISHED, "transfers do not wait for it"
        assert opened.companions.troubles() != []
        # Not in another thread: the broker would end with it.
        broker.start()
        await asyncio.to_thread(receiver.connect)
        await _until(receiver, n)
        await _well(opened)
    told: dict[str, list[str]] = {}
    for document in receiver.of(STATES):
        seen = told.setdefault(document["job_id"], [])
        if document["file_state"] not in seen:
            seen.append(document["file_state"])
    assert set(told) >= {*first, *later}
    assert all(told[job_id] == ["SUBMITTED", "ACTIVE", "FINISHED"] for job_id in (*first, *later))


async def test_a_wrong_password_is_told_and_is_in_no_text(broker: RealBroker) -> None:
    courier = Stomp(settings(broker, password="canary-wrong"))
    with pytest.raises(BrokerAway) as refused:
        await courier.connect(Broker(host="127.0.0.1", port=broker.port))
    assert "refused" in str(refused.value)
    assert "canary" not in str(refused.value)
    assert "canary" not in repr(settings(broker))


async def test_a_password_from_a_file(broker: RealBroker, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    courier = Stomp(settings(broker, password=None, password_file=file))
    await courier.connect(Broker(host="127.0.0.1", port=broker.port))
    await courier.close()


async def test_tls_to_the_broker(broker: RealBroker, receiver: Receiver) -> None:
    place = Broker(host="localhost", port=broker.port_tls)
    trusting = Stomp(settings(broker, tls=True, ca=broker.authority.ca_file))
    await trusting.connect(place)
    await trusting.send([Letter(COMPLETIONS, b'{"tr_id":"1"} ', "cms")], 1)
    await trusting.close()
    await _until(receiver, 1)
    with pytest.raises(BrokerAway, match="certificate"):
        await Stomp(settings(broker, tls=True)).connect(place)


async def test_what_the_broker_refuses_is_told(broker: RealBroker) -> None:
    courier = Stomp(settings(broker))
    await courier.connect(Broker(host="127.0.0.1", port=broker.port))
    with pytest.raises(BrokerAway, match="refused"):
        await courier.send([Letter("/nowhere/x", b"{} ", "cms")], 1)
    await courier.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"CONNECTED\nversion:1.0\n\n\0"])
async def test_what_is_no_broker_is_told(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BrokerAway, match=str(port)):
            await Stomp(MessageSettings()).connect(Broker(host="127.0.0.1", port=port))


async def test_a_broker_that_says_nothing_is_not_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        courier = Stomp(MessageSettings(confirm_s=0.2))
        with pytest.raises(BrokerAway, match="does not answer"):
            await courier.connect(Broker(host="127.0.0.1", port=port))


async def test_nobody_listens() -> None:
    with pytest.raises(BrokerAway):
        await Stomp(MessageSettings()).connect(Broker(host="127.0.0.1", port=1))
