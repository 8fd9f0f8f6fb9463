"""STOMP 1.2 frames: escapes, bodies, heart-beats, pieces of any size, and what is not STOMP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.messages.frames import FRAME_MAX, BadFrame, Frame, Frames, encode

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name != "content-length")
frames = st.builds(
    Frame,
    st.sampled_from(["RECEIPT", "ERROR", "MESSAGE"]),
    st.dictionaries(names, st.text(st.characters(codec="utf-8"), max_size=20), max_size=4),
    st.binary(max_size=40),
)


@given(st.lists(frames, max_size=4), st.integers(1, 50), st.sampled_from([b"", b"\n", b"\r\n\n"]))
def test_what_is_written_is_read_in_pieces_of_any_size(sent: list[Frame], size: int, beat: bytes) -> None:
    data = b"".join(encode(frame.command, frame.headers, frame.body) + beat for frame in sent)
    reader, found = Frames(), []
    for start in range(0, len(data), size):
        found += list(reader.feed(data[start : start + size]))
    assert [(frame.command, frame.body) for frame in found] == [(frame.command, frame.body) for frame in sent]
    for got, wanted in zip(found, sent, strict=True):
        assert {name: value for name, value in got.headers.items() if name != "content-length"} == wanted.headers


def test_a_frame_with_windows_line_ends() -> None:
    (frame,) = Frames().feed(b"ERROR\r\nmessage:no\\cgood\r\n\r\ntext\0")
    assert (frame.headers["message"], frame.body) == ("no:good", b"text")


def test_the_first_of_equal_headers_counts() -> None:
    (frame,) = Frames().feed(b"RECEIPT\nreceipt-id:1\nreceipt-id:2\n\n\0")
    assert frame.headers["receipt-id"] == "1"


def test_connect_is_written_without_escapes() -> None:
    assert encode("CONNECT", {"passcode": "a:b\\"}) == b"CONNECT\npasscode:a:b\\\n\n\0"
    assert encode("SEND", {"vo": "a:b\\\n"}) == b"SEND\nvo:a\\cb\\\\\\n\n\n\0"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\nno colon\n\n\0",
        b"ERROR\ncontent-length:-1\n\n\0",
        b"ERROR\ncontent-length:99999999\n\n\0",
        b"ERROR\ncontent-length:1\n\nab\0",
        b"x" * (FRAME_MAX + 1),
        b"ERROR\na:b\n\n" + b"x" * (FRAME_MAX + 1),
    ],
)
def test_what_is_not_stomp_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        list(Frames().feed(data))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    reader = Frames()
    try:
        list(reader.feed(data))
    except BadFrame:
        return
