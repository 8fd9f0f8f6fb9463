"""URLs as they go on the wire: encoded, without our own hints, compared by site."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final
from urllib.parse import urljoin, urlsplit

from yarl import URL

from protocols.errors import Phase, Refused, Scope

URL_MAX: Final = 8192
"""Longest URL that is sent; redirects of EOS carry capabilities of several kB in their query."""

WIRE_SCHEMES: Final = {"http": "http", "dav": "http", "https": "https", "davs": "https"}
_PORTS: Final = {"http": 80, "https": 443}
_HINT: Final = re.compile(r"(?<=[?&])copy_mode=(?:pull|push|streamed|stream)(?:&|$)")
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNSAFE: Final = re.compile(r"[^!#$%&'()*+,\-./:;=?@\[\]_~A-Za-z0-9]")


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", errors="surrogateescape"))


def encoded(url: str) -> str:
    """`url` with everything escaped that may not stand in a request line; escapes in it stay as they are."""
    return _UNSAFE.sub(_escape, _STRAY_PERCENT.sub("%25", url))


@lru_cache(maxsize=4096)
def wire_url(url: str) -> URL:
    """What to connect to: http or https, no fragment, no `copy_mode` hint; Refused for what cannot be sent.

    User information is refused: no storage wants a password there, and it would end in logs.
    """
    scheme, separator, rest = url.partition("://")
    wire = WIRE_SCHEMES.get(scheme.lower()) if separator else None
    if wire is None:
        raise _refused(f"{scheme[:20] if separator else 'a URL without a scheme'}: not a scheme of HTTP storages")
    rest = rest.partition("#")[0]
    if "?" in rest:
        rest = _HINT.sub("", rest).rstrip("?&")
    text = f"{wire}://{encoded(rest)}"
    if len(text) > URL_MAX:
        raise _refused(f"the URL is longer than {URL_MAX} characters")
    try:
        parsed = URL(text, encoded=True)
        host, port = parsed.raw_host, parsed.port
    except ValueError:
        raise _refused("the URL cannot be parsed") from None
    if not host or port == 0:
        raise _refused("the URL has no host")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise _refused("the URL holds a user name or password; use a credential")
    if parsed.raw_path in {"", "/"}:
        return URL(f"{wire}://{parsed.raw_authority}/{_query(parsed)}", encoded=True)
    return parsed


def _refused(message: str) -> Refused:
    return Refused(message, scope=Scope.AGENT, phase=Phase.PREPARATION)


def endpoint_of(url: URL) -> str:
    """`scheme://host:port`, the key of everything that is remembered of a server."""
    return f"{url.scheme}://{(url.raw_host or '').lower()}:{url.port or _PORTS[url.scheme]}"


def told_endpoint(text: str) -> str:
    """A configured endpoint as `endpoint_of` writes it; without a port, `scheme://host`, when it names none."""
    url = wire_url(text)
    return endpoint_of(url) if url.explicit_port else endpoint_of(url).rpartition(":")[0]


def same_site(one: URL, other: URL) -> bool:
    """Whether a secret for `one` may be shown to `other`: the same scheme and host, at any port."""
    return one.scheme == other.scheme and (one.raw_host or "").lower() == (other.raw_host or "").lower()


def listed(host: str, hosts: Collection[str]) -> bool:
    """Whether `host` is in an allow-list; an entry `.example.org` stands for every host below it."""
    name = host.lower()
    return any(name == entry or (entry.startswith(".") and name.endswith(entry)) for entry in hosts)


def redirect_target(base: URL, location: str) -> URL:
    """The absolute URL that a `Location` names; ValueError when it is none.

    XRootD 5 writes raw blanks and UTF-8 bytes into it, so it is escaped like a user's URL.
    """
    text = encoded(location.strip())
    if not text or len(text) > URL_MAX:
        msg = "empty or too long"
        raise ValueError(msg)
    # urljoin would collapse the double slashes of XRootD's paths only when resolving relative ones.
    target = urljoin(str(base), text)
    parts = urlsplit(target)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        msg = "not a URL of HTTP"
        raise ValueError(msg)
    _ = parts.port
    return URL(target.partition("#")[0], encoded=True)


def with_slash(url: URL) -> URL:
    """The same with a path that ends in a slash: nginx makes and lists directories only so."""
    if url.raw_path.endswith("/"):
        return url
    return URL(f"{url.scheme}://{url.raw_authority}{url.raw_path}/{_query(url)}", encoded=True)


def parent(url: URL) -> URL | None:
    """The directory above, with its slash and the URL's query; None at the root."""
    path = url.raw_path.rstrip("/")
    above = path.rpartition("/")[0]
    if not above.strip("/"):
        return None
    return URL(f"{url.scheme}://{url.raw_authority}{above}/{_query(url)}", encoded=True)


def _query(url: URL) -> str:
    return f"?{url.raw_query_string}" if url.raw_query_string else ""
