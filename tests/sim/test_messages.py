"""Messages of a whole engine in virtual time, to a broker that follows a script: which, and in what order."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import CopyFailed, Denied
from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine import JobOptions, JobRequest, JobState, JobType, Settings, Transfer, TransferEngine
from transfer_engine.config_service import Broker
from transfer_engine.messages import publisher
from transfer_engine.messages.broker import BrokerAway
from transfer_engine.messages.letters import Letter
from transfer_engine.messages.publisher import CURSOR, Publisher
from transfer_engine.testing import EPOCH, deps, run_virtual

Document = dict[str, Any]
START, COMPLETE, STATE = "/topic/start", "/topic/complete", "/topic/state"


def settings(*brokers: str, **more: Any) -> Settings:
    messages = {"start": START, "complete": COMPLETE, "state": STATE, **more}
    named = [{"host": host} for host in brokers or ("one",)]
    return Settings(messages={"brokers": named, **messages}, service={"alias": "fts.example"})  # type: ignore[arg-type]


@dataclass
class ScriptedBroker:
    """Takes messages, and fails when and how it is told to."""

    taken: list[tuple[str, Document]] = field(default_factory=list)
    """What was confirmed, or may have been."""
    raw: list[tuple[Letter, int]] = field(default_factory=list)
    asked: list[tuple[float, str]] = field(default_factory=list)
    away: bool = False
    breaks_at: set[int] = field(default_factory=set)
    """Numbers of messages after which the connection breaks."""
    hangs: bool = False
    n: int = 0
    connected: bool = False

    async def connect(self, broker: Broker) -> None:
        self.asked.append((asyncio.get_running_loop().time(), broker.host))
        await asyncio.sleep(0.01)
        if self.away:
            raise BrokerAway("Connection refused")
        self.connected = True

    async def send(self, letters: Sequence[Letter], expires_ms: int) -> None:
        for letter in letters:
            self.check()
            self.taken.append((letter.destination, json.loads(letter.body)))
            self.raw.append((letter, expires_ms))
            self.n += 1
            if self.n in self.breaks_at:
                self.connected = False
        await asyncio.sleep(0.001)
        while self.hangs:
            await asyncio.sleep(3600)
        self.check()

    def check(self) -> None:
        if not self.connected or self.away:
            raise BrokerAway("the broker closed the connection")

    async def close(self) -> None:
        self.connected = False

    def of(self, topic: str) -> list[Document]:
        return [document for where, document in self.taken if where == topic]

    def states(self, job_id: str) -> list[tuple[int, str, str]]:
        found = [document for document in self.of(STATE) if document["job_id"] == job_id]
        return [(document["file_id"], document["file_state"], document["job_state"]) for document in found]

    def outcomes(self, job_id: str) -> list[tuple[int, str, str]]:
        found = [document for document in self.of(COMPLETE) if document["job_id"] == job_id]
        return [(d["file_id"], d["t_final_transfer_state"], d["job_state"]) for d in found]


Scenario = Callable[[TransferEngine, ScriptedAdapter, ScriptedBroker], Awaitable[None]]


def run(scenario: Scenario, *, broker: ScriptedBroker | None = None, with_: Settings | None = None) -> ScriptedBroker:
    """Run a scenario to the engine's end, when everything has been sent."""
    taker = broker or ScriptedBroker()

    async def main() -> None:
        storages = ScriptedAdapter(rng=random.Random(0))
        for host in "abcd":
            storages.storage(f"sim://{host}")
        storages.storage("sim://a").add("/f", size_bytes=1_000_000)
        async with _engine(storages, taker, with_) as engine:
            await scenario(engine, storages, taker)

    run_virtual(main)
    return taker


def _engine(
    storages: ScriptedAdapter,
    broker: ScriptedBroker,
    with_: Settings | None = None,
    database: str = "sqlite://",
    seed: int = 0,
) -> TransferEngine:
    return TransferEngine(
        database,
        settings=with_ or settings(),
        adapters=[storages],
        deps=deps(asyncio.get_running_loop(), seed),
        inline=True,
        courier=broker,
    )


FILE = Transfer.of("sim://a/f", "sim://b/f", metadata={"request_id": "r1"})


