"""Every situation in which a transfer does not move, on the real engine in virtual time, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocols.errors import CopyFailed, Overloaded, Unavailable
from protocols.scripted import Lost, Rule, ScriptedAdapter
from transfer_engine import JobId, Transfer, TransferEngine
from transfer_engine.answers import Explanation
from transfer_engine.config import Settings
from transfer_engine.errors import NotFound, StoreUnavailable
from transfer_engine.model import JobOptions, JobRequest
from transfer_engine.places import Link
from transfer_engine.reasons import Reason, Why
from transfer_engine.states import JobType
from transfer_engine.testing import EPOCH, run
from transfer_engine.views import FileView

GB = 1_000_000_000
A, B = "sim://a", "sim://b"
Scenario = Callable[[TransferEngine, ScriptedAdapter], Awaitable[Any]]


def settings(*, optimizer: bool = False, **more: Any) -> Settings:
    return Settings(**({"optimizer": {"enabled": optimizer}} | more))


def play(scenario: Scenario, *, optimizer: bool = False, **more: Any) -> Any:
    return run(scenario, settings=settings(optimizer=optimizer, **more))


async def submit(
    engine: TransferEngine,
    storages: ScriptedAdapter,
    names: range,
    *,
    source: str = A,
    dest: str = B,
    size: int = 10 * GB,
    activity: str = "default",
    options: JobOptions | None = None,
    vo: str = "local",
    priority: int = 3,
) -> JobId:
    """One job of files of 100 s each."""
    for n in names:
        storages.storage(source).add(f"/{n}", size_bytes=size)
    storages.storage(dest)
    transfers = [Transfer.of(f"{source}/{n}", f"{dest}/{n}", size_bytes=size, activity=activity) for n in names]
    return await engine.submit(transfers, vo=vo, priority=priority, options=options)


async def last(engine: TransferEngine, job_id: JobId) -> Explanation:
    """The explanation of the last transfer of a job; asked alone and with the job it is the same."""
    view = (await engine.files(job_id))[-1]
    alone = await engine.explainer.transfer(view.file_id)
    assert [one for one in await engine.explainer.job(job_id) if one.file_id == view.file_id] in ([alone], [])
    return alone


def now() -> float:
    return EPOCH + asyncio.get_running_loop().time()


def of(found: Explanation, code: Why) -> Reason:
    return next(reason for reason in found.reasons if reason.code is code)


def codes(found: Explanation) -> list[Why]:
    return [reason.code for reason in found.reasons]


# Limits


@pytest.mark.parametrize(
    ("limits", "subject", "words"),
    [
        ({"endpoint_inbound": 2}, "into sim://b", "the inbound limit of sim://b is reached: 2 of 2 are running"),
        ({"endpoint_outbound": 2}, "out of sim://a", "the outbound limit of sim://a is reached: 2 of 2 are running"),
        ({"link": 2}, "sim://a → sim://b", "the limit of the link sim://a → sim://b is reached: 2 of 2 are running"),
        ({"node": 2}, "this node", "the limit of this node is reached: 2 of 2 are running"),
        (
            {"vos": [{"endpoint": B, "vo": "local", "inbound": 2}]},
            "local into sim://b",
            "the limit of local into sim://b is reached: 2 of 2 are running",
        ),
        (
            {"vos": [{"endpoint": A, "vo": "local", "outbound": 2}]},
            "local out of sim://a",
            "the limit of local out of sim://a is reached: 2 of 2 are running",
        ),
    ],
)
def test_a_limit_is_named_with_its_counts_the_place_and_a_forecast(
    limits: dict[str, Any], subject: str, words: str
) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(6))
        await asyncio.sleep(42)
        found = await last(engine, job_id)
        assert (found.moving, found.state) == (False, "SUBMITTED")
        assert found.text == words
        reason = found.reasons[0]
        assert (reason.code, reason.subject, reason.used, reason.limit) == (Why.LIMIT, subject, 2, 2)
        assert codes(found) == [Why.LIMIT, Why.TURN]
        assert (found.n_before, found.bytes_before) == (3, 30 * GB)
        assert found.start_at is not None
        assert found.start_at == pytest.approx(EPOCH + 200, abs=40)
        (link,) = (await engine.explainer.links()).values()
        assert link.reason == reason
        assert (await engine.explainer.link(Link(A, B))).reasons[0] == reason

    play(scenario, limits=limits)


def test_bandwidth_is_a_limit_too() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(6))
        await asyncio.sleep(142)
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (reason.code, reason.subject, reason.limit) == (Why.BANDWIDTH, "into sim://b", 250e6)
        assert reason.used == pytest.approx(200e6, rel=0.01)
        assert found.start_at is not None
        assert found.start_at == pytest.approx(EPOCH + 300, abs=60)

    play(scenario, limits={"endpoints": {B: {"inbound_bytes_s": 250e6}}})


def test_the_optimizers_target_is_named_with_its_reason() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(60))
        await asyncio.sleep(2)
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (reason.code, reason.used, reason.limit) == (Why.OPTIMIZER, 2, 2)
        assert reason.subject == "into sim://b"
        assert "the optimizer lets 2 run at a time" in reason.text
        await asyncio.sleep(15)
        decisions = (await engine.explainer.endpoint(B)).figures["decisions"]
        assert decisions
        assert decisions[-1]["after"] > decisions[-1]["before"]
        assert decisions[-1]["reason"]
        assert decisions[-1]["numbers"]["goodput_bytes_s"] > 0

    play(scenario, optimizer=True)


# Shares, priority, turns


@pytest.mark.parametrize("limits", [{"endpoint_inbound": 4}, {"link": 4}, {"endpoint_outbound": 4}])
def test_whose_share_it_is(limits: dict[str, Any]) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        atlas = await submit(engine, storages, range(6), vo="atlas")
        await asyncio.sleep(5)
        cms = await submit(engine, storages, range(10, 16), vo="cms")
        await asyncio.sleep(25)
        found = await last(engine, atlas)
        assert codes(found) == [Why.LIMIT, Why.SHARE, Why.TURN]
        share = of(found, Why.SHARE)
        assert (share.subject, share.used, share.limit) == ("atlas", 4, 1)
        assert share.text == (
            "atlas has 4 of 4 slots in use into sim://b, and by its weight (1 of 4) a share of 1; cms waits too"
        )
        assert Why.SHARE not in codes(await last(engine, cms))
        later, earlier = (await last(engine, cms)).start_at, (await last(engine, atlas)).start_at
        assert later is not None
        assert earlier is not None

    play(scenario, limits=limits, shares={"vos": {"cms": 3}})


def test_the_share_of_an_activity() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        one = await submit(engine, storages, range(6), activity="user")
        await asyncio.sleep(5)
        await submit(engine, storages, range(10, 16), activity="T0")
        await asyncio.sleep(5)
        share = of(await last(engine, one), Why.SHARE)
        assert (share.subject, share.used, share.limit) == ("user", 2, 1)
        assert share.text.startswith("activity user has 2 of 2 slots in use of local into sim://b")

    play(scenario, limits={"endpoint_inbound": 2})


@pytest.mark.parametrize("limits", [{"endpoint_inbound": 2}, {"link": 2}])
def test_priority(limits: dict[str, Any]) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        low = await submit(engine, storages, range(4), priority=1)
        await asyncio.sleep(5)
        await submit(engine, storages, range(10, 14), priority=5)
        await asyncio.sleep(5)
        found = await last(engine, low)
        assert codes(found) == [Why.LIMIT, Why.PRIORITY, Why.TURN]
        reason = of(found, Why.PRIORITY)
        assert reason.subject == "default"
        assert reason.text.startswith(
            "transfers of priority 5 in activity default are served before those of priority 1"
        )
        await engine.set_priority(low, 5)
        await asyncio.sleep(1)
        assert Why.PRIORITY not in codes(await last(engine, low))

    play(scenario, limits=limits)


def test_who_waits_at_a_source_is_told_which_destination_is_served_first() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        first = await submit(engine, storages, range(6))
        await asyncio.sleep(5)
        await submit(engine, storages, range(10, 16), dest="sim://c")
        await asyncio.sleep(130)
        found = await last(engine, first)
        assert codes(found) == [Why.LIMIT, Why.SHARE, Why.TURN]
        assert found.reasons[0].subject == "out of sim://a"
        share = of(found, Why.SHARE)
        assert share.subject == "sim://c"
        assert share.text.startswith("transfers to sim://c have had less out of sim://a")

    play(scenario, limits={"endpoint_outbound": 3})


def test_only_rivals_for_the_same_slots_are_named() -> None:
    """A VO that waits at its own source takes no share of what another one waits for."""

    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        atlas = await submit(engine, storages, range(6), vo="atlas")
        await submit(engine, storages, range(10, 16), vo="cms", source="sim://c")
        await asyncio.sleep(30)
        found = await last(engine, atlas)
        assert codes(found) == [Why.LIMIT, Why.TURN]
        assert found.reasons[0].subject == "out of sim://a"

    play(scenario, limits={"endpoint_outbound": 2, "endpoint_inbound": 50})


def test_position_counts_those_before_it_in_its_own_queue() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        await submit(engine, storages, range(4))
        job_id = await submit(engine, storages, range(10, 15))
        await submit(engine, storages, range(20, 25), vo="cms")
        await asyncio.sleep(30)
        found = await engine.explainer.job(job_id)
        assert [one.n_before for one in found] == [2, 3, 4, 5, 6]
        turns = [of(one, Why.TURN) for one in found]
        assert [turn.used for turn in turns] == [2, 3, 4, 5, 6]
        assert turns[0].text == "2 transfers of its queue (priority 3) are before it"
        starts = [one.start_at for one in found]
        assert None not in starts
        assert starts == sorted(starts)
        assert [one.n_before for one in await engine.explainer.job(job_id, 2)] == [2, 3]

    play(scenario, limits={"endpoint_inbound": 2})


def test_what_is_about_to_start_says_so() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        store = engine._store
        claim = store.claim

        async def slowly(*given: Any) -> Any:
            await asyncio.sleep(5)
            return await claim(*given)

        store.claim = slowly  # type: ignore[method-assign]
        job_id = await submit(engine, storages, range(3))
        await asyncio.sleep(1)
        found = await engine.explainer.job(job_id)
        assert [one.reasons[0].code for one in found] == [Why.TURN] * 3
        assert found[0].text == "it is the next of its queue and is about to start: nothing keeps it back"
        assert found[0].start_at == now()
        assert found[2].text == "2 transfers of its queue (priority 3) start before it, and nothing keeps them back"
        await asyncio.sleep(5)
        assert all(one.moving for one in await engine.explainer.job(job_id))

    play(scenario)


# Its own state


def test_a_retry_says_when_and_why() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.rule(B, operations={"copy"}, attempts=range(1, 2), error=lambda: CopyFailed("disk is on fire"))
        job_id = await submit(engine, storages, range(1))
        await asyncio.sleep(5)
        (view,) = await engine.files(job_id)
        assert view.retry_at is not None
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (reason.code, reason.until, reason.used) == (Why.RETRY, view.retry_at, 1)
        for place in (await engine.explainer.link(Link(A, B)), await engine.explainer.endpoint(B)):
            assert (place.reasons[0].code, place.reasons[0].until) == (Why.RETRY, view.retry_at)
            assert place.text.startswith("1 transfer waits for a retry after a failed attempt, the first is due at ")
            assert place.figures["delayed"] == 1
        assert reason.text.startswith("attempt 1 failed, the next one is due at 2023-11-14T22:13:")
        assert "disk is on fire" in reason.text
        assert (found.n_before, found.moving) == (None, False)
        assert found.start_at == view.retry_at

    play(scenario)


def test_a_held_job() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(4))
        await asyncio.sleep(1)
        await engine.control.hold(job_id)
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (reason.code, reason.subject) == (Why.HELD, job_id)
        assert found.text == f"job {job_id} is on hold until it is resumed"
        assert (found.start_at, found.unknown) == (None, "the job is on hold, somebody has to resume it")
        assert (await engine.explainer.job(job_id))[0].moving
        await engine.control.ban(A, allow_submit=True)
        assert codes(await last(engine, job_id)) == [Why.BAN, Why.HELD]
        await engine.control.unban(A)
        await engine.control.resume(job_id)
        assert codes(await last(engine, job_id)) == [Why.LIMIT, Why.TURN]

    play(scenario, limits={"link": 2})


def test_a_hop_that_waits_for_the_one_before() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.storage(A).add("/f", size_bytes=10 * GB)
        for dest in (B, "sim://c", "sim://d"):
            storages.storage(dest)
        hops = [Transfer.of(f"{a}/f", f"{b}/f") for a, b in ((A, B), (B, "sim://c"), ("sim://c", "sim://d"))]
        job_id = await engine.submit(JobRequest(transfers=tuple(hops), job_type=JobType.MULTIHOP))
        await asyncio.sleep(10)
        first, second, third = await engine.explainer.job(job_id)
        assert first.moving
        for found in (second, third):
            assert (found.reasons[0].code, found.reasons[0].subject) == (Why.HOP, "sim://a → sim://b")
            assert found.text == (
                f"the first hop of its route has to finish first: transfer {first.file_id} from sim://a to sim://b "
                "is running"
            )
            assert found.unknown == "it depends on the hop before"
        assert await last(engine, job_id) == third
        await asyncio.sleep(100)
        _, third = await engine.explainer.job(job_id)
        assert third.reasons[0].subject == "sim://b → sim://c"
        assert third.text.startswith("hop 2 of its route has to finish first")

    play(scenario)


def test_a_replica_that_waits_for_another_and_is_not_needed_in_the_end() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        sources = (A, "sim://c", "sim://d")
        for source in sources:
            storages.storage(source).add("/f", size_bytes=10 * GB)
        storages.storage(A).add("/g", size_bytes=100 * GB)
        storages.storage(B)
        many = Transfer(
            sources=tuple(f"{source}/f" for source in sources),
            destination=f"{B}/f",
            selection_strategy="orderly",
        )
        job_id = await engine.submit([many, Transfer.of(f"{A}/g", f"{B}/g")])
        await asyncio.sleep(10)
        running, *others, _ = await engine.explainer.job(job_id)
        for found in others:
            assert (found.reasons[0].code, found.reasons[0].subject) == (Why.REPLICA, A)
            assert found.text == (f"another replica is tried first: transfer {running.file_id} from sim://a is running")
        assert await engine.explainer.transfer(others[-1].file_id) == others[-1]
        await asyncio.sleep(100)
        found = await engine.explainer.transfer(others[-1].file_id)
        assert found.reasons[0].code is Why.ENDED
        assert found.text == f"it is not needed: transfer {running.file_id} has copied the file"

    play(scenario)


def test_a_destination_that_another_transfer_writes() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.storage(A).add("/f", size_bytes=10 * GB)
        storages.storage(B)
        options = JobOptions(overwrite=True)
        one = await engine.submit(Transfer.of(f"{A}/f", f"{B}/f"), options=options)
        other = await engine.submit(Transfer.of(f"{A}/f", f"{B}/f"), options=options)
        await asyncio.sleep(20)
        (writing,) = await engine.files(one)
        found = await last(engine, other)
        reason = found.reasons[0]
        assert (reason.code, reason.subject) == (Why.DESTINATION, f"{B}/f")
        assert found.text == f"transfer {writing.file_id} is writing the same destination, and has to end first"
        assert found.start_at == pytest.approx(EPOCH + 100, abs=15)
        link = await engine.explainer.link(Link(A, B))
        assert (link.reasons[0].code, link.kept[0]) == (Why.DESTINATION, 1)

    play(scenario)


def test_what_runs_shows_its_bytes_and_its_end() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(1))
        await asyncio.sleep(51)
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (found.moving, found.state, reason.code) == (True, "ACTIVE", Why.RUNNING)
        assert (reason.used, reason.limit) == (pytest.approx(5 * GB, rel=0.01), 10 * GB)
        assert found.text == "attempt 1 runs for 51 s: 5 GB of 10 GB copied (copying, pull)"
        assert found.finish_at == pytest.approx(EPOCH + 100, abs=3)

    play(scenario)


def test_what_looks_at_its_source_says_so() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.rule(A, operations={"stat"}, latency_s=20)
        job_id = await submit(engine, storages, range(1))
        await asyncio.sleep(10)
        found = await last(engine, job_id)
        assert found.text == "attempt 1 runs for 10 s: the source is looked at"
        assert found.unknown is not None

    play(scenario)


def test_a_copy_through_this_process_waits_for_its_turn() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(3), options=JobOptions(modes=("stream",)))
        await asyncio.sleep(10)
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (reason.code, reason.used, reason.limit) == (Why.LIMIT, 2, 2)
        assert found.text == "2 copies go through this process, which is all that may at a time"
        assert (found.moving, found.state) == (False, "ACTIVE")

    play(scenario, limits={"streamed": 2})


def test_a_lost_attempt_that_is_probed() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.rule(B, operations={"copy"}, attempts=range(1, 2), lost=Lost.GOES_ON)
        job_id = await submit(engine, storages, range(1))
        await asyncio.sleep(60)
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (found.state, reason.code, reason.subject) == ("VERIFYING", Why.PROBING, B)
        assert found.text == "its attempt was lost; its destination is looked at until the outcome is clear"
        assert not found.moving

    play(scenario)


def test_a_cancellation_under_way() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(1))
        await asyncio.sleep(20)
        await engine.cancel(job_id)
        found = await last(engine, job_id)
        assert (found.state, found.reasons[0].code, found.reasons[0].subject) == ("CANCELING", Why.CANCELING, B)
        assert found.text == "it was cancelled; what it wrote is being removed"

    play(scenario)


def test_what_has_ended_says_how() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(1), size=1000)
        bad = await engine.submit(Transfer.of(f"{A}/none", f"{B}/none"))
        await engine.wait(job_id)
        await engine.wait(bad)
        found = await last(engine, job_id)
        assert (found.reasons[0].code, found.state) == (Why.ENDED, "FINISHED")
        assert found.text.startswith("it has ended at 2023-11-14T22:13:2")
        assert (await last(engine, bad)).text.startswith("it has ended at 2023-11-14T22:13:20Z as FAILED: SOURCE")
        assert await engine.explainer.job(job_id) == []
        with pytest.raises(NotFound):
            await engine.explainer.transfer(found.file_id + 100)  # type: ignore[operator,arg-type]

    play(scenario)


def test_a_deadline_is_shown_to_what_waits() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        options = JobOptions(deadline_at=EPOCH + 150)
        job_id = await submit(engine, storages, range(4), options=options)
        await asyncio.sleep(10)
        found = await last(engine, job_id)
        assert found.deadline_at == EPOCH + 150
        assert (await engine.explainer.job(job_id))[0].deadline_at is None
        await asyncio.sleep(150)
        assert (await last(engine, job_id)).reasons[0].code is Why.ENDED

    play(scenario, limits={"link": 1})


# Orders


def test_a_ban_of_an_endpoint_comes_first_with_who_and_why() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(4))
        await asyncio.sleep(11)
        await engine.control.ban(B, allow_submit=True, for_s=3600, message="disk broken", by="alice")
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (reason.code, reason.subject, reason.until) == (Why.BAN, B, EPOCH + 3611)
        assert (reason.used, reason.limit) == (2, 0)
        assert found.text == (
            "sim://b is banned by alice since 2023-11-14T22:13:31Z until 2023-11-14T23:13:31Z: disk broken"
        )
        assert found.start_at is not None
        assert found.start_at >= EPOCH + 3611
        assert (await engine.explainer.endpoint(B)).reasons[0] == reason
        assert (await engine.explainer.endpoint(A)).reasons[0].code is Why.BAN

    play(scenario, limits={"link": 2})


def test_a_ban_without_an_end_has_no_forecast() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        await engine.control.ban(A, allow_submit=True)
        job_id = await submit(engine, storages, range(1))
        await asyncio.sleep(1)
        found = await last(engine, job_id)
        assert found.reasons[0].code is Why.BAN
        assert (found.start_at, found.finish_at) == (None, None)
        assert found.unknown == "the ban has no end, somebody has to lift it"
        (link,) = (await engine.explainer.links()).values()
        assert (link.start_at, link.finish_at) == (None, None)

    play(scenario)


def test_a_ban_of_a_vo() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        await engine.control.ban(B, vo="cms", allow_submit=True)
        cms = await submit(engine, storages, range(1), vo="cms")
        atlas = await submit(engine, storages, range(1, 2), vo="atlas")
        await asyncio.sleep(1)
        found = await last(engine, cms)
        assert found.reasons[0].code is Why.BAN
        assert found.text.startswith("sim://b is banned for VO cms by local since")
        assert (await last(engine, atlas)).moving
        assert (await engine.explainer.endpoint(B)).reasons[0].code is Why.BAN

    play(scenario)


def test_a_retry_under_a_ban_names_what_lasts_longer() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.rule(B, operations={"copy"}, attempts=range(1, 2), error=lambda: CopyFailed("no"))
        job_id = await submit(engine, storages, range(1), options=JobOptions(retry_delay_s=600))
        await asyncio.sleep(5)
        await engine.control.ban(B, allow_submit=True, for_s=60)
        assert codes(await last(engine, job_id)) == [Why.RETRY, Why.BAN]
        await engine.control.ban(B, allow_submit=True)
        assert codes(await last(engine, job_id)) == [Why.BAN, Why.RETRY]

    play(scenario)


def test_a_draining_node() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        await engine.control.drain(by="bob")
        job_id = await submit(engine, storages, range(1))
        await asyncio.sleep(1)
        found = await last(engine, job_id)
        assert found.reasons[0].code is Why.DRAINING
        assert found.text.startswith("this node is draining by order of bob since 2023-11-14T22:13:20Z")
        assert found.start_at is None
        assert found.unknown == "the node starts nothing now"
        assert (await engine.explainer.link(Link(A, B))).reasons[0].code is Why.DRAINING

    play(scenario)


# Trouble


def test_an_open_breaker_says_until_when() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        down = storages.rule(B, error=lambda: Unavailable("connection refused"))
        job_id = await submit(engine, storages, range(40))
        reason = None
        for _ in range(100):
            await asyncio.sleep(1)
            found = await engine.explainer.endpoint(B)
            reason = found.reasons[0]
            if reason.code is Why.BREAKER and reason.until is not None:
                break
        assert reason is not None
        assert (reason.code, reason.limit, reason.subject) == (Why.BREAKER, 0, B)
        assert reason.until is not None
        assert reason.until > now()
        assert "sim://b" in reason.text
        assert "connection refused" in reason.text
        mine = await last(engine, job_id)
        assert Why.BREAKER in codes(mine)
        assert mine.start_at is None
        assert mine.unknown == "nothing has been copied there yet, so nobody knows how long a transfer takes"
        first = (await engine.explainer.job(job_id))[0].start_at
        assert first is not None
        assert first >= reason.until
        (row, *_) = [row for row in engine.explainer.troubles() if row.place.kind == "in"]
        assert row.state == "open"
        storages.remove_rule(down)
        await asyncio.sleep(3600)
        assert (await engine.job(job_id)).n_failed == 0

    play(scenario, retry={"delay_s": 1})


def test_a_pause_that_a_storage_asked_for_is_as_long_as_it_asked_last() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        waits = iter([100.0, 300.0, 300.0, 300.0])

        def busy() -> Overloaded:
            return Overloaded("come back later", retry_after_s=next(waits))

        storages.add_rule(
            Rule(match=f"{B}/0", operations=frozenset({"copy"}), attempts=range(1, 2), error=busy, latency_s=1)
        )
        storages.add_rule(
            Rule(match=f"{B}/1", operations=frozenset({"copy"}), attempts=range(1, 2), error=busy, latency_s=9)
        )
        job_id = await submit(engine, storages, range(6))
        await asyncio.sleep(20)
        found = await last(engine, job_id)
        reason = found.reasons[0]
        assert (reason.code, reason.subject, reason.limit) == (Why.PAUSE, B, 0)
        assert reason.until == pytest.approx(EPOCH + 309, abs=3)
        assert "come back later" in reason.text
        assert "nothing is begun meanwhile" in reason.text
        first = next(one.start_at for one in await engine.explainer.job(job_id) if one.n_before == 0)
        assert first == reason.until

    play(scenario, limits={"link": 2})


def test_a_database_that_takes_no_changes() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        await engine.control.drain()
        job_id = await submit(engine, storages, range(1))
        await asyncio.sleep(1)
        store = engine._store
        claim = store.claim

        async def fails(*_: Any) -> Any:
            raise StoreUnavailable("disk is full")

        store.claim = fails  # type: ignore[method-assign]
        await engine.control.drain(False)
        await asyncio.sleep(1)
        found = await last(engine, job_id)
        assert found.reasons[0].code is Why.STORE
        assert found.text == "the database takes no changes: disk is full"
        assert found.unknown == "the database does not answer"
        assert (await engine.explainer.link(Link(A, B))).reasons[0].code is Why.STORE
        store.claim = claim  # type: ignore[method-assign]
        await asyncio.sleep(5)
        assert (await last(engine, job_id)).moving

    play(scenario)


def test_a_database_that_cannot_be_read_is_an_error() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(1))
        (view,) = await engine.files(job_id)

        async def fails(*_: Any) -> FileView:
            raise StoreUnavailable("gone")

        engine.reader.file = fails  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await engine.explainer.transfer(view.file_id)
        assert (await engine.explainer.link(Link(A, B))).figures["known"]

    play(scenario)


# Places


def test_nothing_is_known_of_what_nobody_has_named() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        await asyncio.sleep(1)
        found = await engine.explainer.endpoint("sim://nowhere")
        assert (found.reasons[0].code, found.figures["known"], found.moving) == (Why.IDLE, False, False)
        assert found.text == "nothing is known of sim://nowhere: no transfer has named it since the engine started"
        assert (await engine.explainer.link(Link("sim://x", "sim://y"))).figures["known"] is False
        await engine.control.ban("sim://nowhere")
        found = await engine.explainer.endpoint("sim://nowhere")
        assert found.reasons[0].code is Why.BAN

    play(scenario)


def test_a_place_that_is_well_says_how_much_runs() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        job_id = await submit(engine, storages, range(2))
        await asyncio.sleep(30)
        found = await engine.explainer.endpoint(A)
        assert (found.text, found.moving) == ("2 transfers are running, nothing waits", True)
        assert found.finish_at == pytest.approx(EPOCH + 100, abs=10)
        await engine.wait(job_id)
        found = await engine.explainer.endpoint(A)
        assert (found.text, found.reasons[0].code) == ("nothing is running, nothing waits", Why.IDLE)
        assert found.figures["known"]

    play(scenario)


def test_a_link_counts_whom_each_reason_keeps_back() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        await submit(engine, storages, range(7), vo="atlas")
        await submit(engine, storages, range(10, 15), vo="cms")
        await asyncio.sleep(10)
        found = await engine.explainer.link(Link(A, B))
        assert [(reason.subject, n) for reason, n in zip(found.reasons, found.kept, strict=True)] == [
            ("atlas into sim://b", 6),
            ("cms into sim://b", 3),
        ]
        limits = {
            row["place"]: (row["used"], row["limit"]) for row in (await engine.explainer.endpoint(B)).figures["places"]
        }
        assert limits["into sim://b"] == (3, 60)
        assert limits["cms into sim://b"] == (2, 2)

    vos = [{"endpoint": B, "vo": vo, "inbound": n} for vo, n in (("atlas", 1), ("cms", 2))]
    play(scenario, limits={"vos": vos})


# Forecasts


@pytest.mark.parametrize(
    ("limits", "vos", "sources"),
    [
        ({"endpoint_inbound": 8}, ("local",), 1),
        ({"endpoint_inbound": 8}, ("atlas", "cms"), 1),
        ({"endpoint_inbound": 12}, ("local",), 3),
        ({"endpoint_outbound": 4}, ("local",), 2),
        ({"endpoints": {B: {"inbound_bytes_s": 650e6}}}, ("local",), 1),
    ],
)
def test_starts_and_ends_come_true(limits: dict[str, Any], vos: tuple[str, ...], sources: int) -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        jobs = []
        for index in range(sources):
            for vo in vos:
                first = 1000 * len(jobs)
                source = f"sim://a{index}"
                names = range(first, first + 120)
                jobs.append(await submit(engine, storages, names, source=source, vo=vo, size=2 * GB))
        told: list[tuple[float, Explanation]] = []
        for _ in range(3):
            await asyncio.sleep(47)
            for job_id in jobs:
                told += [(now(), one) for one in await engine.explainer.job(job_id) if one.state == "SUBMITTED"]
        for job_id in jobs:
            await engine.wait(job_id)
        slot_s = 20.0
        for at, one in told:
            assert one.file_id is not None
            view = await engine.reader.file(one.file_id)
            assert one.start_at is not None
            assert one.finish_at is not None
            assert view.started_at is not None
            assert view.finished_at is not None
            # One round of slots is what a fluid cannot see; a fifth of the wait is the promise.
            assert abs(one.start_at - view.started_at) <= max(0.2 * (view.started_at - at), slot_s)
            assert abs(one.finish_at - view.finished_at) <= max(0.2 * (view.finished_at - at), slot_s)

    play(scenario, limits=limits)


def test_without_experience_nothing_is_predicted_and_that_is_said() -> None:
    async def scenario(engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.add_rule(Rule(match=B, operations=frozenset({"copy"}), silent=True))
        job_id = await submit(engine, storages, range(4))
        await asyncio.sleep(30)
        found = await last(engine, job_id)
        assert (found.start_at, found.finish_at) == (None, None)
        assert found.unknown == "nothing has been copied there yet, so nobody knows how long a transfer takes"
        link = await engine.explainer.link(Link(A, B))
        assert (link.start_at, link.finish_at, link.unknown) == (None, None, found.unknown)
        await engine.control.ban(A)
        link = await engine.explainer.link(Link(A, B))
        assert link.unknown == "the ban has no end, somebody has to lift it"

    play(scenario, limits={"link": 2})
