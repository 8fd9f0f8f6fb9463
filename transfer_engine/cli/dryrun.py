"""`cp --dry-run`: what would be done, and nothing changed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from protocols.errors import TransferError
from transfer_engine.cli.exits import BY_CODE, Exit
from transfer_engine.cli.output import put, put_json, size
from transfer_engine.cli.plan import LOOKS, Pair, Planner


@dataclass(frozen=True, slots=True)
class _Action:
    """What would happen to one file."""

    word: str
    size_bytes: int | None = None
    problem: Exit | None = None
    """With which code the copy would fail."""


async def show_plan(planner: Planner, pairs: Iterable[Pair], *, overwrite: bool, as_json: bool) -> Exit:
    """Print what would be done; the exit code is what the copy's would be, as far as can be told."""
    n_files = n_good = n_bytes = 0
    problems: set[Exit] = set()
    source = iter(pairs)
    while block := list(itertools.islice(source, LOOKS * 16)):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_action(planner, pair, overwrite=overwrite)) for pair in block]
        for pair, action in zip(block, (task.result() for task in tasks), strict=True):
            _show(pair, action, as_json=as_json)
            n_files += 1
            if action.problem is None:
                n_good += 1
                n_bytes += action.size_bytes or 0
            else:
                problems.add(action.problem)
    code = _exit(problems, n_good)
    if as_json:
        put_json({"event": "summary", "files": n_files, "copy": n_good, "bytes": n_bytes, "exit_code": int(code)})
    else:
        put(f"{n_good} of {n_files} would be copied, {size(n_bytes)}")
    return code


async def _action(planner: Planner, pair: Pair, *, overwrite: bool) -> _Action:
    try:
        source = await planner.look(pair.source)
        if source is None:
            return _Action("source missing", problem=Exit.NOT_FOUND)
        if source.is_directory:
            return _Action("source is a directory (use -r)", problem=Exit.ALL_FAILED)
        there = await planner.look(pair.destination)
    except TransferError as error:
        return _Action(f"cannot be told: {error.message}", problem=BY_CODE.get(error.code, Exit.ALL_FAILED))
    if there is None:
        return _Action("copy", source.size_bytes)
    if there.is_directory:
        return _Action("destination is a directory", source.size_bytes, Exit.ALL_FAILED)
    if overwrite:
        return _Action("overwrite", source.size_bytes)
    return _Action("exists, would fail without --overwrite", source.size_bytes, Exit.ALL_FAILED)


def _show(pair: Pair, action: _Action, *, as_json: bool) -> None:
    n_bytes = action.size_bytes
    if as_json:
        does = {"action": action.word, "bytes": n_bytes}
        put_json({"event": "plan", "source": pair.source, "destination": pair.destination, **does})
    else:
        put(f"{action.word}: {pair.source} → {pair.destination}{'' if n_bytes is None else f' ({size(n_bytes)})'}")


def _exit(problems: set[Exit], n_good: int) -> Exit:
    if not problems:
        return Exit.OK
    if n_good:
        return Exit.SOME_FAILED
    return problems.pop() if len(problems) == 1 else Exit.ALL_FAILED