def test_a_transfer_that_finishes() -> None:
    ids: list[str] = []

    async def scenario(engine: TransferEngine, *_: Any) -> None:
        ids.append(await engine.submit(FILE, vo="cms", metadata={"issuer": "rucio"}))
        await engine.wait(ids[0])

    broker = run(scenario)
    (job_id,) = ids
    assert broker.states(job_id) == [
        (1, "SUBMITTED", "SUBMITTED"),
        (1, "ACTIVE", "ACTIVE"),
        (1, "FINISHED", "FINISHED"),
    ]
    (start,), (done,) = broker.of(START), broker.of(COMPLETE)
    assert done["t_final_transfer_state"] == "Ok"
    assert done["job_state"] == "UNKNOWN"
    assert done["vo"] == start["vo"] == "cms"
    assert done["endpnt"] == "fts.example"
    assert done["tr_id"] == start["transfer_id"] == f"2023-11-14-2213__a__b__1__{job_id}"
    assert done["file_metadata"] == start["file_metadata"] == {"request_id": "r1"}
    assert done["job_metadata"] == {"issuer": "rucio", "auth_method": "local"}
    assert done["user_dn"] == ""
    assert (done["f_size"], done["tr_bt_transfered"]) == (1_000_000, 1_000_000)
    assert done["tr_timestamp_start"] <= done["timestamp_tr_st"] < done["timestamp_tr_comp"]
    assert done["throughput"] > 0
    letter, expires_ms = broker.raw[0]
    assert letter.vo == "cms"
    assert letter.body.endswith(b"} ")
    assert round(EPOCH * 1000) < expires_ms - 86_400_000 < round(EPOCH * 1000) + 5000


def test_an_attempt_that_is_repeated_is_not_announced_as_an_error() -> None:
    ids: list[str] = []

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, _: Any) -> None:
        storages.rule("sim://b/*", operations={"copy"}, attempts=range(1, 3), error=lambda: CopyFailed("disk"))
        ids.append(await engine.submit(FILE))
        assert (await engine.wait(ids[0])).state is JobState.FINISHED

    broker = run(scenario)
    assert broker.outcomes(ids[0]) == [(1, "Ok", "UNKNOWN")]
    assert [state for _, state, _ in broker.states(ids[0])] == [
        *("SUBMITTED", "ACTIVE", "SUBMITTED", "ACTIVE", "SUBMITTED", "ACTIVE", "FINISHED"),
    ]
    changes = [document for document in broker.of(STATE) if "reason" in document]
    assert [document["retry_counter"] for document in changes] == [0, 1, 1, 2, 2, 2]
    assert changes[1]["reason"].startswith("TRANSFER [5] disk")
    assert len(broker.of(START)) == 3


def test_a_transfer_that_fails_in_the_end() -> None:
    ids: list[str] = []

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, _: Any) -> None:
        storages.rule("sim://b/*", operations={"copy"}, error=lambda: CopyFailed("disk\n'full'"))
        ids.append(await engine.submit(FILE, options=JobOptions(retries_max=1, retry_delay_s=1)))
        await engine.wait(ids[0])

    broker = run(scenario)
    assert broker.outcomes(ids[0]) == [(1, "Error", "UNKNOWN")]
    (done,) = broker.of(COMPLETE)
    assert (done["retry"], done["retry_max"], done["is_recoverable"]) == (1, 1, True)
    assert done["t__error_message"] == "TRANSFER [5] disk full"
    assert (done["tr_error_scope"], done["t_error_code"]) == ("TRANSFER", 5)
    assert (done["tr_error_category"], done["t_failure_phase"]) == ("INPUT/OUTPUT_ERROR", "TRANSFER")
    assert done["t_final_transfer_state_flag"] == 0


