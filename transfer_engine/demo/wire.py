"""Texts of the protocol: digests, markers, property listings, ranges; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from protocols.checksum import WIRE_NAMES, Checksum, algorithm_name, to_base64
from transfer_engine.demo.kinds import Behaviour

TRANSFER_PREFIX: Final = "transferheader"

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


def wanted_algorithm(header: str, behaviour: Behaviour) -> str:
    """The digest to answer a `Want-Digest` or `Want-Repr-Digest` with.

    XRootD takes the first name that it knows, ignores weights, and answers with its first
    configured algorithm when it knows none.
    """
    for part in header.split(","):
        name = re.split("[;=]", part, maxsplit=1)[0]
        try:
            known = algorithm_name(name)
        except ValueError:
            continue
        if known in behaviour.algorithms:
            return known
    return behaviour.algorithms[0]


def digest_header(checksum: Checksum, behaviour: Behaviour) -> str:
    """The value of `Digest` (RFC 3230): 32-bit sums in hex, but crc32c as XRootD 5 writes it, the rest in base64."""
    name = WIRE_NAMES.get(checksum.algorithm, checksum.algorithm)
    if checksum.algorithm != "adler32":
        return f"{name}={to_base64(checksum)}"
    value = checksum.value.lstrip("0") or "0" if behaviour.trims_zeros else checksum.value
    return f"{name}={value}"


def repr_digest_header(checksum: Checksum) -> str:
    """The value of `Repr-Digest` (RFC 9530)."""
    name = "adler" if checksum.algorithm == "adler32" else WIRE_NAMES.get(checksum.algorithm, checksum.algorithm)
    return f"{name}=:{to_base64(checksum)}:"


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What `TransferHeaderX: v` asks the active party to send to the passive one."""
    return {
        name[len(TRANSFER_PREFIX) :]: value
        for name, value in headers.items()
        if name.lower().startswith(TRANSFER_PREFIX) and len(name) > len(TRANSFER_PREFIX)
    }


def marker_text(*, at_s: float, bytes_done: int, remote: str, margin: str) -> bytes:
    """One performance marker; `remote` is `tcp:HOST:PORT` or empty."""
    lines = [
        f"Timestamp: {int(at_s)}",
        "Stripe Index: 0",
        f"Stripe Bytes Transferred: {bytes_done}",
        "Total Stripe Count: 1",
    ]
    if remote:
        lines.append(f"RemoteConnections: {remote}")
    body = "".join(f"{margin}{line}\n" for line in lines)
    return f"Perf Marker\n{body}End\n".encode()


def byte_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """(start, stop) of a single `Range`, the whole file without or with one that is not understood; None: 416."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return 0, size_bytes
    first, last = found.groups()
    if not first:
        return max(0, size_bytes - int(last)), size_bytes
    start, stop = int(first), min(size_bytes, int(last) + 1 if last else size_bytes)
    return (start, stop) if start < stop else None


def listing(rows: Iterable[tuple[str, int | None]], *, encodes_href: bool) -> bytes:
    """A `multistatus` (RFC 4918) over (path, size), with size None for directories."""
    parts = ['<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">']
    for path, size_bytes in rows:
        href = path if size_bytes is not None or path == "/" else path + "/"
        href = quote(href) if encodes_href else href
        kind = "<D:collection/>" if size_bytes is None else ""
        length = "" if size_bytes is None else f"<D:getcontentlength>{size_bytes}</D:getcontentlength>"
        parts.append(
            f"<D:response><D:href>{escape(href)}</D:href><D:propstat><D:prop>"
            f"<D:resourcetype>{kind}</D:resourcetype>{length}"
            "</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        )
    parts.append("</D:multistatus>\n")
    return "".join(parts).encode()
