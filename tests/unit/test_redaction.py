"""What the service logs, last of all: without secrets, and a record is a line."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.redaction import Redacting, field, one_line

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.CANARY"
PLACES = ["message", "argument", "field", "error", "cause", "stack"]


def failure(text: str) -> Exception:
    try:
        try:
            raise KeyError(text)
        except KeyError as error:
            msg = f"broken by {text}"
            raise ValueError(msg) from error
    except ValueError as error:
        return error


def logged(place: str, text: str) -> str:
    """What is written of a record that has `text` there."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Redacting("%(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("somebody")
    log.handlers, log.propagate = [handler], False
    match place:
        case "message":
            log.warning(text.replace("%", "%%"))
        case "argument":
            log.warning("this: %s", text)
        case "field":
            log.warning("this", extra={"why": text, "n": 3})
        case "error" | "cause":
            log.error("this", exc_info=failure(text))
        case _:
            record = log.makeRecord("somebody", logging.ERROR, "f", 1, "this", (), None, sinfo=f"Stack:\n {text}")
            log.handle(record)
    return stream.getvalue()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", [f"Bearer {TOKEN}", TOKEN, f"https://h/p?authz=Bearer%20{TOKEN}", f"Cookie\n{TOKEN}"])
def test_no_secret_is_written_wherever_it_is_in_the_record(place: str, text: str) -> None:
    written = logged(place, text)
    assert "CANARY" not in written
    assert "***" in written
    assert "somebody: " in written


@pytest.mark.parametrize("place", ["message", "argument", "field"])
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_record_is_one_line(place: str, text: str) -> None:
    written = logged(place, f"a{text}b")
    assert len(written.splitlines()) == 1
    assert written.removesuffix("\n").isprintable() or not text.isprintable()
    assert not set(map(chr, (*range(10), *range(11, 32), 127))) & set(written)


def test_fields_follow_the_message_and_a_traceback_the_line() -> None:
    assert logged("field", "x y") == 'WARNING somebody: this why="x y" n=3\n'
    first, *rest = logged("error", "x").splitlines()
    assert first == "ERROR somebody: this"
    assert "KeyError: 'x'" in rest
    assert rest[-1] == "ValueError: broken by x"


def test_what_cannot_be_shown_is_escaped() -> None:
    assert one_line("a\r\nWARNING b\x1b[2J\u2028c ü") == "a\\r\\nWARNING b\\x1b[2J\\u2028c ü"
    assert field("a\nb=c") == r'"a\nb=c"'
    assert field('/CN=Alice "admin"') == r'"/CN=Alice \"admin\""'
    assert [field(None), field(3), field(""), field("a/b,ü")] == ["None", "3", '""', "a/b,ü"]
    assert len(field("x" * 5000)) == 2048
