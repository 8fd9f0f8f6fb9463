"""The answer to PROPFIND (RFC 4918 §9.1): incremental, without DTD or entities, bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote
from xml.parsers import expat

RESOURCES_MAX: Final = 1_000_000
DEPTH_MAX: Final = 32
TEXT_MAX: Final = 16 * 1024

REQUEST: Final = (
    b'<?xml version="1.0" encoding="utf-8"?>\n'
    b'<D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getcontentlength/><D:getlastmodified/>'
    b"</D:prop></D:propfind>"
)

_TEXTS: Final = frozenset(
    {"DAV: href", "DAV: getcontentlength", "DAV: getlastmodified", "DAV: iscollection", "DAV: status"}
)


@dataclass(slots=True)
class Resource:
    """One row of the answer."""

    href: str = ""
    """As sent: a path or a URL, encoded by most servers, raw by XRootD."""
    is_directory: bool = False
    size_bytes: int | None = None
    modified: str | None = None
    """The text of `getlastmodified`."""


class Unreadable(ValueError):
    """The body is no multistatus that may be read."""


class PropfindParser:
    """Feed blocks, then take `resources` after `finish`; Unreadable from either for what is not allowed."""

    def __init__(self) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        # Entities need a DTD: without one there is neither expansion nor anything to fetch.
        parser.StartDoctypeDeclHandler = self._doctype
        self._parser = parser
        self._depth = 0
        self._text: list[str] | None = None
        self._n_text = 0
        self._current: Resource | None = None
        self._is_multistatus = False
        self.resources: list[Resource] = []

    def feed(self, block: bytes) -> None:
        """Take the next bytes."""
        self._run(block, final=False)

    def finish(self) -> list[Resource]:
        """The end of the body; the rows in the server's order."""
        self._run(b"", final=True)
        if not self._is_multistatus:
            msg = "no multistatus"
            raise Unreadable(msg)
        return self.resources

    def _run(self, block: bytes, *, final: bool) -> None:
        try:
            self._parser.Parse(block, final)
        except expat.ExpatError as failure:
            msg = f"not well-formed XML: {expat.ErrorString(failure.code)}"
            raise Unreadable(msg) from None

    def _doctype(self, *_: object) -> None:
        msg = "a document type declaration"
        raise Unreadable(msg)

    def _start(self, name: str, _: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            msg = "elements nested too deeply"
            raise Unreadable(msg)
        if name == "DAV: multistatus":
            self._is_multistatus = True
        elif name == "DAV: response":
            self._current = Resource()
        elif name == "DAV: collection" and self._current is not None:
            self._current.is_directory = True
        self._text = [] if name in _TEXTS else None
        self._n_text = 0

    def _characters(self, text: str) -> None:
        if self._text is None:
            return
        self._n_text += len(text)
        if self._n_text > TEXT_MAX:
            msg = "a text of more than 16 KiB"
            raise Unreadable(msg)
        self._text.append(text)

    def _end(self, name: str) -> None:
        self._depth -= 1
        current = self._current
        if current is None:
            return
        if name == "DAV: response":
            self.resources.append(current)
            self._current = None
            if len(self.resources) > RESOURCES_MAX:
                msg = "too many entries"
                raise Unreadable(msg)
        elif self._text is not None and name in _TEXTS:
            self._property(current, name, "".join(self._text).strip())
            self._text = None

    @staticmethod
    def _property(current: Resource, name: str, text: str) -> None:
        if name == "DAV: href":
            current.href = current.href or text
        elif name == "DAV: getcontentlength" and text.isascii() and text.isdigit() and len(text) < 20:  # noqa: PLR2004
            current.size_bytes = int(text)
        elif name == "DAV: getlastmodified" and text:
            current.modified = text
        elif name == "DAV: iscollection" and text == "1":
            # XRootD 5 sends this instead of a resourcetype.
            current.is_directory = True


def path_of(href: str) -> str:
    """The decoded path of an href, without host, without slashes at its end, without double slashes.

    Whether a server encodes its hrefs shows only in the text: a raw name that holds a valid escape
    (`a%20b` on XRootD 5) cannot be told from an encoded one, and is taken as encoded.
    """
    path = href
    if "://" in href:
        path = "/" + href.partition("://")[2].partition("/")[2]
    return "/" + "/".join(part for part in unquote(path).split("/") if part)