def test_the_replicas_of_a_file() -> None:
    """Rucio must not take the failure of one for the end while others are left."""
    ids: list[str] = []

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, _: Any) -> None:
        storages.storage("sim://d").add("/g", size_bytes=10)
        sources = ("sim://a/g", "sim://c/g", "sim://d/g")
        several = Transfer(sources=sources, destination="sim://b/g", selection_strategy="orderly")
        ids.append(await engine.submit(several))
        await engine.wait(ids[0])
        ids.append(
            await engine.submit(Transfer(sources=sources[:2], destination="sim://b/h", selection_strategy="orderly"))
        )
        await engine.wait(ids[1])

    broker = run(scenario)
    assert broker.outcomes(ids[0]) == [(1, "Error", "ACTIVE"), (2, "Error", "ACTIVE"), (3, "Ok", "FINISHED")]
    assert broker.outcomes(ids[1]) == [(4, "Error", "ACTIVE"), (5, "Error", "FAILED")]
    assert broker.states(ids[0])[:3] == [
        (1, "SUBMITTED", "SUBMITTED"),
        (2, "NOT_USED", "SUBMITTED"),
        (3, "NOT_USED", "SUBMITTED"),
    ]
    assert broker.states(ids[0])[-1] == (3, "FINISHED", "FINISHED")
    assert all(document["job_m_replica"] for document in broker.of(COMPLETE))
    assert [d["src_url"] for d in broker.of(COMPLETE)][:3] == ["sim://a/g", "sim://c/g", "sim://d/g"]


def _route() -> JobRequest:
    urls = [f"sim://{host}/f" for host in "abcd"]
    return JobRequest(
        transfers=tuple(Transfer.of(*pair) for pair in itertools.pairwise(urls)), job_type=JobType.MULTIHOP
    )


def test_the_hops_of_a_route() -> None:
    ids: list[str] = []

    async def scenario(engine: TransferEngine, *_: Any) -> None:
        ids.append(await engine.submit(_route()))
        await engine.wait(ids[0])

    broker = run(scenario)
    assert broker.outcomes(ids[0]) == [(1, "Ok", "ACTIVE"), (2, "Ok", "ACTIVE"), (3, "Ok", "FINISHED")]
    found = broker.of(COMPLETE)
    assert [document["transfer_lasthop"] for document in found] == [False, False, True]
    assert {document["final_destination"] for document in found} == {"sim://d"}
    assert all(document["job_multihop"] for document in found)


def test_a_route_that_breaks() -> None:
    ids: list[str] = []

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, _: Any) -> None:
        storages.rule("sim://c/*", operations={"copy"}, error=lambda: Denied("no"))
        ids.append(await engine.submit(_route()))
        await engine.wait(ids[0])

    broker = run(scenario)
    assert broker.outcomes(ids[0]) == [(1, "Ok", "ACTIVE"), (2, "Error", "FAILED")]
    assert broker.states(ids[0])[-1] == (2, "FAILED", "FAILED")


def test_cancellations() -> None:
    ids: list[str] = []

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, _: Any) -> None:
        storages.add_rule(Rule(match="sim://b/*", operations=frozenset({"copy"}), rate_bytes_s=1000.0))
        ids.append(await engine.submit(FILE))
        await asyncio.sleep(5)
        await engine.cancel(ids[0])
        await engine.wait(ids[0])
        await asyncio.sleep(300)
        await engine.control.drain()
        several = Transfer(sources=("sim://a/f", "sim://c/f"), destination="sim://d/f")
        ids.append(await engine.submit(several))
        await engine.cancel(ids[1])
        await asyncio.sleep(5)

    broker = run(scenario)
    assert broker.states(ids[0]) == [
        (1, "SUBMITTED", "SUBMITTED"),
        (1, "ACTIVE", "ACTIVE"),
        (1, "CANCELED", "CANCELED"),
    ], "the cancellation is told when it is ordered, once"
    assert broker.outcomes(ids[0]) == [(1, "Abort", "UNKNOWN")]
    assert broker.outcomes(ids[1]) == [(2, "Abort", "FAILED")], "a replica whose turn never came has no outcome"
    assert broker.states(ids[1])[2:] == [(2, "CANCELED", "ACTIVE"), (3, "CANCELED", "CANCELED")]
    (first, second) = broker.of(COMPLETE)
    assert first["t_final_transfer_state_flag"] == -1
    assert first["t__error_message"] == second["t__error_message"] == "Job canceled by the user"


def _order(broker: ScriptedBroker) -> dict[tuple[str, int], list[str]]:
    """Transfer → its messages, repeated ones left out."""
    found: dict[tuple[str, int], list[str]] = {}
    for topic, document in broker.taken:
        said = f"{topic} {document.get('file_state', '')} {document.get('timestamp', '')}"
        told = found.setdefault((document["job_id"], document["file_id"]), [])
        if said not in told:
            told.append(said)
    return found


