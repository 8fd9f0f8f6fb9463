"""What is said of storages to all their users names nobody's files."""

from __future__ import annotations

import pytest

from transfer_engine.health.wording import nameless


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("HEAD https://s.example:1094/cta/secret/f.root: HTTP 503", "HEAD https://s.example:1094/...: HTTP 503"),
        ("HTTP 500: Unable to open /cta/secret/f.root; no such file", "HTTP 500: Unable to open /...; no such file"),
        ("'davs://d.example/cta/a b' is busy", "'davs://d.example/... b' is busy"),
        ("/cta/secret", "/..."),
        ("cannot read (path=/cta/secret).", "cannot read (path=/...)."),
        ("HTTP/1.1 503 at 5 MB/s, n/a", "HTTP/1.1 503 at 5 MB/s, n/a"),
        ("Cannot connect to host s.example:1094 ssl:default [Connect call failed]",) * 2,
        ("", ""),
    ],
)
def test_a_storages_words_without_names_of_files(said: str, shown: str) -> None:
    assert nameless(said) == shown


@pytest.mark.parametrize("said", ["/" * 5000, "a://b" + "/x:." * 2000, "https://" * 1000, "/:" * 3000 + "\n"])
def test_reading_it_takes_no_time(said: str) -> None:
    assert len(nameless(said)) <= len(said) + 10
