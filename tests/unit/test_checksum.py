"""Checksums as users and servers write them."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.checksum import (
    WIDTHS,
    Checksum,
    compute,
    from_hex,
    hasher,
    parse,
    parse_digest_header,
    parse_repr_digest_header,
    to_base64,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ADLER32:02fa10b3", "adler32:02fa10b3"),
        ("adler32:2FA10B3", "adler32:02fa10b3"),
        ("2fa10b3", "adler32:02fa10b3"),
        (" md5:D41D8CD98F00B204E9800998ECF8427E ", "md5:d41d8cd98f00b204e9800998ecf8427e"),
        ("sha-256:" + "a" * 64, "sha256:" + "a" * 64),
        ("crc32c:0x1", "crc32c:00000001"),
    ],
)
def test_users_spellings(text, expected):
    assert str(parse(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "md5:", "md5:abc", "adler32:123456789", "adler32:xyz", "crc64:12", "md5:" + "a" * 31]
)
def test_wrong_spellings(text):
    with pytest.raises(ValueError, match="checksum"):
        parse(text)


def test_digest_headers_of_real_servers():
    md5 = hashlib.md5(b"x").hexdigest()
    header = f"adler32=4af106b0,md5={to_base64(Checksum('md5', md5))}, UNIXcksum=12, crc32c=AAAAAQ=="
    assert {name: found.value for name, found in parse_digest_header(header).items()} == {
        "adler32": "4af106b0",
        "md5": md5,
        "crc32c": "00000001",
    }
    assert parse_digest_header(f"md5={md5}")["md5"].value == md5
    assert parse_digest_header("adler32=2cb7cde")["adler32"].value == "02cb7cde"
    assert parse_digest_header("garbage, =, adler32, adler32=, md5=@@") == {}


def test_repr_digest_headers():
    value = to_base64(Checksum("adler32", "4af106b0"))
    assert parse_repr_digest_header(f"adler=:{value}:, sha-256=:AAAA:, x=1") == {
        "adler32": Checksum("adler32", "4af106b0")
    }


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_sums_grow_block_by_block(data, cut):
    for name in WIDTHS:
        digest = hasher(name)
        digest.update(data[:cut])
        digest.update(data[cut:])
        found = digest.checksum()
        assert found == compute(name, data)
        assert len(found.value) == WIDTHS[name]
        assert parse_repr_digest_header(f"{name}=:{to_base64(found)}:") == {name: found}
    assert int(compute("adler32", data).value, 16) == zlib.adler32(data)
    assert int(compute("crc32", data).value, 16) == zlib.crc32(data)
    assert compute("sha256", data).value == hashlib.sha256(data).hexdigest()


def test_the_castagnoli_test_vector():
    assert compute("crc32c", b"123456789") == from_hex("crc32c", "e3069283")


def test_zeros_are_a_value_and_not_nothing():
    assert from_hex("adler32", "0").value == "00000000"
