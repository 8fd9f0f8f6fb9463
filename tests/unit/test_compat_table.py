"""`docs/fts-compat.md` leaves nothing out, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest

from transfer_engine.service.routes import Handlers, routes
from transfer_engine.service.wire.documents import FileDocument, ParamsDocument, SubmissionDocument
from transfer_engine.service.wire.views import FileObject, JobEntry

TESTS = Path(__file__).resolve().parents[1]
TABLE = TESTS.parent / "docs" / "fts-compat.md"
VERDICTS = {"same", "better", "refused", "ours"}
TEST = re.compile(r"`(\w+)::(\w+)`")
CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    section: str
    what: str
    verdict: str
    test: str

    @property
    def words(self) -> list[str]:
        return CODE.findall(self.what)


def rows() -> Iterator[Row]:
    section = ""
    for line in TABLE.read_text("utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        if line.startswith("|") and not re.match(r"\| *(-|FTS3 *\||Rucio 41)", line):
            what, verdict, _, test = (cell.strip() for cell in line.strip("|").split("|"))
            yield Row(section, what, verdict, test)


ROWS = list(rows())


class Anything:
    """Handlers that are only named."""

    def __getattr__(self, name: str) -> Any:
        async def handler(_: Any) -> Any:
            raise AssertionError(name)

        return handler


@cache
def defined_in(stem: str) -> frozenset[str]:
    """Of all files of this name: there may be one in each folder."""
    trees = [ast.parse(path.read_text("utf-8")) for path in TESTS.rglob(f"{stem}.py")]
    assert trees, f"there is no {stem}.py"
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def words(section: str) -> set[str]:
    found = [row for row in ROWS if row.section == section]
    assert found, section
    return {word for row in found for word in row.words}


def template(path: str) -> str:
    """A path with its parameters under one name, as the table has them."""
    return re.sub(r"\{(\w+)\}", lambda match: "{" + {"ids": "ids", "file_ids": "ids"}.get(match[1], "id") + "}", path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}: {row.what}"[:60])
def test_every_row_is_tied_to_a_test_that_exists(row: Row):
    assert row.verdict in VERDICTS
    named = TEST.findall(row.test)
    assert named, f"no test is named: {row.test}"
    for stem, name in named:
        assert name.startswith("test_")
        assert name in defined_in(stem), f"{stem} has no {name}"


def test_every_route_is_in_the_table():
    handlers = Handlers(**{field.name: Anything() for field in fields(Handlers)})  # type: ignore[arg-type]
    told = {template(word) for row in ROWS for word in row.words}
    missing = [
        operation for route in routes(handlers) if (operation := f"{route.method} {template(route.path)}") not in told
    ]
    assert not missing


def test_every_parameter_of_a_query_is_in_the_table():
    handlers = Handlers(**{field.name: Anything() for field in fields(Handlers)})  # type: ignore[arg-type]
    ours = {"GET /explain", "GET /optimizer/history", "GET /jobs/{id}/explain", "GET /jobs/"}
    told = {(template(row.words[0]), name) for row in ROWS if len(row.words) > 1 for name in row.words[1:]}
    missing = [
        (operation, name)
        for route in routes(handlers)
        if (operation := f"{route.method} {template(route.path)}") not in ours
        for name in route.query
        if (operation, name) not in told
    ]
    assert not missing


@pytest.mark.parametrize(
    ("document", "section"),
    [
        (ParamsDocument, "Submission: `params`"),
        (FileDocument, "Submission: `files[]`"),
        (SubmissionDocument, "Submission: `files[]`"),
        (JobEntry, "Job object"),
        (FileObject, "File object"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_key_is_in_the_table(document: type, section: str):
    assert set(get_type_hints(document)) <= words(section)


@pytest.mark.parametrize("row", [row for row in ROWS if row.section == "Sentences"], ids=lambda row: row.what[:60])
def test_every_sentence_is_asserted_where_it_is_said_to_be(row: Row):
    if row.verdict == "refused":
        return
    ((stem, _),) = TEST.findall(row.test)
    (sentence,) = row.words
    assert any(sentence in path.read_text("utf-8") for path in TESTS.rglob(f"{stem}.py"))


def test_the_parser_reads_the_table():
    assert len(ROWS) > 200
    assert SimpleNamespace(**{row.verdict: True for row in ROWS}).__dict__.keys() == VERDICTS
