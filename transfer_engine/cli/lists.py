"""Lists of `SRC DST` pairs, and names of files on this machine as URLs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import stop

PAIR: Final = 2


def read_pairs(name: str) -> Iterator[tuple[str, str]]:
    """The pairs of a list, `-` for standard input; raises `Stop` naming the line that is wrong."""
    if name == "-":
        yield from parse_pairs(sys.stdin, "standard input")
        return
    try:
        with Path(name).open(encoding="utf-8") as lines:
            yield from parse_pairs(lines, name)
    except OSError as error:
        stop(f"{name} cannot be read: {error.strerror}", Exit.USAGE)
    except UnicodeDecodeError:
        stop(f"{name} is not text in UTF-8", Exit.USAGE)


def parse_pairs(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    """One `SRC DST` a line; quotes as in a shell, blank lines and `#` comments are passed over."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        # Nearly every line is two plain URLs; only the others need the slow way.
        words = text.split() if "'" not in text and '"' not in text and "\\" not in text else _words(text, name, number)
        if len(words) != PAIR:
            stop(f"{name}, line {number}: expected SRC DST, got {len(words)} word(s)", Exit.USAGE)
        yield words[0], words[1]


def _words(text: str, name: str, number: int) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        stop(f"{name}, line {number}: {error}", Exit.USAGE)


def as_url(text: str) -> str:
    """A URL as it is; a path of this machine as `file://` URL, a trailing slash kept."""
    if "://" in text:
        return text
    path = str(Path(text).absolute())
    return "file://" + quote(path) + ("/" if text.endswith("/") and path != "/" else "")


def child(directory: str, name: str) -> str:
    """The URL of `name` in `directory`; a query stays at the end."""
    base, question, query = directory.partition("?")
    return f"{base.rstrip('/')}/{name}{question}{query}"


def last_name(url: str) -> str:
    """The last component of a URL's path, as it is written there."""
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]
