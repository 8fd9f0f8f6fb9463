"""URLs as the engine needs them: is it one, which endpoint, is it the same place.

The engine keeps URLs exactly as they were submitted (Rucio compares them byte for byte) and looks
at them only here. One parser serves the check and the key, so that the two cannot disagree.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import xxhash

from transfer_engine.errors import Invalid

URL_MAX: Final = 4096
"""Longest URL, in characters."""

SAME_SCHEME: Final = {"dav": "http", "davs": "https"}
"""Spelling → the scheme that it means on the wire."""
_DEFAULT_PORT: Final = {"http": 80, "https": 443}
_ESCAPE: Final = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^/?#@:\[\]\\\s]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?"
)
_SLASHES: Final = re.compile("/+")
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\]")


class Parts(NamedTuple):
    """One URL, taken apart; scheme and host in lower case."""

    scheme: str
    host: str
    port: str | None
    path: str
    query: str

    @property
    def endpoint(self) -> str:
        """FTS's key of a storage: `scheme://host`, no port."""
        return f"{self.scheme}://{self.host}"


def parse(url: str, field: str) -> Parts:
    """Take a storage URL apart; Invalid names `field` and says what was expected."""
    if len(url) > URL_MAX:
        raise Invalid(f"URL is longer than {URL_MAX} characters", field=field)
    if _FORBIDDEN.search(url):
        raise Invalid("URL holds a blank, a control character or a backslash; percent-encode it", field=field)
    if not url.isascii() and any("\ud800" <= character <= "\udfff" for character in url):
        raise Invalid("URL cannot be written in UTF-8; percent-encode it", field=field)
    if url[:4].lower() == "file":
        for local in ("file:///", "file://localhost/"):
            if url[: len(local)].lower() == local:
                # A local name may hold anything, also what separates the parts of other URLs.
                return _checked(Parts("file", "localhost", None, url[len(local) - 1 :], ""), url, field)
    match = _URL.fullmatch(url)
    if match is None:
        raise Invalid(_why_not(url), field=field)
    scheme, host, port, path, query = match.groups()
    if port is not None and not 0 < int(port) <= 65535:  # noqa: PLR2004 - TCP's range
        raise Invalid(f"port must be 1 to 65535 ({url})", field=field)
    return _checked(Parts(scheme.lower(), host.lower(), port, path or "", query or ""), url, field)


def _checked(parts: Parts, url: str, field: str) -> Parts:
    path = plain_path(parts.path)
    if path.strip("/") == "":
        raise Invalid(f"Missing path ({url})", field=field)
    if "/." in path and any(part in {".", ".."} for part in path.split("/")):
        raise Invalid(f"path must not hold '.' or '..' ({url})", field=field)
    return parts


def _why_not(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return f"Missing scheme ({url[:200]}), expected scheme://host/path"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return "URL must not hold a user or password"
    if not authority.partition(":")[0]:
        return f"Missing host ({url[:200]})"
    if "#" in rest:
        return f"URL must not hold a fragment ({url[:200]})"
    return f"not a URL of the form scheme://host[:port]/path ({url[:200]})"


def same_place(parts: Parts) -> str:
    """One spelling for every URL of the same file.

    `dav` is `http`; default ports, leading zeros of ports, a dot behind the host and needless slashes go;
    escapes of characters that need none are undone, the others are written one way (RFC 3986 §6.2.2).
    """
    scheme = SAME_SCHEME.get(parts.scheme, parts.scheme)
    number = _DEFAULT_PORT.get(scheme) if parts.port is None else int(parts.port)
    port = "" if number == _DEFAULT_PORT.get(scheme) else f":{number}"
    path = plain_path(parts.path)
    if "//" in path:
        path = _SLASHES.sub("/", path)
    return f"{scheme}://{parts.host.rstrip('.')}{port}/{path.strip('/')}"


def plain_path(path: str) -> str:
    """A path with escapes in normal form."""
    return _ESCAPE.sub(_unescaped, path) if "%" in path else path


def _unescaped(match: re.Match[str]) -> str:
    character = chr(int(match[0][1:], 16))
    return character if character in _UNRESERVED else match[0].upper()


def destination_key(parts: Parts) -> int:
    """A signed 64-bit number that is equal for URLs of the same file; two files share one by chance 1 in 2⁶⁴."""
    return key_of(same_place(parts))


def key_of(place: str) -> int:
    """The `destination_key` of what `same_place` gave."""
    return xxhash.xxh3_64_intdigest(place.encode()) - (1 << 63)
