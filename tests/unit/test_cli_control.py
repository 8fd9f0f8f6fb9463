"""`ban`, `unban`, `bans`, `hold`, `resume`, `drain` against a service whose engine is moved by hand."""

from __future__ import annotations

import json

import pytest

from tests.service import Service, running_service
from transfer_engine.banning import Moving
from transfer_engine.cli import control
from transfer_engine.cli.control import BanOptions, duration_s
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import Stop
from transfer_engine.errors import Invalid
from transfer_engine.service.wire.views import HOST

SOURCE = "https://source.example"


async def ban(service: Service, **options: object) -> Exit:
    return await control.ban(service.url, SOURCE, BanOptions(**options), as_json=False)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_ban_and_unban(capsys: pytest.CaptureFixture[str]):
    async with running_service() as service:
        job_id = await service.submit()
        assert await ban(service, lasts="2h", message="disk broken", allow_submit=True) is Exit.OK
        told = capsys.readouterr()
        assert told.out == f"{job_id}\n"
        assert told.err == f"transfer-engine: {SOURCE} is banned; jobs that wait: 1\n"
        assert await control.bans(service.url, as_json=False) is Exit.OK
        assert capsys.readouterr().out == (
            f"{SOURCE}  lets wait, also new ones  everybody  by local since 2023-11-14T22:13:20  "
            "until 2023-11-15T00:13:20  disk broken\n"
        )
        assert await control.unban(service.url, "davs://source.example/", vo=None) is Exit.OK
        assert await control.bans(service.url, as_json=True) is Exit.OK
        assert capsys.readouterr().out == ""
        assert await control.bans(service.url, as_json=False) is Exit.OK
        assert capsys.readouterr().err == "transfer-engine: nothing is banned\n"


@pytest.mark.asyncio
async def test_a_ban_that_cancels(capsys: pytest.CaptureFixture[str]):
    async with running_service() as service:
        job_id = await service.submit()
        assert await ban(service, cancel=True, vo="local") is Exit.OK
        told = capsys.readouterr()
        assert told.out == f"{job_id}\n"
        assert told.err == f"transfer-engine: {SOURCE} is banned for VO local; jobs that lost transfers: 1\n"
        assert (await service.call("GET", f"/jobs/{job_id}"))[1]["job_state"] == "CANCELED"


@pytest.mark.asyncio
async def test_unban_says_what_is_banned_instead(capsys: pytest.CaptureFixture[str]):
    async with running_service() as service:
        assert await control.unban(service.url, SOURCE, vo=None) is Exit.NOT_FOUND
        assert capsys.readouterr().err == f"transfer-engine: {SOURCE} was not banned for everybody\n"
        await ban(service, vo="atlas")
        capsys.readouterr()
        assert await control.unban(service.url, SOURCE, vo=None) is Exit.NOT_FOUND
        assert "it is banned for VO atlas: --vo atlas" in capsys.readouterr().err
        assert await control.unban(service.url, SOURCE, vo="atlas") is Exit.OK


@pytest.mark.asyncio
async def test_bad_input_names_what_is_wrong():
    async with running_service() as service:
        with pytest.raises(Invalid, match=r"ENDPOINT: expected scheme://host"):
            await control.ban(service.url, "source.example", BanOptions(), as_json=False)
        with pytest.raises(Invalid, match="ENDPOINT: a storage is known without its port"):
            await control.unban(service.url, "https://h:1094", vo=None)
        for options, words in (
            (BanOptions(cancel=True, allow_submit=True), "--allow-submit"),
            (BanOptions(lasts="soon"), "--for: expected a time such as"),
        ):
            with pytest.raises(Stop) as caught:
                await control.ban(service.url, SOURCE, options, as_json=False)
            assert words in caught.value.message
            assert caught.value.code is Exit.USAGE
        with pytest.raises(Stop) as caught:
            await ban(service, message="x" * 2000)
        assert "message: expected at most 1000" in caught.value.message
        assert (await service.call("GET", "/ban/se")) == (200, [])


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129600)])
def test_durations(text: str, seconds: float):
    assert duration_s(text, "--for") == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "0s", "2 h", "1e3s", "2w"])
def test_no_durations(text: str):
    with pytest.raises(Stop, match="--for"):
        duration_s(text, "--for")


@pytest.mark.asyncio
async def test_hold_and_resume(capsys: pytest.CaptureFixture[str]):
    async with running_service() as service:
        job_id = await service.submit()
        assert await control.hold(service.url, [job_id], held=True, as_json=False) is Exit.OK
        assert capsys.readouterr().out == f"{job_id}  SUBMITTED  on hold\n"
        assert await service.engine.claim() == []
        assert await control.hold(service.url, [job_id, "no/such"], held=False, as_json=True) is Exit.NOT_FOUND
        told = capsys.readouterr()
        assert json.loads(told.out) == {"job_id": job_id, "job_state": "SUBMITTED", "held": False}
        assert 'no/such: No job with the id "no/such" has been found' in told.err
        assert len(await service.engine.claim()) == 1


@pytest.mark.asyncio
async def test_drain(capsys: pytest.CaptureFixture[str]):
    async with running_service() as service:
        await service.submit()
        (order,) = await service.engine.claim()
        service.engine.moving = [Moving(order=order, bytes_done=100, size_bytes=300, since_s=10)]
        assert await control.drain(service.url, on=True, wait=False, as_json=False) is Exit.OK
        assert capsys.readouterr().out == f"{HOST} drains: 1 transfers run, the last ends in about 20 s\n"
        service.engine.moving = []
        assert await control.drain(service.url, on=True, wait=True, as_json=False) is Exit.OK
        assert capsys.readouterr().out == f"{HOST} is drained: nothing runs, nothing is started\n"
        assert await control.drain(service.url, on=False, wait=False, as_json=True) is Exit.OK
        assert json.loads(capsys.readouterr().out)["drain"] is False