async def _submit_many(engine: TransferEngine, storages: ScriptedAdapter, n: int) -> list[str]:
    source = storages.storage("sim://a")
    for number in range(n):
        source.add(f"/m{number}", size_bytes=1_000_000)
    return [await engine.submit(Transfer.of(f"sim://a/m{k}", f"sim://b/m{k}")) for k in range(n)]


@pytest.mark.parametrize("seed", range(3))
def test_a_connection_that_breaks_loses_nothing_and_keeps_the_order(seed: int) -> None:
    rng = random.Random(seed)

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, _: Any) -> None:
        for job_id in await _submit_many(engine, storages, 30):
            await engine.wait(job_id)
        await asyncio.sleep(60)

    whole = run(scenario)
    broken = run(scenario, broker=ScriptedBroker(breaks_at={rng.randrange(1, 140) for _ in range(6)}))
    assert broken.n > whole.n, "something was repeated"
    assert {key: sorted(told) for key, told in _order(broken).items()} == {
        key: sorted(told) for key, told in _order(whole).items()
    }
    for told in _order(broken).values():
        assert [said.split()[0] + said.split()[1][:3] for said in told if "state" in said] == [
            "/topic/stateSUB",
            "/topic/stateACT",
            "/topic/stateFIN",
        ]


def test_transfers_go_on_while_the_broker_is_away_and_everything_is_told_later(caplog: Any) -> None:
    caplog.set_level(logging.WARNING, publisher.__name__)

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, broker: ScriptedBroker) -> None:
        for job_id in await _submit_many(engine, storages, 20):
            assert (await engine.wait(job_id)).state is JobState.FINISHED
        assert engine.companions.troubles() == ["Connection refused"]
        await asyncio.sleep(3600)
        first = await engine.reader.first_event()
        assert first == 1, "what is not published is not pruned"
        assert broker.n == 0
        broker.away = False
        await asyncio.sleep(120)
        assert engine.companions.troubles() == []
        assert len(broker.of(COMPLETE)) == 20
        assert await engine.reader.first_event() == 98, "now it is"

    few = settings("one", "two").model_copy(update={"events": Settings().events.model_copy(update={"keep": 3})})
    broker = run(scenario, broker=ScriptedBroker(away=True), with_=few)
    assert [record.getMessage() for record in caplog.records] == ["messages wait: Connection refused"]
    hosts = [host for _, host in broker.asked]
    assert hosts[:4] == ["one", "two", "one", "two"]
    pauses = [b - a for (a, _), (b, _) in itertools.pairwise(broker.asked)]
    assert max(pauses) < 75
    assert len(hosts) < 200


def test_what_is_too_much_to_be_kept_is_dropped_and_counted(caplog: Any) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, broker: ScriptedBroker) -> None:
        for job_id in await _submit_many(engine, storages, 250):
            await engine.wait(job_id)
        newest = await engine.reader.last_event()
        assert newest == 1250
        await asyncio.sleep(300)
        companion = _publisher(engine)
        assert companion.n_lost == 250
        broker.away = False
        await asyncio.sleep(100)
        assert len(broker.of(COMPLETE)) == 250, "the oldest are gone"
        assert len(broker.of(STATE)) < 600

    bounded = settings(backlog_max=1000)
    run(scenario, broker=ScriptedBroker(away=True), with_=bounded)
    assert any("250 events will not be told" in record.getMessage() for record in caplog.records)


def _publisher(engine: TransferEngine) -> Publisher:
    (found,) = engine.companions._companions
    assert isinstance(found, Publisher)
    return found


def test_an_engine_ends_although_its_broker_does_not_answer() -> None:
    async def scenario(engine: TransferEngine, *_: Any) -> None:
        await engine.wait(await engine.submit(FILE))
        await asyncio.sleep(1)

    run(scenario, broker=ScriptedBroker(hangs=True))


