"""A real Rucio on storages that do not exist: `mock://`, as its own conveyor tests have them against a real FTS3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients import Worker
from tests.clients.fixtures import clients
from tests.clients.rucio import write_config
from tests.storages.process import free_port
from tests.system.processes import ServiceProcess, poll_until

__all__ = ["clients"]

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = """
[transfer]
mock = true
[tls]
discover = false
"""
NAMES = ("MOCK1", "MOCK2", "MOCK3")


async def came_to(rucio: Worker, rule_id: str, state: str) -> Any:
    seen: Any = {}

    async def there() -> bool:
        await rucio.call("submit")
        await rucio.call("settle")
        seen.update(await rucio.call("look", rule_id))
        return seen["state"] == state

    try:
        await poll_until(there, within_s=40, every_s=0.2)
    except TimeoutError:
        pytest.fail(f"the rule is not {state}: {seen}")
    return seen


async def test_rules_over_storages_that_do_not_exist(clients: None, tmp_path: Path):
    (tmp_path / "service.toml").write_text(CONFIG)
    service = ServiceProcess(tmp_path / "queue.sqlite", tmp_path / "service.toml", free_port(set()))
    async with service, Worker("rucio_site", tmp_path, write_config(tmp_path)) as rucio:
        await service.start()
        await rucio.call("bootstrap")
        for number, name in enumerate(NAMES):
            host = f"mock{number}.example"
            await rucio.call("add_rse", name, "mock", host, 1094, service.url, "/data/", impl="posix")
            # These storages know no checksums, and Rucio's own tests say so of them.
            await rucio.call("set_attribute", name, "verify_checksum", False)
        await rucio.call("set_attribute", "MOCK2", "available_for_multihop", True)
        await rucio.call("add_file", "MOCK1", "one", 1000, "0123abcd")
        rule = await came_to(rucio, await rucio.call("add_rule", "one", "MOCK2|MOCK3", 2), "OK")
        assert rule["locks_ok_cnt"] == 2
        await rucio.call("cut_link", "MOCK1", "MOCK3")
        await rucio.call("add_file", "MOCK1", "two", 1000, "0123abcd")
        rule = await came_to(rucio, await rucio.call("add_rule", "two", "MOCK3", 1), "OK")
        assert rule["locks_ok_cnt"] == 1
