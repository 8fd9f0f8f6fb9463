"""Reads the attribute certificates that VOMS puts into proxies (RFC 5755; GFD.182); nothing is believed here yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.chains import UNREADABLE, load
from transfer_engine.identity.x509.der import (
    BIT_STRING,
    BOOLEAN,
    OCTET_STRING,
    SEQUENCE,
    SET,
    UTF8_STRING,
    Malformed,
    Value,
    context,
    read,
    read_all,
)

AC_MAX: Final = 64 * 1024
"""Bytes of all attribute certificates of a proxy."""
N_AC_MAX: Final = 8
N_FQANS_MAX: Final = 100
FQAN_MAX: Final = 255

VOMS_AC: Final = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
"""The extension of a proxy with its attribute certificates."""
_FQANS: Final = "1.3.6.1.4.1.8005.100.100.4"
_CERTIFICATES: Final = "1.3.6.1.4.1.8005.100.100.10"
_TARGETS: Final = "2.5.29.55"
_KNOWN: Final = frozenset(
    {
        _CERTIFICATES,
        _TARGETS,
        "1.3.6.1.4.1.8005.100.100.11",  # generic attributes
        "2.5.29.35",  # authorityKeyIdentifier
        "2.5.29.56",  # noRevAvail
    }
)
_DIRECTORY_NAME: Final = 4
_URI_TAG: Final = 0x86
_VERSION_2: Final = 1
_TARGET_DEPTH: Final = 4
_ENCODINGS: Final = {
    UTF8_STRING: "utf-8",
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "utf-8",  # T61String, read as `cryptography` reads it
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
"""String types of names, by tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeCertificate:
    """What one says.

    Attributes:
        holder_issuer, holder_serial: of the certificate that it is about.
        issuer: subject of the VOMS server's certificate.
        vo: the VO, out of the authority of its attributes (`vo://host:port`).
        fqans: as they are written, the primary one first.
        targets: hosts that it is meant for; None: all.
        certificates: chain of the VOMS server, its own first; may be empty.
        signed: the bytes that are signed.
        algorithm: DER of the identifier of the signature's algorithm.
    """

    holder_issuer: x509.Name
    holder_serial: int
    issuer: x509.Name
    not_before: float
    not_after: float
    vo: str
    fqans: tuple[str, ...]
    targets: tuple[str, ...] | None
    certificates: tuple[x509.Certificate, ...]
    signed: bytes = field(repr=False)
    algorithm: bytes
    signature: bytes = field(repr=False)


def read_attributes(extension: bytes) -> tuple[AttributeCertificate, ...]:
    """The attribute certificates in a proxy's extension.

    Raises: BadCredential: they cannot be read; nothing else, whatever the bytes are.
    """
    if len(extension) > AC_MAX:
        raise BadCredential(f"VOMS attributes of more than {AC_MAX} bytes")
    try:
        (listed,) = read(extension).parts()
        found = listed.parts()
        if not 0 < len(found) <= N_AC_MAX:
            raise BadCredential(f"no or more than {N_AC_MAX} VOMS attribute certificates")
        return tuple(_attribute_certificate(one) for one in found)
    # A ValueError is also what unpacking another number of parts gives, or `cryptography` for a name.
    except (IndexError, *UNREADABLE) as error:
        raise BadCredential("the VOMS attributes cannot be read") from error


def _attribute_certificate(value: Value) -> AttributeCertificate:
    info, algorithm, signature = value.parts()
    version, holder, issuer, inner, _serial, validity, attributes, *rest = info.parts()
    if version.integer() != _VERSION_2 or inner.whole != algorithm.whole:
        msg = "another version, or two different algorithms"
        raise Malformed(msg)
    holder_issuer, holder_serial = _holder(holder)
    begins, ends = validity.parts()
    vo, fqans = _fqans(attributes)
    targets, certificates = _extensions(rest)
    return AttributeCertificate(
        holder_issuer=holder_issuer,
        holder_serial=holder_serial,
        issuer=_issuer(issuer),
        not_before=begins.instant(),
        not_after=ends.instant(),
        vo=vo,
        fqans=fqans,
        targets=targets,
        certificates=certificates,
        signed=info.whole,
        algorithm=algorithm.expect(SEQUENCE).whole,
        signature=_bits(signature),
    )