def test_the_next_engine_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    database, broker = str(tmp_path / "t.db"), ScriptedBroker()

    async def main() -> None:
        storages = ScriptedAdapter(rng=random.Random(0))
        for host in "ab":
            storages.storage(f"sim://{host}")
        storages.storage("sim://a").add("/f", size_bytes=1_000_000)
        async with _engine(storages, broker, database=database, seed=1) as engine:
            await engine.wait(await engine.submit(FILE))
        assert len(broker.of(COMPLETE)) == 1, "what is committed is sent before the end"
        broker.away = True
        async with _engine(storages, broker, database=database, seed=2) as engine:
            await engine.wait(await engine.submit(FILE, options=JobOptions(overwrite=True)))
        broker.away = False
        assert len(broker.of(COMPLETE)) == 1
        async with _engine(storages, broker, database=database, seed=3) as engine:
            await asyncio.sleep(3)
            assert await engine._store.kept(CURSOR) == "10"
        assert len(broker.of(COMPLETE)) == 2
        assert broker.n == 10, "nothing twice"

    run_virtual(main)


def test_an_old_database_begins_with_what_happens_now(tmp_path: Path) -> None:
    database, broker = str(tmp_path / "t.db"), ScriptedBroker()

    async def main() -> None:
        storages = ScriptedAdapter(rng=random.Random(0))
        for host in "ab":
            storages.storage(f"sim://{host}")
        storages.storage("sim://a").add("/f", size_bytes=1_000_000)
        async with _engine(storages, broker, Settings(), database, seed=4) as engine:
            await engine.wait(await engine.submit(FILE))
        async with _engine(storages, broker, database=database, seed=5) as engine:
            again = await engine.submit(FILE, options=JobOptions(overwrite=True))
            await engine.wait(again)
        assert [document["job_id"] for document in broker.of(COMPLETE)] == [again]

    run_virtual(main)


def test_a_message_that_cannot_be_made_stops_no_other(caplog: Any) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, _: Any) -> None:
        large = Transfer.of("sim://a/f", "sim://b/f", metadata={"text": "x" * 2_000_000})
        await engine.wait(await engine.submit(large))
        for job_id in await _submit_many(engine, storages, 2):
            await engine.wait(job_id)
        await asyncio.sleep(1)
        assert _publisher(engine).n_unmade == 3

    broker = run(scenario)
    assert len(broker.of(COMPLETE)) == 2
    assert "no message could be made" in caplog.text


def test_topics_that_are_not_wanted_are_not_sent() -> None:
    async def scenario(engine: TransferEngine, *_: Any) -> None:
        await engine.wait(await engine.submit(FILE))

    broker = run(scenario, with_=settings(start="", state=""))
    assert [topic for topic, _ in broker.taken] == [COMPLETE]


def test_a_large_job_is_announced_file_by_file() -> None:
    n = 1200

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter, _: Any) -> None:
        await engine.control.drain()
        files = [Transfer.of(f"sim://a/x{k}", f"sim://b/x{k}") for k in range(n)]
        await engine.submit(files)
        await asyncio.sleep(2)

    broker = run(scenario)
    assert [document["file_id"] for document in broker.of(STATE)] == list(range(1, n + 1))


def test_a_mistake_does_not_end_the_messages(caplog: Any) -> None:
    async def scenario(engine: TransferEngine, *_: Any) -> None:
        store: Any = engine._store
        jobs_by_id, n = store.jobs_by_id, 0

        async def broken(*args: Any, **more: Any) -> Any:
            nonlocal n
            n += 1
            if n <= 2:
                raise KeyError("a mistake")
            return await jobs_by_id(*args, **more)

        store.jobs_by_id = broken
        await engine.wait(await engine.submit(FILE))
        await asyncio.sleep(60)

    broker = run(scenario)
    assert len(broker.of(COMPLETE)) == 1
    assert "messages broke" in caplog.text


def test_a_broker_that_lets_in_and_takes_nothing_is_not_asked_all_the_time(caplog: Any) -> None:
    caplog.set_level(logging.INFO, publisher.__name__)

    class Refusing(ScriptedBroker):
        async def send(self, letters: Sequence[Letter], expires_ms: int) -> None:
            raise BrokerAway("refused: no permission")

    async def scenario(engine: TransferEngine, *_: Any) -> None:
        await engine.wait(await engine.submit(FILE))
        await asyncio.sleep(600)
        assert engine.companions.troubles() == ["refused: no permission"]

    broker = run(scenario, broker=Refusing())
    assert len(broker.asked) < 30
    assert [record.getMessage() for record in caplog.records].count("messages wait: refused: no permission") == 1
