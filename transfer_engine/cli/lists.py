"""Lists of `SRC DST` pairs, and names of files on this machine as URLs."""

from __future__ import annotations

import asyncio
import os
import re
import select
import shlex
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import stop

PAIR: Final = 2
BLOCK_BYTES: Final = 256 * 1024
LINE_BYTES_MAX: Final = 64 * 1024
LOOK_S: Final = 0.2
"""Longest wait for a pipe in one piece: so long an interrupt may take."""
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


async def read_pairs(name: str) -> AsyncIterator[tuple[str, str]]:
    """The pairs of a list, `-` for standard input; raises `Stop` naming the line that is wrong.

    Cancel: safe at any time, also while a pipe or a terminal says nothing.
    """
    shown = "standard input" if name == "-" else name
    try:
        descriptor = sys.stdin.fileno() if name == "-" else os.open(name, os.O_RDONLY)
    except (OSError, ValueError) as error:
        stop(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}", Exit.USAGE)
    try:
        n_before = 0
        async for lines in _lines(descriptor, shown):
            for pair in parse_pairs(lines, shown, first=n_before + 1):
                yield pair
            n_before += len(lines)
    except OSError as error:
        stop(f"{shown} cannot be read: {error.strerror}", Exit.USAGE)
    finally:
        if name != "-":
            os.close(descriptor)


async def one_pair(source: str, destination: str) -> AsyncIterator[tuple[str, str]]:
    """A list of one."""
    yield source, destination


async def _lines(descriptor: int, shown: str) -> AsyncIterator[list[str]]:
    """Whole lines, as many as a read brought."""
    rest, number = b"", 1
    while True:
        # A read that blocks would keep signals from being dealt with, so it is made only when it cannot.
        readable, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], LOOK_S)
        if not readable:
            continue
        block = os.read(descriptor, BLOCK_BYTES)
        *whole, rest = (rest + block).split(b"\n")
        if not block and rest:
            whole.append(rest)
        lines = []
        for line in whole:
            lines.append(_decoded(line, shown, number))
            number += 1
        if lines:
            yield lines
        if not block:
            return
        if len(rest) > LINE_BYTES_MAX:
            stop(f"{shown}, line {number}: longer than {LINE_BYTES_MAX} bytes", Exit.USAGE)


def _decoded(line: bytes, shown: str, number: int) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        stop(f"{shown}, line {number}: is not text in UTF-8", Exit.USAGE)
    if "\0" in text:
        stop(f"{shown}, line {number}: holds a NUL: is it a text file?", Exit.USAGE)
    return text


def parse_pairs(lines: Iterable[str], name: str, *, first: int = 1) -> Iterator[tuple[str, str]]:
    """One `SRC DST` a line; quotes as in a shell, blank lines and `#` comments are passed over.

    Args:
        name: of the list, for messages.
        first: number of the first line.
    """
    for number, line in enumerate(lines, first):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        # Nearly every line is two plain URLs; only the others need the slow way.
        words = text.split() if "'" not in text and '"' not in text and "\\" not in text else _words(text, name, number)
        if len(words) != PAIR:
            stop(f"{name}, line {number}: expected SRC DST, got {len(words)} word(s)", Exit.USAGE)
        if not all(words):
            stop(f"{name}, line {number}: expected SRC DST, got an empty name", Exit.USAGE)
        yield words[0], words[1]


def _words(text: str, name: str, number: int) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        stop(f"{name}, line {number}: {error}", Exit.USAGE)


def is_url(text: str) -> bool:
    """Whether it begins as a URL does, with a scheme."""
    return _URL.match(text) is not None


def as_url(text: str) -> str:
    """A URL as it is; a path of this machine as `file://` URL, a trailing slash kept.

    Raises: Stop: it is empty, or its name is not text in UTF-8.
    """
    if is_url(text):
        return text
    if not text:
        stop("expected a URL or a path, got an empty name", Exit.USAGE)
    path = str(Path(text).absolute())
    try:
        return "file://" + quote(path) + ("/" if text.endswith("/") and path != "/" else "")
    except UnicodeEncodeError:
        stop(f"{os.fsencode(text)!r}: names of files must be text in UTF-8", Exit.USAGE)


def child(directory: str, name: str) -> str:
    """The URL of `name` in `directory`; a query stays at the end."""
    base, question, query = directory.partition("?")
    return f"{base.rstrip('/')}/{name}{question}{query}"


def last_name(url: str) -> str:
    """The last component of a URL's path, as it is written there."""
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]
