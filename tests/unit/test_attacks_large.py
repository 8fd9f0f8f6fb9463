"""One user, or some, with a dozen large bodies at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import pytest

from tests.service import running_service
from transfer_engine.callers import LOCAL_TOKEN, UNAUTHENTICATED, Caller
from transfer_engine.identity.api import TooMany
from transfer_engine.service.large import AT_ONCE, LARGE_BYTES, LargeBodies

pytestmark = pytest.mark.asyncio


@dataclass
class Sent:
    content_length: int | None = LARGE_BYTES + 1
    body_exists: bool = True


def user(name: str, delegation_id: str = "a" * 16, method: str = LOCAL_TOKEN) -> Caller:
    return Caller(user_dn=name, vos=("cms",), delegation_id=delegation_id, method=method)


class Crowd:
    """Requests that are under way."""

    def __init__(self, wait_s: float = 60.0) -> None:
        self.bodies = LargeBodies(wait_s=wait_s)
        self.inside = 0
        self.most = 0
        self.leave = asyncio.Event()

    async def send(self, caller: Caller, sent: Any = None) -> None:
        async with self.bodies.turn(cast("Any", sent or Sent()), caller):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.leave.wait()
            self.inside -= 1

    async def all(self, callers: list[Caller], sent: Any = None) -> None:
        """Each sends one, all of them at a time; ends when all are through."""
        tasks = [asyncio.create_task(self.send(caller, sent)) for caller in callers]
        for _ in range(5):
            await asyncio.sleep(0)
        self.leave.set()
        await asyncio.gather(*tasks)


async def test_a_job_that_is_named_many_times_is_shown_once() -> None:
    async with running_service() as service:
        file = {"sources": ["https://a.example/f"], "destinations": ["https://b.example/f"]}
        _, submitted = await service.call("POST", "/jobs", {"files": [file]})
        job_id = submitted["job_id"]
        status, shown = await service.call("GET", f"/jobs/{','.join([job_id] * 300)}?files=file_id")
        assert (status, [job["job_id"] for job in shown]) == (200, [job_id])


async def test_one_user_sends_one_at_a_time_with_whichever_credential() -> None:
    crowd = Crowd()
    await crowd.all([user("mallory", f"{n:016}") for n in range(12)])
    assert crowd.most == 1


async def test_all_together_send_a_few_at_a_time() -> None:
    crowd = Crowd()
    await crowd.all([user(f"user {n}") for n in range(12)])
    assert crowd.most == AT_ONCE


@pytest.mark.parametrize("sent", [Sent(content_length=LARGE_BYTES), Sent(content_length=None, body_exists=False)])
async def test_small_requests_do_not_wait(sent: Sent) -> None:
    crowd = Crowd()
    await crowd.all([user("alice")] * 12, sent)
    assert crowd.most == 12


async def test_a_body_of_unknown_length_is_a_large_one() -> None:
    crowd = Crowd()
    await crowd.all([user("alice")] * 3, Sent(content_length=None))
    assert crowd.most == 1


async def test_strangers_take_nobodys_turn() -> None:
    crowd = Crowd()
    await crowd.all([user("anon", "", UNAUTHENTICATED)] * 12)
    assert crowd.most == 12


async def test_nobody_waits_for_ever_and_turns_come_back() -> None:
    crowd = Crowd(wait_s=0.01)
    first = asyncio.create_task(crowd.send(user("mallory")))
    await asyncio.sleep(0)
    with pytest.raises(TooMany):
        await crowd.send(user("mallory"))
    assert crowd.inside == 1
    crowd.leave.set()
    await first
    await crowd.send(user("mallory"))
