"""Whether a demo went as it must: what the engine says, held against what the storages have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transfer_engine.demo.faults import Fault
from transfer_engine.demo.storage import ModelStorage
from transfer_engine.states import FileState
from transfer_engine.views import FileView

Place = tuple[str, str]
"""(URL of a storage, path)."""
What = tuple[int, str]
"""(size in bytes, adler32)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a demo was meant to do.

    Attributes:
        sources: what must still be there untouched.
        copies: what a transfer to that place must bring, if it finishes.
        hopeless: destination → code of the error that it must fail with.
    """

    sources: dict[Place, What] = field(default_factory=dict)
    copies: dict[Place, What] = field(default_factory=dict)
    hopeless: dict[Place, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The account of a demo that has ended."""

    states: Counter[str] = field(default_factory=Counter)
    n_bytes: int = 0
    n_attempts: int = 0
    n_retried: int = 0
    """Finished transfers that needed more than one attempt."""
    faults: Counter[Fault] = field(default_factory=Counter)
    n_healed: int = 0
    """Faults that struck a transfer which finished all the same."""
    failed: list[FileView] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Empty when every state is true and nothing is where it should not be."""

    @property
    def n_faults(self) -> int:
        """Requests that went wrong on purpose."""
        return self.faults.total()


def place_of(url: str) -> Place:
    """`http://HOST:PORT/PATH` in two parts."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path}"


def judge(plan: Plan, files: Sequence[FileView], storages: Sequence[ModelStorage]) -> Verdict:
    """The verdict on `files`, all the transfers of a demo, by the records of its storages."""
    verdict = Verdict()
    wanted = dict(plan.sources)
    finished: set[Place] = set()
    for file in files:
        verdict.states[file.state.value] += 1
        verdict.n_attempts += file.n_failed + (file.state is FileState.FINISHED)
        place = place_of(file.dest_url)
        if file.state is FileState.FINISHED:
            verdict.n_bytes += file.seen_bytes or 0
            verdict.n_retried += file.n_failed > 0
            finished |= {place, place_of(file.source_url)}
            if place in plan.copies:
                wanted[place] = plan.copies[place]
        elif file.state is FileState.FAILED:
            verdict.failed.append(file)
        verdict.problems += _unexpected(plan, file, place)
    n_planned = len(plan.copies) + len(plan.hopeless)
    if len(files) != n_planned:
        verdict.problems.append(f"{n_planned} transfers were submitted, the engine knows {len(files)}")
    for storage in storages:
        for (fault, path), n in storage.struck.items():
            verdict.faults[fault] += n
            verdict.n_healed += n if (storage.url, path) in finished else 0
    verdict.problems += _compare(wanted, storages)
    return verdict


def _unexpected(plan: Plan, file: FileView, place: Place) -> list[str]:
    code = (file.failure or {}).get("code")
    must_be = FileState.FAILED if place in plan.hopeless else FileState.FINISHED
    if file.state is not must_be:
        return [f"{file.dest_url} is {file.state}, must be {must_be}: {file.reason}"]
    if code != plan.hopeless.get(place) and must_be is FileState.FAILED:
        return [f"{file.dest_url} failed with {code}, must be {plan.hopeless[place]}: {file.reason}"]
    return []


def _compare(wanted: Mapping[Place, What], storages: Sequence[ModelStorage]) -> list[str]:
    """Everything at the storages that is not as it must be, one line each."""
    there = {(s.url, path): what for s in storages for path, what in s.files().items()}
    problems = [
        f"{url}{path} should have {what}, has {there.get((url, path))}"
        for (url, path), what in wanted.items()
        if there.get((url, path)) != what
    ]
    problems += [f"{url}{path} is there, and no transfer brought it" for url, path in there.keys() - wanted.keys()]
    problems += [f"{s.url}{path} was left half-written" for s in storages for path in s.partial_files()]
    problems += [f"{s.url}{entry.path}: {entry.note}" for s in storages for entry in s.journal.violations()]
    return problems
