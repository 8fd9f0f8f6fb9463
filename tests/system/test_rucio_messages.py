"""A real Rucio learns what became of its transfers from a real broker: its conveyor-receiver, and no poller."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import stomp

from tests.broker import PASSWORD, USER, RealBroker
from tests.clients.fixtures import clients
from tests.clients.lake import CONFIG, Lake, running_lake
from tests.conftest import LazyStorages
from tests.storages.process import CannotRun
from tests.system.processes import poll_until

__all__ = ["clients"]

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(180)]

TOPIC = "/topic/transfer.fts_monitoring_complete"
MESSAGES = """
[messages]
username = "{user}"
password = "{password}"
vhost = "/"
[[messages.brokers]]
host = "127.0.0.1"
port = {port}
"""
VO = "local"
"""Of the service's own callers on loopback."""


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest, clients: None, storages: LazyStorages) -> Iterator[RealBroker]:
    """One broker for all tests of the module."""
    # Not pytest's own directories: the broker runs as another user, who cannot enter those of root.
    with tempfile.TemporaryDirectory(prefix="te") as directory:
        Path(directory).chmod(0o755)
        running = RealBroker(Path(directory) / "broker", storages.authority)
        try:
            running.start()
        except CannotRun as error:
            if request.config.getoption("--require-real"):
                pytest.fail(str(error), pytrace=False)
            pytest.skip(str(error))
        try:
            yield running
        finally:
            running.stop()


def lake_with(broker: RealBroker, directory: Path, storages: LazyStorages) -> AbstractAsyncContextManager[Lake]:
    """Rucio listens to the broker, and the service speaks to it."""
    receiver = {
        "brokers": "127.0.0.1",
        "port": broker.port,
        "use_ssl": False,
        "username": USER,
        "password": PASSWORD,
        "broker_virtual_host": "/",
        "destination": TOPIC,
        "voname": VO,
    }
    config = CONFIG + MESSAGES.format(user=USER, password=PASSWORD, port=broker.port)
    return running_lake(directory, storages, more={"messaging-fts3": receiver}, config=config)


async def listen(lake: Lake, broker: RealBroker) -> None:
    """Start the receiver, and wait until a message reaches it: who subscribes to a topic later misses what was sent."""
    await lake.rucio.call("start_receiver")
    request_id = uuid.uuid4().hex
    message = {
        "vo": VO,
        "job_state": "UNKNOWN",
        "job_metadata": {"issuer": "rucio"},
        "file_metadata": {"request_id": request_id},
        "tr_id": "a__b__c__1__d",
        "t_final_transfer_state": "Ok",
    }
    connection = stomp.Connection12([("127.0.0.1", broker.port)], vhost="/")
    connection.connect(USER, PASSWORD, wait=True)

    async def heard() -> bool:
        connection.send(TOPIC, json.dumps(message))
        return f"{request_id}: no request with this id in the database" in lake.rucio.log()

    await poll_until(heard, within_s=30)
    connection.disconnect()


async def test_a_rule_comes_to_ok_by_messages(broker: RealBroker, tmp_path: Path, storages: LazyStorages):
    async with lake_with(broker, tmp_path, storages) as lake:
        await listen(lake, broker)
        _, data = await lake.place("told")
        rule_id = await lake.rucio.call("add_rule", "told", "RSE2|RSE3", 2)
        rule = await lake.rule(rule_id, "OK", poll=False)
        assert (rule["locks_ok_cnt"], rule["requests"]) == (2, [])
        for rse in ("RSE2", "RSE3"):
            assert lake.storages[rse].read(await lake.path(rse, "told")) == data
        assert "RECEIVED" in lake.rucio.log()


async def test_a_failure_comes_by_messages(broker: RealBroker, tmp_path: Path, storages: LazyStorages):
    async with lake_with(broker, tmp_path, storages) as lake:
        await listen(lake, broker)
        await lake.place("untold", there=False)
        rule_id = await lake.rucio.call("add_rule", "untold", "RSE2", 1)
        rule = await lake.rule(rule_id, "STUCK", poll=False)
        assert "SOURCE [2] " in rule["error"]
        # One completion for each attempt would let Rucio give up while the engine still tries.
        assert [job["job_state"] for job in await lake.ended_jobs()] == ["FAILED"] * 4


async def test_a_way_over_another_storage_is_told_hop_by_hop(
    broker: RealBroker, tmp_path: Path, storages: LazyStorages
):
    async with lake_with(broker, tmp_path, storages) as lake:
        await listen(lake, broker)
        _, data = await lake.place("hops")
        await lake.rucio.call("set_attribute", "RSE2", "available_for_multihop", True)
        await lake.rucio.call("cut_link", "RSE1", "RSE3")
        rule_id = await lake.rucio.call("add_rule", "hops", "RSE3", 1)
        await lake.rule(rule_id, "OK", poll=False)
        assert lake.storages["RSE3"].read(await lake.path("RSE3", "hops")) == data
        (job,) = await lake.ended_jobs()
        assert (job["job_type"], job["job_state"]) == ("H", "FINISHED")


async def test_several_sources_are_told_once(broker: RealBroker, tmp_path: Path, storages: LazyStorages):
    async with lake_with(broker, tmp_path, storages) as lake:
        await listen(lake, broker)
        data = await lake.place_at_second_only("several")
        rule_id = await lake.rucio.call("add_rule", "several", "RSE3", 1)
        await lake.rule(rule_id, "OK", poll=False)
        assert lake.storages["RSE3"].read(await lake.path("RSE3", "several")) == data
        (job,) = await lake.ended_jobs()
        assert (job["job_type"], job["job_state"]) == ("R", "FINISHED")
