"""Reads DER (X.690), for the few structures that `cryptography` does not know: proxy information and VOMS attributes.

Strict: definite and shortest lengths, tags below 31, nothing left over. Work and memory grow with the input and nothing
else, and nothing here calls itself. The ASN.1 interface that `cryptography` has since version 47 is not stable yet, and
a reader of one value after another is all that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
UTF8_STRING: Final = 0x0C
GENERALIZED_TIME: Final = 0x18
BOOLEAN: Final = 0x01
SEQUENCE: Final = 0x30
SET: Final = 0x31

_HIGH_TAG: Final = 0x1F
_LONG: Final = 0x80
_LENGTH_BYTES_MAX: Final = 3
"""16 MiB: more than any request may have."""
_ARC_BITS_MAX: Final = 64
_INTEGER_BYTES_MAX: Final = 64


class Malformed(ValueError):
    """It is not DER, or not what it should be."""


def context(number: int) -> int:
    """The tag of `[number]`, constructed."""
    return 0xA0 | number


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its tag, what is in it, and both with the length, as they came."""

    tag: int
    content: bytes
    whole: bytes

    def parts(self, tag: int = SEQUENCE) -> tuple[Value, ...]:
        """The values in it. Raises: Malformed: also when its tag is another."""
        return read_all(self.expect(tag).content)

    def expect(self, tag: int) -> Value:
        """Itself. Raises: Malformed: its tag is another."""
        if self.tag != tag:
            msg = f"tag {self.tag:#04x} where {tag:#04x} is expected"
            raise Malformed(msg)
        return self

    def integer(self) -> int:
        """A whole number."""
        content = self.expect(INTEGER).content
        if not 0 < len(content) <= _INTEGER_BYTES_MAX:
            msg = "an INTEGER without or with too many bytes"
            raise Malformed(msg)
        return int.from_bytes(content, "big", signed=True)

    def oid(self) -> str:
        """An object identifier, dotted."""
        content = self.expect(OBJECT_IDENTIFIER).content
        if not content or content[-1] & _LONG:
            msg = "an OBJECT IDENTIFIER that does not end"
            raise Malformed(msg)
        arcs: list[int] = []
        arc = 0
        for byte in content:
            arc = arc << 7 | byte & 0x7F
            if arc.bit_length() > _ARC_BITS_MAX:
                msg = "an OBJECT IDENTIFIER with too large an arc"
                raise Malformed(msg)
            if not byte & _LONG:
                arcs.append(arc)
                arc = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(str(number) for number in (first, arcs[0] - 40 * first, *arcs[1:]))

    def text(self) -> str:
        """The characters of a string type, or of an OCTET STRING that has some."""
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            msg = "a string that is not UTF-8"
            raise Malformed(msg) from error

    def instant(self) -> float:
        """A GeneralizedTime, in seconds since the epoch; RFC 5280 allows `YYYYMMDDHHMMSSZ` only."""
        text = self.expect(GENERALIZED_TIME).content
        if len(text) != len("20260101000000Z") or not text[:-1].isdigit() or text[-1:] != b"Z":
            msg = "a time that is not YYYYMMDDHHMMSSZ"
            raise Malformed(msg)
        try:
            return datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError as error:
            msg = "a time that does not exist"
            raise Malformed(msg) from error


def _next(data: bytes, at: int) -> tuple[Value, int]:
    if at + 1 >= len(data):
        msg = "it ends too early"
        raise Malformed(msg)
    tag, length = data[at], data[at + 1]
    if tag & _HIGH_TAG == _HIGH_TAG:
        msg = "a tag above 30"
        raise Malformed(msg)
    start = at + 2
    if length & _LONG:
        n_bytes = length & 0x7F
        digits = data[start : start + n_bytes]
        start += n_bytes
        # No bytes: the indefinite form of BER. A leading zero, or a number below 128: not the shortest form.
        if not 0 < n_bytes <= _LENGTH_BYTES_MAX or len(digits) < n_bytes or digits[0] == 0:
            msg = "a length that is not DER"
            raise Malformed(msg)
        length = int.from_bytes(digits, "big")
        if length < _LONG:
            msg = "a length that is not DER"
            raise Malformed(msg)
    end = start + length
    if end > len(data):
        msg = "it ends too early"
        raise Malformed(msg)
    return Value(tag, data[start:end], data[at:end]), end


def read_all(data: bytes) -> tuple[Value, ...]:
    """The values that follow each other. Raises: Malformed."""
    values: list[Value] = []
    at = 0
    while at < len(data):
        value, at = _next(data, at)
        values.append(value)
    return tuple(values)


def read(data: bytes) -> Value:
    """The one value that this is. Raises: Malformed: also when something follows it."""
    value, end = _next(data, 0)
    if end != len(data):
        msg = "something follows it"
        raise Malformed(msg)
    return value
