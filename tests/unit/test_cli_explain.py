"""`explain` against a service that answers as told, and against a real one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.service import file, running_service
from transfer_engine.cli import explain as explaining
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.explain import lines_of, path_of, paths_of
from transfer_engine.cli.output import Stop
from transfer_engine.errors import Invalid

JOB = "00000000-0000-4000-8000-00000000dead"
LINK = "/explain?source_se=https%3A%2F%2Fa&dest_se=https%3A%2F%2Fb"


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ([JOB], f"/jobs/{JOB}/explain"),
        ([f"{JOB}/17"], f"/jobs/{JOB}/files/17/explain"),
        (["17"], "/explain?file_id=17"),
        (["https://a", "https://b"], LINK),
        (["https://a → https://b"], LINK),
        (["https://a→https://b"], LINK),
        (["https://a", "->", "https://b"], LINK),
        (["https://a,https://b"], LINK),
        (["HTTPS://A/", "https://b"], LINK),
        (["davs://a"], "/explain?endpoint=davs%3A%2F%2Fa"),
    ],
)
def test_what_can_be_asked(words: list[str], path: str):
    assert path_of(words) == path


def test_several_things_are_asked_for_one_by_one():
    assert paths_of([JOB, "17", "https://a,https://b"]) == [f"/jobs/{JOB}/explain", "/explain?file_id=17", LINK]
    assert paths_of(["https://a", "https://b"]) == [LINK]
    assert paths_of(["https://a", "->", "https://b"]) == [LINK]
    assert len(paths_of(["https://a", "https://b", "https://c"])) == 3


def test_two_hours_are_not_120_minutes():
    lines = list(lines_of(answer(start_at=1.0, start_in_s=7180.0, finish_at=1.0, finish_in_s=119.6)))
    assert "  forecast  starts in about 2 h, ends in about 2 min" in lines
    lines = list(lines_of(answer(start_at=1.0, start_in_s=7100.0, finish_at=1.0, finish_in_s=119.0)))
    assert "  forecast  starts in about 118 min, ends in about 119 s" in lines


@pytest.mark.parametrize(
    "words", [["nonsense"], [], ["a", "b", "c"], ["", " "], ["https://a", "https://b", "https://c"]]
)
def test_what_cannot(words: list[str]):
    with pytest.raises(Stop, match="expected a job id, a file id") as caught:
        path_of(words)
    assert caught.value.code is Exit.USAGE


@pytest.mark.parametrize(("words", "field"), [(["https://a", "b"], "DST"), (["https://a:90"], "ENDPOINT")])
def test_what_is_no_endpoint(words: list[str], field: str):
    with pytest.raises(Invalid) as caught:
        path_of(words)
    assert caught.value.field == field


def answer(**more: Any) -> dict[str, Any]:
    plain = {
        "subject": "transfer 7, https://a → https://b",
        "moving": False,
        "code": "limit",
        "reason": "the inbound limit of https://b is reached: 60 of 60 are running",
        "reasons": [{"code": "limit", "text": "…", "subject": "into https://b", "used": 60, "limit": 60}],
        "start_at": None,
        "start_in_s": None,
        "finish_at": None,
        "finish_in_s": None,
    }
    return plain | more


def test_a_waiting_transfer_reads_well():
    share = {"code": "share", "text": "atlas has 4 of 4 slots"}
    turn = {"code": "turn", "text": "9 transfers are before it", "used": 9}
    found = answer(
        state="SUBMITTED",
        n_before=9,
        bytes_before=4_000_000_000,
        start_at="2023-11-14T22:25:20",
        start_in_s=720.0,
        finish_at="2023-11-14T23:25:20",
        finish_in_s=7300.0,
        deadline_at="2023-11-17T22:13:20",
        deadline_in_s=259_200.0,
    )
    found["reasons"] += [share, turn]
    assert list(lines_of(found)) == [
        "transfer 7, https://a → https://b, SUBMITTED: the inbound limit of https://b is reached: 60 of 60 are running",
        "  position  9 transfers before it (4 GB)",
        "  forecast  starts in about 12 min, ends in about 2 h",
        "  deadline  it is cancelled if it still waits in about 3 d",
        "  used      60 of 60",
        "  also      atlas has 4 of 4 slots",
    ]


def test_a_forecast_that_cannot_be_made_says_why():
    lines = list(lines_of(answer(unknown="the ban has no end, somebody has to lift it", n_before=0, bytes_before=0)))
    assert lines[1:3] == [
        "  position  first of its queue",
        "  forecast  nothing can be predicted: the ban has no end, somebody has to lift it",
    ]


def test_a_place_shows_its_limits_and_what_was_decided():
    decision = {
        "at": "2023-11-14T22:13:20",
        "place": "into https://b",
        "before": 2,
        "after": 4,
        "reason": "goodput rose",
    }
    same = decision | {"before": 4, "reason": "it is best"}
    found = answer(
        subject="https://b",
        known=True,
        active=60,
        ready=1,
        places=[
            {"place": "into https://b", "used": 60, "limit": 60},
            {"place": "out of https://b", "used": 0, "limit": None},
        ],
        decisions=[decision, same],
        start_at="x",
        start_in_s=0.4,
    )
    found["reasons"][0]["transfers"] = 1
    assert list(lines_of(found))[1:] == [
        "  now       60 running, 1 ready",
        "  forecast  starts now",
        "  used      60 of 60 (1 waits for it)",
        "  place     into https://b: 60 of 60",
        "  place     out of https://b: 0 no limit",
        "  optimizer 2023-11-14T22:13:20 into https://b: 2 → 4: goodput rose",
        "  optimizer 2023-11-14T22:13:20 into https://b: stays at 4: it is best",
    ]


def test_bytes_and_rates_have_units():
    running = answer(code="running", reasons=[{"code": "running", "text": "", "used": 5e9, "limit": 1e10}])
    assert "  used      5 GB of 10 GB (50 %)" in list(lines_of(running))
    band = answer(code="bandwidth", reasons=[{"code": "bandwidth", "text": "", "used": 2e8, "limit": 2.5e8}])
    assert "  used      200 MB/s of 250 MB/s" in list(lines_of(band))


def test_what_storages_say_cannot_move_the_cursor():
    assert "\x1b" not in next(lines_of(answer(reason="it says \x1b[2J")))


@pytest.mark.asyncio
async def test_a_job(capsys: pytest.CaptureFixture[str]):
    async with running_service() as service:
        job_id = await service.submit(file(), file(1), file(2))
        await service.engine.control.hold(job_id)  # type: ignore[arg-type]
        assert await explaining.explain(service.url, [job_id], as_json=False) is Exit.OK
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"job {job_id}, SUBMITTED: 3 transfers not ended"
        assert lines[2].endswith(f"SUBMITTED: job {job_id} is on hold until it is resumed")
        assert lines[-1] == "  … and 2 more for the same kind of reason (held)"
        assert await explaining.explain(service.url, [job_id], as_json=True) is Exit.OK
        assert json.loads(capsys.readouterr().out)["open"] == 3
        assert await explaining.explain(service.url, ["1"], as_json=False) is Exit.OK
        assert capsys.readouterr().out.startswith(
            "transfer 1, https://source.example → https://dest.example, SUBMITTED: "
        )
        await service.engine.cancel(job_id)  # type: ignore[arg-type]
        assert await explaining.explain(service.url, [job_id], as_json=False) is Exit.OK
        assert capsys.readouterr().out == f"job {job_id}: the job has ended: it is CANCELED\n"


@pytest.mark.asyncio
async def test_what_does_not_exist():
    async with running_service() as service:
        for word in (JOB, f"{JOB}/1", "77"):
            with pytest.raises(Stop) as caught:
                await explaining.explain(service.url, [word], as_json=False)
            assert caught.value.code is Exit.NOT_FOUND


@pytest.mark.asyncio
async def test_a_service_that_is_not_there():
    with pytest.raises(Stop) as caught:
        await explaining.explain("http://127.0.0.1:9", ["1"], as_json=False)
    assert caught.value.code is Exit.UNREACHABLE
