"""Lists of pairs, and names of local files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from transfer_engine.cli import lists
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import Stop

A, B = "https://a.example/x", "https://b.example/y"


async def read(name: str) -> list[tuple[str, str]]:
    return [pair async for pair in lists.read_pairs(name)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{A} {B}\n", [(A, B)]),
        (f"{A}\t{B}", [(A, B)]),
        (f"# a comment\n\n   \n  {A}   {B}  \r\n", [(A, B)]),
        (f"\ufeff{A} {B}\n", [(A, B)]),
        (f'"a b" {B}\n', [("a b", B)]),
        (f"a\\ b '{B}'\n", [("a b", B)]),
        (f"{A} {B}\n{B} {A}\n", [(A, B), (B, A)]),
        ("", []),
    ],
)
@pytest.mark.asyncio
async def test_one_pair_a_line(tmp_path: Path, text: str, expected: list[tuple[str, str]]):
    (tmp_path / "list").write_bytes(text.encode())
    assert await read(str(tmp_path / "list")) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{A} {B}\n{A}\n".encode(), "line 2: expected SRC DST, got 1 word"),
        (f"\n{A} {B} c\n".encode(), "line 2: expected SRC DST, got 3 word"),
        (b'"a b\n', "line 1: No closing quotation"),
        (b"'' b\n", "line 1: expected SRC DST, got an empty name"),
        (f"{A} {B}\n".encode() + b"\xff b\n", "line 2: is not text in UTF-8"),
        (b"a\0b c\n", "line 1: holds a NUL"),
        (b"x" * (lists.LINE_BYTES_MAX + 1), "line 1: longer than"),
    ],
)
@pytest.mark.asyncio
async def test_a_wrong_line_is_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(Stop, match=message) as caught:
        await read(str(tmp_path / "list"))
    assert caught.value.code is Exit.USAGE


@pytest.mark.asyncio
async def test_a_list_that_cannot_be_read(tmp_path: Path):
    for name in (tmp_path / "missing", tmp_path):
        with pytest.raises(Stop, match="cannot be read") as caught:
            await read(str(name))
        assert caught.value.code is Exit.USAGE


@pytest.mark.asyncio
async def test_lines_across_reads_keep_their_numbers(tmp_path: Path):
    n = 3 * lists.BLOCK_BYTES // len(f"{A} {B}\n")
    (tmp_path / "list").write_text(f"{A} {B}\n" * n + "wrong\n")
    found: list[tuple[str, str]] = []

    async def follow() -> None:
        async for pair in lists.read_pairs(str(tmp_path / "list")):
            found.append(pair)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(Stop, match=f"line {n + 1}:"):
        await follow()
    assert set(found) == {(A, B)}


@pytest.mark.asyncio
async def test_a_silent_pipe_can_be_given_up():
    """What is written is read at once; meanwhile the loop goes on, and a cancellation ends it."""
    reading, writing = os.pipe()
    got: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def follow() -> None:
        async for pair in lists.read_pairs(f"/dev/fd/{reading}"):
            got.put_nowait(pair)

    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(follow())
            os.write(writing, f"{A} {B}\nhalf".encode())
            assert await got.get() == (A, B)
            task.cancel()
        assert task.cancelled()
    finally:
        os.close(reading)
        os.close(writing)


def test_local_names_as_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    here = tmp_path.as_uri()
    assert lists.as_url("f") == f"{here}/f"
    assert lists.as_url("./a b/ü#?") == f"{here}/a%20b/%C3%BC%23%3F"
    assert lists.as_url("/etc/") == "file:///etc/"
    assert lists.as_url("/") == "file:///"
    # A path may hold what only looks like a scheme.
    assert lists.as_url("./x://y").startswith("file://")
    for url in (A, "file:///etc/hosts", "DAVS://host/x"):
        assert lists.as_url(url) == url
    for wrong in ("", "/tmp/\udcff"):
        with pytest.raises(Stop):
            lists.as_url(wrong)


def test_names_in_directories():
    assert lists.child("https://a/d/", "n") == lists.child("https://a/d", "n") == "https://a/d/n"
    assert lists.child("https://a/d?token=1", "n") == "https://a/d/n?token=1"
    assert lists.last_name("https://a/d/n%20m?q=/x") == "n%20m"
    assert lists.last_name("https://a/d/") == "d"
