"""The house rules that no linter checks: modules stand alone, public names say what they promise."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocols", "transfer_engine")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MIGRATIONS = ROOT / "transfer_engine" / "store" / "migrations"

LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError|\bsimplified\b", re.IGNORECASE)

DOTTED = re.compile(r"[\w.]+")

FORBIDDEN = {
    "time.sleep",
    "time.time",
    "datetime.now",
    "datetime.utcnow",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "uuid.uuid4",
    "uuid4",
    "asyncio.create_task",
    "asyncio.ensure_future",
    "asyncio.gather",
    "asyncio.wait_for",
}
"""Calls by their spelling; also every function of the module `random` (`random.Random` is fine)."""

ALLOWED = {
    ("transfer_engine/clock.py", "time.time"),
    ("transfer_engine/clock.py", "uuid.uuid4"),
}
"""(file, call): the one place each is turned into something that can be injected."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


IMPORTABLE = [path for path in FILES if MIGRATIONS not in path.parents and path.name != "__main__.py"]


@pytest.fixture
def fresh_modules() -> Iterator[None]:
    """Our packages as never imported; afterwards as they were, for the tests that hold their classes."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] in PACKAGES}
    for name in kept:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.mark.parametrize("path", IMPORTABLE, ids=relative)
@pytest.mark.usefixtures("fresh_modules")
def test_every_module_is_importable_alone(path: Path):
    """A circle of imports works or not depending on who comes first."""
    importlib.import_module(module_name(path))


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Functions and classes that anybody may use and that say nothing of themselves."""
    if not ast.get_docstring(tree):
        yield "the module"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.name


def test_public_names_have_docstrings():
    trees = [(path, ast.parse(path.read_text())) for path in FILES if path.read_text().strip()]
    assert [f"{relative(path)}: {name}" for path, tree in trees for name in undocumented(tree)] == []


def test_nothing_is_left_for_later():
    hits = [
        f"{relative(path)}:{n}: {line.strip()}"
        for path in FILES
        for n, line in enumerate(path.read_text().splitlines(), 1)
        if LEFTOVERS.search(line)
    ]
    assert hits == []


def calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of what is called or handed over by a dotted name (`random.choice`), or called by a plain one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and DOTTED.fullmatch(name := ast.unparse(node)):
            yield node.lineno, name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id


def test_time_chance_and_tasks_come_from_outside():
    found = []
    for path in FILES:
        for line, name in calls(ast.parse(path.read_text())):
            chance = name.startswith("random.") and name not in {"random.Random", "random.SystemRandom"}
            if (name in FORBIDDEN or chance) and (relative(path), name) not in ALLOWED:
                found.append(f"{relative(path)}:{line}: {name}")
    assert found == []


def test_files_stay_readable():
    """400 lines are the aim; one thought may need a little more."""
    lengths = {relative(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 450} == {}


def test_no_path_of_one_machine():
    """What works on the author's machine only starts with a path of it."""
    suspicious = re.compile(r"/(?:home|root|work)/\w")
    hits = [relative(path) for path in FILES if suspicious.search(path.read_text())]
    assert hits == []
