"""Runs of `cp` on scripted storages in virtual time: how they end, what they say, and interrupts at any moment."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from protocols.api import ANONYMOUS, Entry
from protocols.errors import Denied, Unavailable
from protocols.scripted import Rule, ScriptedAdapter
from transfer_engine import TransferEngine
from transfer_engine.cli import copy
from transfer_engine.cli.copyrun import CLEAN_MORE_S, CopyRun
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import Stop
from transfer_engine.cli.plan import CopyOptions, Pair, Planner
from transfer_engine.config import Settings
from transfer_engine.testing import run

QUARANTINE_S = 15.0
SIZE = 1_000_000


async def listed(*names: str) -> AsyncIterator[Pair]:
    for name in names:
        yield Pair(f"sim://a/{name}", f"sim://b/{name}", SIZE)


def fill(storages: ScriptedAdapter, *names: str) -> None:
    for name in names:
        storages.storage("sim://a").add(f"/{name}", size_bytes=SIZE)
    storages.storage("sim://b")


def slow(storages: ScriptedAdapter, bytes_s: float) -> None:
    storages.add_rule(Rule(match="sim://b", operations=frozenset({"copy"}), rate_bytes_s=bytes_s))


def carry_out(
    scenario: Callable[[CopyRun, TransferEngine, ScriptedAdapter], Awaitable[Any]],
    *names: str,
    settings: Settings | None = None,
    pairs: AsyncIterator[Pair] | None = None,
    **options: Any,
) -> Any:
    """Run `scenario` beside a `cp` of these files, which exist."""

    async def main(engine: TransferEngine, storages: ScriptedAdapter) -> Any:
        fill(storages, *names)
        one = CopyRun(engine, pairs or listed(*names), CopyOptions(**options), QUARANTINE_S)
        return await scenario(one, engine, storages)

    return run(main, settings=settings)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_quiet_when_all_is_well_and_nobody_looks(capsys):
    async def scenario(one: CopyRun, _engine: TransferEngine, storages: ScriptedAdapter) -> None:
        assert await one.to_end() is Exit.OK
        assert set(storages.storage("sim://b").files()) == {"/x", "/y"}

    carry_out(scenario, "x", "y")
    assert capsys.readouterr() == ("", "")


def test_json_tells_every_change_then_every_file_then_the_sum(capsys):
    async def scenario(one: CopyRun, *_: Any) -> None:
        assert await one.to_end() is Exit.OK

    carry_out(scenario, "x", "y", as_json=True)
    told = lines(capsys)
    assert [line["event"] for line in told[-3:]] == ["file", "file", "summary"]
    assert [line["state"] for line in told if line["event"] == "transfer"].count("FINISHED") == 2
    assert [line["state"] for line in told if line["event"] == "job"] == ["SUBMITTED", "ACTIVE", "FINISHED"]
    assert told[-3]["verified"] == "size+checksum"
    summary = {key: told[-1][key] for key in ("files", "finished", "failed", "canceled", "bytes", "exit_code")}
    assert summary == {"files": 2, "finished": 2, "failed": 0, "canceled": 0, "bytes": 2 * SIZE, "exit_code": 0}


@pytest.mark.parametrize(("n_missing", "expected"), [(1, Exit.SOME_FAILED), (2, Exit.NOT_FOUND)])
def test_failures_are_said_with_code_reason_and_hint(capsys, n_missing: int, expected: Exit):
    async def scenario(one: CopyRun, _engine: TransferEngine, storages: ScriptedAdapter) -> None:
        for name in ("x", "y")[:n_missing]:
            storages.storage("sim://a").remove(f"/{name}")
        assert await one.to_end() is expected

    carry_out(scenario, "x", "y")
    told = capsys.readouterr()
    assert told.err.count(": MISSING: SOURCE [2]") == n_missing
    assert told.err.count("check the path") == n_missing
    assert f"{2 - n_missing} of 2 files copied" in told.out


@pytest.mark.parametrize(
    ("error", "expected"), [(lambda: Denied("no"), Exit.DENIED), (lambda: Unavailable("no"), Exit.TEMPORARY)]
)
def test_the_exit_code_says_what_went_wrong(error: Callable[[], Exception], expected: Exit):
    async def scenario(one: CopyRun, _engine: TransferEngine, storages: ScriptedAdapter) -> None:
        storages.rule("sim://b", operations={"copy"}, error=error)
        assert await one.to_end() is expected

    carry_out(scenario, "x", quiet=True)


def test_nothing_to_copy():
    async def scenario(one: CopyRun, *_: Any) -> None:
        with pytest.raises(Stop, match="nothing to copy") as caught:
            await one.to_end()
        assert caught.value.code is Exit.NOT_FOUND

    carry_out(scenario)


@pytest.mark.parametrize("after_s", [0.0, 0.001, 1.0, 4.0, 9.0])
@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_leaves_no_remains(capsys, after_s: float, as_json: bool):
    """Whatever was being done, what is at the destination afterwards is whole."""

    async def scenario(one: CopyRun, engine: TransferEngine, storages: ScriptedAdapter) -> None:
        slow(storages, SIZE / 5)
        loop = asyncio.get_running_loop()
        loop.call_later(after_s, one.interrupt)
        assert await one.to_end() is Exit.INTERRUPTED
        assert not engine.running()
        assert loop.time() < after_s + 2 * QUARANTINE_S
        assert all(file.size_bytes == SIZE for file in storages.storage("sim://b").files().values())

    carry_out(scenario, "x", "y", "z", settings=Settings(limits={"node": 1}), as_json=as_json)
    told = capsys.readouterr()
    if as_json:
        summary = json.loads(told.out.splitlines()[-1])
        assert summary["exit_code"] == 130
        # An interrupt can come before the job is accepted.
        assert summary["finished"] + summary["canceled"] in {0, 3}
        assert summary["finished"] == (after_s > 5)
    else:
        assert told.out.startswith("interrupted: ")


def test_a_signal_interrupts(capsys):
    async def scenario(one: CopyRun, *_: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, signal.raise_signal, signal.SIGTERM)
        assert await one.to_end() is Exit.INTERRUPTED

    carry_out(scenario, "x", quiet=True)


def test_the_second_interrupt_leaves_at_once_and_names_what_may_be_incomplete(capsys):
    async def scenario(one: CopyRun, _engine: TransferEngine, storages: ScriptedAdapter) -> None:
        slow(storages, 1000)
        loop = asyncio.get_running_loop()
        loop.call_later(5, one.interrupt)
        loop.call_later(6, one.interrupt)
        assert await one.to_end() is Exit.INTERRUPTED
        assert loop.time() < 7

    carry_out(scenario, "x")
    told = capsys.readouterr().err
    assert "another Ctrl-C leaves at once" in told
    assert "sim://b/x: may be incomplete: remove it" in told


def test_an_interrupt_does_not_wait_for_a_dead_storage(capsys):
    async def scenario(one: CopyRun, _engine: TransferEngine, storages: ScriptedAdapter) -> None:
        slow(storages, 1000)
        loop = asyncio.get_running_loop()

        def die() -> None:
            storages.rule("sim://b", operations={"stat", "delete"}, error=lambda: Unavailable("gone"))
            one.interrupt()

        loop.call_later(5, die)
        assert await one.to_end() is Exit.INTERRUPTED
        assert loop.time() < 5 + QUARANTINE_S + CLEAN_MORE_S + 1

    carry_out(scenario, "x")
    assert "sim://b/x: may be incomplete" in capsys.readouterr().err


def test_a_tree_that_breaks_off_is_cleaned_up(capsys, monkeypatch: pytest.MonkeyPatch):
    """What was handed in before the listing failed is taken back."""
    monkeypatch.setattr("transfer_engine.cli.copyrun.JOB_FILES", 1)

    async def broken() -> AsyncIterator[Pair]:
        yield Pair("sim://a/x", "sim://b/x", SIZE)
        await asyncio.sleep(5)
        raise Stop("sim://a/ cannot be listed", Exit.DENIED)

    async def scenario(one: CopyRun, engine: TransferEngine, storages: ScriptedAdapter) -> None:
        slow(storages, 1000)
        with pytest.raises(Stop, match="cannot be listed"):
            await one.to_end()
        assert not engine.running()
        assert storages.storage("sim://b").files() == {}

    carry_out(scenario, "x", pairs=broken())


def test_nobody_reads_the_lines_any_more(monkeypatch: pytest.MonkeyPatch):
    """As for other tools at the head of a pipe: the work ends, and leaves nothing."""

    def gone(_value: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("transfer_engine.cli.copyrun.put_json", gone)

    async def scenario(one: CopyRun, engine: TransferEngine, storages: ScriptedAdapter) -> None:
        slow(storages, 1000)
        with pytest.raises(BrokenPipeError):
            await one.to_end()
        assert not engine.running()
        assert storages.storage("sim://b").files() == {}

    carry_out(scenario, "x", as_json=True)


def test_where_files_go():
    async def main(_engine: TransferEngine, storages: ScriptedAdapter) -> None:
        fill(storages, "x", "d/y", "d/e/z")
        storages.storage("sim://b").add("/there/old", size_bytes=1)
        planner = Planner(lambda _url: storages, lambda _url: ANONYMOUS)
        x = "sim://a/x"
        assert await planner.single(x, "sim://b/new") == Pair(x, "sim://b/new", SIZE)
        assert await planner.single(x, "sim://b/new/") == Pair(x, "sim://b/new/x", SIZE)
        assert await planner.single(x, "sim://b/there") == Pair(x, "sim://b/there/x", SIZE)
        # The copy is what reports a source that is not there.
        assert await planner.single("sim://a/no", "sim://b/n") == Pair("sim://a/no", "sim://b/n", None)
        with pytest.raises(Stop, match="-r copies all below it"):
            await planner.single("sim://a/d", "sim://b/new")
        found = {(pair.source, pair.destination) async for pair in planner.tree("sim://a/d/", "sim://b/m")}
        assert found == {("sim://a/d/y", "sim://b/m/y"), ("sim://a/d/e/z", "sim://b/m/e/z")}
        with pytest.raises(Stop, match="cannot be listed") as caught:
            _ = [pair async for pair in planner.tree("sim://a/no", "sim://b/m")]
        assert caught.value.code is Exit.NOT_FOUND

    run(main)


def test_patience_of_a_person_where_nothing_else_is_set(tmp_path, monkeypatch: pytest.MonkeyPatch):
    settings = copy.settings_of(CopyOptions(parallel=7, checksum="MD5"))
    assert (settings.retry.delay_s, settings.transfer.probe_max_s) == (2.0, 120.0)
    assert (settings.limits.node, settings.limits.link, settings.database) == (7, 7, "sqlite://")
    assert (settings.transfer.checksum, settings.transfer.require_checksum) == ("md5", True)
    (tmp_path / "te.toml").write_text("[retry]\ndelay_s = 9\n")
    monkeypatch.setenv("TRANSFER_ENGINE_TRANSFER__PROBE_MAX_S", "44")
    settings = copy.settings_of(CopyOptions(config=tmp_path / "te.toml", checksum="md5:00"))
    assert (settings.retry.delay_s, settings.transfer.probe_max_s) == (9.0, 44.0)
    assert not settings.transfer.require_checksum


@pytest.mark.parametrize("name", ["..", "%2e%2e", ".", "a%2f..%2fb", "%00"])
def test_a_listing_does_not_lead_elsewhere(name: str):
    class Hostile(ScriptedAdapter):
        async def list_directory(self, url: str, **_: Any) -> list[Entry]:
            return [Entry(name=name, url=f"sim://a/d/{name}", is_directory=False, size_bytes=1)]

    async def main(*_: Any) -> None:
        hostile = Hostile(rng=random.Random(0))
        planner = Planner(lambda _url: hostile, lambda _url: ANONYMOUS)
        with pytest.raises(Stop, match="no name of a file") as caught:
            _ = [pair async for pair in planner.tree("sim://a/d", "file:///tmp/d")]
        assert caught.value.code is Exit.REFUSED

    run(main)