def _bits(value: Value) -> bytes:
    content = value.expect(BIT_STRING).content
    if content[:1] != b"\0":
        msg = "a signature that is not whole bytes"
        raise Malformed(msg)
    return content[1:]


def _name(general_names: bytes) -> x509.Name:
    """The one directory name in GeneralNames."""
    (one,) = read_all(general_names)
    return _parsed_name(read(one.expect(context(_DIRECTORY_NAME)).content))


def _parsed_name(value: Value) -> x509.Name:
    """A Name: `cryptography` reads those in certificates only."""
    value.expect(SEQUENCE)
    parts: list[x509.RelativeDistinguishedName] = []
    for rdn in value.parts():
        pairs = [pair.parts() for pair in rdn.parts(SET)]
        parts.append(
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(x509.ObjectIdentifier(oid.oid()), _text(text)) for oid, text in pairs]
            )
        )
    return x509.Name(parts)


def _text(value: Value) -> str:
    encoding = _ENCODINGS.get(value.tag)
    if encoding is None:
        msg = "a name with something other than text"
        raise Malformed(msg)
    return value.content.decode(encoding)


def _holder(value: Value) -> tuple[x509.Name, int]:
    (base,) = value.parts()
    issuer, serial, *_unique_id = read_all(base.expect(context(0)).content)
    return _name(issuer.expect(SEQUENCE).content), serial.integer()


def _issuer(value: Value) -> x509.Name:
    (names, *_others) = read_all(value.expect(context(0)).content)
    return _name(names.expect(SEQUENCE).content)


def _fqans(attributes: Value) -> tuple[str, tuple[str, ...]]:
    """The VO and its FQANs, out of the one attribute of this kind."""
    found: list[Value] = []
    for attribute in attributes.parts():
        kind, values = attribute.parts()
        if kind.oid() == _FQANS:
            found.append(values)
    (values,) = found
    (syntax,) = values.parts(SET)
    authority, listed = syntax.parts()
    (uri,) = read_all(authority.expect(context(0)).content)
    vo, separator, _ = uri.expect(_URI_TAG).text().partition("://")
    fqans = tuple(one.text() for one in listed.parts() if one.tag in {OCTET_STRING, UTF8_STRING})
    if not vo or not separator or not 0 < len(fqans) <= N_FQANS_MAX:
        msg = "no VO, or no or too many FQANs"
        raise Malformed(msg)
    if any(not one.startswith("/") or len(one) > FQAN_MAX or not one.isprintable() for one in fqans):
        msg = "an attribute that is not an FQAN"
        raise Malformed(msg)
    return vo, fqans


def _extensions(rest: list[Value]) -> tuple[tuple[str, ...] | None, tuple[x509.Certificate, ...]]:
    """Targets and certificates. What is critical and not understood makes all of it unreadable."""
    targets: tuple[str, ...] | None = None
    certificates: tuple[x509.Certificate, ...] = ()
    listed = [one for one in rest if one.tag == SEQUENCE]
    if len(listed) > 1:
        msg = "two lists of extensions"
        raise Malformed(msg)
    for extension in listed[0].parts() if listed else ():
        kind, *middle, content = extension.parts()
        oid = kind.oid()
        if oid not in _KNOWN and any(one.expect(BOOLEAN).content != b"\0" for one in middle):
            raise BadCredential(f"VOMS attributes with the unknown critical extension {oid}")
        inside = content.expect(OCTET_STRING).content
        if oid == _TARGETS:
            targets = _targets(inside)
        elif oid == _CERTIFICATES:
            (chain,) = read(inside).parts()
            certificates = tuple(load(one.whole) for one in chain.parts())
    return targets, certificates


def _targets(inside: bytes) -> tuple[str, ...]:
    """Host names; VOMS writes them as URIs, each in `[0]`."""
    found: list[str] = []
    pending = [(read(inside), 0)]
    while pending:
        value, depth = pending.pop()
        if value.tag == _URI_TAG:
            found.append(value.text())
        elif depth < _TARGET_DEPTH and value.tag in {SEQUENCE, context(0)}:
            pending += [(part, depth + 1) for part in read_all(value.content)]
        else:
            msg = "a target that is not a host"
            raise Malformed(msg)
    return tuple(found)
