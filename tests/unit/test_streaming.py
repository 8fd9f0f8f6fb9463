"""Copies through this process."""

from __future__ import annotations

import pytest

from protocols.api import CopyRequest, Mode, Timeouts
from protocols.checksum import compute
from protocols.errors import Missing, SizeMismatch, Stalled, TimedOut
from protocols.scripted import Lie, Rule, ScriptedAdapter
from protocols.streaming import stream_copy
from transfer_engine.testing import run_virtual

DATA = bytes(range(256)) * 50_000


def storages() -> ScriptedAdapter:
    adapter = ScriptedAdapter()
    adapter.storage("sim://a").add_bytes("/f", DATA)
    adapter.storage("sim://b")
    return adapter


def request(**more) -> CopyRequest:
    return CopyRequest(source_url="sim://a/f", destination_url="sim://b/f", mode=Mode.STREAM, **more)


def copy(adapter: ScriptedAdapter, asked: CopyRequest, markers: list | None = None, digest: str = "adler32"):
    found = [] if markers is None else markers
    return run_virtual(lambda: stream_copy(adapter, adapter, asked, found.append, digest=digest))


@pytest.mark.parametrize("digest", ["adler32", "md5", "crc32c"])
def test_bytes_arrive_and_are_summed_on_the_way(digest):
    adapter, markers = storages(), []
    streamed = copy(adapter, request(), markers, digest)
    assert streamed.checksum == compute(digest, DATA)
    assert streamed.end.bytes_done == len(DATA) == markers[-1].bytes_done
    assert streamed.end.n_markers == len(markers)
    copied = adapter.storage("sim://b").files()["/f"]
    assert copied.checksum("adler32") == compute("adler32", DATA)


def test_an_empty_file():
    adapter = storages()
    adapter.storage("sim://a").add("/f", size_bytes=0)
    assert copy(adapter, request()).end.bytes_done == 0


def test_a_source_that_is_cut_short():
    adapter = storages()
    adapter.rule("sim://a", operations={"read"}, lie=Lie.SHORT)
    with pytest.raises(SizeMismatch):
        copy(adapter, request())


def test_a_missing_source():
    adapter = storages()
    adapter.storage("sim://a").remove("/f")
    with pytest.raises(Missing):
        copy(adapter, request())


def test_bytes_that_do_not_move():
    adapter = storages()
    adapter.add_rule(Rule(match="sim://a", operations=frozenset({"read"}), rate_bytes_s=1.0))
    with pytest.raises(Stalled):
        copy(adapter, request())


def test_a_copy_that_takes_too_long():
    adapter = storages()
    adapter.add_rule(Rule(match="sim://a", operations=frozenset({"read"}), rate_bytes_s=100_000.0))
    with pytest.raises(TimedOut):
        copy(adapter, request(timeouts=Timeouts(total_s=20.0)))
