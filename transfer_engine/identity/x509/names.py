"""Subjects of certificates as one line, in the form that the grid knows them by.

`/DC=ch/DC=cern/OU=Users/CN=alice` is OpenSSL's old form (`X509_NAME_oneline`), in which FTS3, gridmaps and `.lsc` files
have them. As OpenSSL writes it, different names may look alike: `CN=a/CN=b` is one part or two. Here they never do: a
slash that begins what looks like another part, and a backslash that begins what looks like an escape, are written as
escapes; parts with several values, which the old form cannot tell from several parts, are refused. All other slashes
stay as they are in gridmaps and `.lsc` files (`/CN=host/a.example.org`); OpenSSL 3 puts a backslash before them, which
is read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from cryptography import x509

from transfer_engine.identity.api import BadCredential

DN_MAX: Final = 1024
"""Longest name, in characters."""

SHORT: Final[Mapping[str, str]] = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.17": "postalCode",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
}
"""OpenSSL's short names; whatever is not here is written as dotted numbers, as OpenSSL does."""

_SPELLINGS: Final[Mapping[str, str]] = {
    "email": "emailAddress",
    "e": "emailAddress",
    "emailaddress": "emailAddress",
    "userid": "UID",
    "uid": "UID",
    "surname": "SN",
    "s": "ST",
    "sp": "ST",
}
"""Other words for the same parts, in files that people and older tools write."""

_PART: Final = re.compile(r"/([A-Za-z][A-Za-z0-9]*|[0-9]+(?:\.[0-9]+)+)=")
_SLASH: Final = re.compile(r"\\([/+])")
_ESCAPE: Final = re.compile(r"\\x[0-9A-Fa-f]{2}")
_PLAIN: Final = range(0x20, 0x7F)
_BY_NAME: Final = {short: x509.ObjectIdentifier(dotted) for dotted, short in SHORT.items()} | {
    "E": x509.ObjectIdentifier("1.2.840.113549.1.9.1"),
    "EMAILADDRESS": x509.ObjectIdentifier("1.2.840.113549.1.9.1"),
    "STREET": x509.ObjectIdentifier("2.5.4.9"),
}


def _value(text: str) -> str:
    """A value, in UTF-8, with what is not printable or would be misread as escapes."""
    text = _ESCAPE.sub(lambda found: "\\x5C" + found[0][1:], text)
    text = _PART.sub(lambda found: "\\x2F" + found[0][1:], text)
    return "".join(chr(byte) if byte in _PLAIN else f"\\x{byte:02X}" for byte in text.encode("utf-8"))


def dn_of(name: x509.Name) -> str:
    """A name in one line.

    Raises: BadCredential: it is empty, too long, or a part has several values.
    """
    parts: list[str] = []
    for rdn in name.rdns:
        if len(rdn) != 1:
            raise BadCredential("a part of the certificate's subject has several values")
        (one,) = rdn
        if not isinstance(one.value, str):
            raise BadCredential("a part of the certificate's subject is not text")
        parts.append(f"/{SHORT.get(one.oid.dotted_string, one.oid.dotted_string)}={_value(one.value)}")
    line = "".join(parts)
    if not line:
        raise BadCredential("the certificate has no subject")
    if len(line) > DN_MAX:
        raise BadCredential(f"the certificate's subject is longer than {DN_MAX} characters")
    return line


def usual_spelling(line: str) -> str:
    r"""The same name, however it is spelled (`/Email=`, `/USERID=`, `\/`): for names out of files and settings."""
    line = _SLASH.sub(lambda found: "\\x2F" if _PART.match("/" + line[found.end() :]) else found[1], line)

    def spell(found: re.Match[str]) -> str:
        return f"/{_SPELLINGS.get(found[1].lower(), found[1])}="

    return _PART.sub(spell, line).strip()


def dn_from_text(text: str) -> str:
    """A name as a web server forwards it, in the old form or in that of RFC 2253 (`CN=alice,DC=org`).

    Raises: BadCredential: it is neither.
    """
    text = text.strip()
    if text.startswith("/"):
        if _PART.match(text) is None or len(text) > DN_MAX or any(ord(one) not in _PLAIN for one in text):
            raise BadCredential("the forwarded subject cannot be read")
        return usual_spelling(text)
    try:
        return dn_of(x509.Name.from_rfc4514_string(text, _BY_NAME))
    except (ValueError, TypeError) as error:
        raise BadCredential("the forwarded subject cannot be read") from error
