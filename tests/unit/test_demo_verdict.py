"""The demo's own judge: it must notice what a lying engine would hide."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from transfer_engine.demo.storage import ModelStorage
from transfer_engine.demo.verdict import Plan, judge, place_of
from transfer_engine.model import FileId, JobId
from transfer_engine.states import FileState
from transfer_engine.views import FileView

SEED = 7
SIZE = 1000


def _view(source_url: str, dest_url: str, *, state: FileState, code: str | None = None) -> FileView:
    return FileView(
        file_id=FileId(1),
        job_id=JobId("job"),
        file_index=0,
        state=state,
        source_url=source_url,
        dest_url=dest_url,
        source_se="http://127.0.0.2",
        dest_se="http://127.0.0.3",
        vo="local",
        activity="default",
        priority=3,
        size_bytes=SIZE,
        checksum=None,
        metadata=None,
        scitag=None,
        selection_strategy="auto",
        n_failed=1 if code else 0,
        submitted_at=0.0,
        started_at=None,
        finished_at=None,
        retry_at=None,
        reason=code,
        failure={"code": code} if code else None,
        seen_bytes=SIZE,
        seen_checksum=None,
        evidence=None,
        transfer_s=None,
        mode=None,
        owner=None,
        epoch=1,
    )


@dataclass
class Case:
    """One finished and one hopeless transfer between two storages, as they must be."""

    source: ModelStorage
    destination: ModelStorage
    plan: Plan
    good: FileView
    bad: FileView

    def problems(self, *files: FileView) -> list[str]:
        return judge(self.plan, files or (self.good, self.bad), (self.source, self.destination)).problems


@pytest_asyncio.fixture
async def case() -> AsyncIterator[Case]:
    async with ModelStorage(name="a") as source, ModelStorage(name="b", host="127.0.0.3") as destination:
        checksum = source.add_file("/data/1", SIZE, SEED)
        destination.add_file("/copy/1", SIZE, SEED)
        what = (SIZE, checksum.value)
        plan = Plan(
            sources={(source.url, "/data/1"): what},
            copies={(destination.url, "/copy/1"): what},
            hopeless={(destination.url, "/copy/gone"): "MISSING"},
        )
        good = _view(f"{source.url}/data/1", f"{destination.url}/copy/1", state=FileState.FINISHED)
        bad = _view(f"{source.url}/gone", f"{destination.url}/copy/gone", state=FileState.FAILED, code="MISSING")
        yield Case(source, destination, plan, good, bad)


def test_a_url_is_a_storage_and_a_path() -> None:
    assert place_of("http://127.0.0.2:80/a/b") == ("http://127.0.0.2:80", "/a/b")


@pytest.mark.asyncio
async def test_what_is_as_it_must_be_has_no_problems(case: Case) -> None:
    verdict = judge(case.plan, (case.good, case.bad), (case.source, case.destination))
    assert verdict.problems == []
    assert verdict.states == {"FINISHED": 1, "FAILED": 1}
    assert (verdict.n_bytes, verdict.n_attempts, verdict.n_faults, verdict.failed) == (SIZE, 2, 0, [case.bad])


@pytest.mark.asyncio
async def test_a_wrong_byte_is_noticed(case: Case) -> None:
    case.destination.add_file("/copy/1", SIZE, SEED + 1)
    (problem,) = case.problems()
    assert "/copy/1 should have" in problem


@pytest.mark.asyncio
async def test_a_changed_source_is_noticed(case: Case) -> None:
    case.source.add_file("/data/1", SIZE + 1, SEED)
    (problem,) = case.problems()
    assert "/data/1 should have" in problem


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/copy/gone", "/elsewhere"])
async def test_a_file_that_nobody_brought_is_noticed(case: Case, path: str) -> None:
    case.destination.add_file(path, SIZE, SEED)
    (problem,) = case.problems()
    assert f"{path} is there, and no transfer brought it" in problem


@pytest.mark.asyncio
@pytest.mark.parametrize("state", [FileState.FAILED, FileState.ACTIVE, FileState.CANCELED])
async def test_a_transfer_that_should_have_finished_is_noticed(case: Case, state: FileState) -> None:
    problems = case.problems(replace(case.good, state=state), case.bad)
    assert f"is {state}, must be FINISHED" in problems[0]


@pytest.mark.asyncio
async def test_a_hopeless_transfer_must_fail_for_its_own_reason(case: Case) -> None:
    (other,) = case.problems(case.good, replace(case.bad, failure={"code": "DENIED"}))
    assert "failed with DENIED, must be MISSING" in other
    (finished,) = case.problems(case.good, replace(case.bad, state=FileState.FINISHED))
    assert "is FINISHED, must be FAILED" in finished


@pytest.mark.asyncio
async def test_a_forgotten_transfer_is_noticed(case: Case) -> None:
    (problem,) = case.problems(case.good)
    assert problem == "2 transfers were submitted, the engine knows 1"


@pytest.mark.asyncio
async def test_bytes_that_are_given_back_are_still_known(case: Case) -> None:
    case.destination.release("/copy/1")
    case.destination.release("/nothing/there")
    assert case.problems() == []
