"""The COPY body's parser: what it understands, and that it does not care how bytes were cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.api import Marker
from protocols.http.markers import BODY_MAX, BYTES_MAX, LINE_MAX, Event, Failure, Malformed, MarkerParser, Success


def parse(*blocks: bytes) -> list[Event]:
    parser = MarkerParser()
    events = [event for block in blocks for event in parser.feed(block)]
    return events + parser.finish()


def marker(n_bytes: object, index: object = 0, extra: str = "") -> bytes:
    text = f"Perf Marker\nTimestamp: 1\nStripe Index: {index}\nStripe Bytes Transferred: {n_bytes}\n{extra}End\n"
    return text.encode()


def test_a_usual_body_ends_without_a_newline():
    body = marker(0, extra="Total Stripe Count: 1\nRemoteConnections: tcp:127.0.0.1:80,tcp:[::1]:81\n")
    connections = ("tcp:127.0.0.1:80", "tcp:[::1]:81")
    assert parse(body + marker(7) + b"success: Created") == [
        Marker(bytes_done=0, connections=connections),
        Marker(bytes_done=7, connections=connections),
        Success("success: Created"),
    ]


@pytest.mark.parametrize("line", [b"success: Created", b"Success", b"  SUCCESS\r", b"success"])
def test_ways_to_say_success(line):
    assert [type(event) for event in parse(line + b"\n")] == [Success]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"failure: disk on fire", "disk on fire"),
        (b"Failed: x", "x"),
        (b"  failure: a: b\r\n", "a: b"),
        (b"aborted", "aborted"),
        (b"failure:", "failure:"),
        (b"failure: \x1b[31mred\xff", "[31mred\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_ways_to_say_failure(line, text):
    assert parse(line) == [Failure(text)]


def test_indented_markers_with_carriage_returns():
    body = b"Perf Marker\r\n    Timestamp: 5\r\n    Stripe Index: 0\r\n    Stripe Bytes Transferred: 12\r\nEnd\r\n"
    assert parse(body) == [Marker(bytes_done=12)]


def test_stripes_are_summed_by_index():
    body = marker(5, 0) + marker(6, 1) + marker(9, 0)
    assert [(event.bytes_done, event.n_stripes) for event in parse(body)] == [(5, 1), (11, 2), (15, 2)]


@pytest.mark.parametrize("index", [-1, 8192, 10**30, "x"])
def test_impossible_stripes_still_count_as_a_sign_of_life(index):
    assert parse(marker(5, 0) + marker(1000, index))[-1].bytes_done in {5, 1000}
    assert parse(marker(5, 0) + marker(1000, 8192))[-1] == Marker(bytes_done=5)


@pytest.mark.parametrize(
    ("sent", "seen"),
    [("-5", 0), ("1" + "0" * 30, BYTES_MAX), ("12.5", 12), ("abc", 0), ("", 0), (str(2**63), BYTES_MAX)],
)
def test_counts_are_clamped(sent, seen):
    assert parse(marker(sent)) == [Marker(bytes_done=seen)]


def test_bytes_never_go_backwards():
    assert [event.bytes_done for event in parse(marker(10) + marker(3) + marker(11))] == [10, 10, 11]


def test_unknown_lines_and_keys_are_ignored():
    body = b"9b\nhello: world\nPerf Marker\nState: Running\nStripe Bytes Transferred: 4\nNonsense\nEnd\nEnd\n"
    assert parse(body + b"success") == [Marker(bytes_done=4), Success("success")]


def test_a_marker_without_its_end_is_forgotten():
    assert parse(b"Perf Marker\nStripe Bytes Transferred: 4\n" + marker(6)) == [Marker(bytes_done=6)]


def test_nothing_after_the_result_counts():
    assert parse(b"success: x\nfailure: y\n" + marker(4), b"failure: z") == [Success("success: x")]


def test_no_result_is_no_event():
    assert parse(b"Perf Marker\nStripe Bytes") == []
    assert parse(b"succes") == []
    assert parse() == []


def test_an_endless_line_is_a_breach():
    events = parse(b"x" * 1_000_000)
    assert [type(event) for event in events] == [Malformed]
    assert parse(b"success " + b"x" * LINE_MAX + b"\n") == [Malformed(events[0].reason)]


def test_an_endless_body_is_a_breach():
    parser = MarkerParser()
    line = b"x" * 1000 + b"\n"
    fed, events = 0, []
    while not events:
        events = parser.feed(line * 100)
        fed += len(line) * 100
    assert isinstance(events[0], Malformed)
    assert BODY_MAX <= fed <= BODY_MAX + len(line) * 100


LINES = st.sampled_from(
    [
        b"Perf Marker",
        b"  perf marker\r",
        b"End",
        b"Stripe Index: 1",
        b"Stripe Index: -3",
        b"Stripe Bytes Transferred: 17",
        b"\tStripe Bytes Transferred: 99",
        b"RemoteConnections: tcp:1.2.3.4:5",
        b"junk",
        b"",
        b"x" * (LINE_MAX + 1),
        b"failure: no",
        b"success: Created",
        b"\xff\xfe:\x00",
    ]
)


@given(
    lines=st.lists(LINES, max_size=20), tail=st.binary(max_size=20), cuts=st.lists(st.integers(0, 6000), max_size=12)
)
def test_chunking_makes_no_difference(lines, tail, cuts):
    body = b"\n".join([*lines, tail])
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    blocks = [body[start:end] for start, end in pairwise(places)]
    assert parse(*blocks) == parse(body)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(body):
    events = parse(body)
    assert all(not isinstance(event, Marker) or 0 <= event.bytes_done <= BYTES_MAX for event in events)
    assert sum(not isinstance(event, Marker) for event in events) <= 1


def test_byte_by_byte():
    body = marker(5) + b"failure: at the end"
    assert parse(*(bytes([byte]) for byte in body)) == [Marker(bytes_done=5), Failure("at the end")]
