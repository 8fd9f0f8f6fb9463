"""What a web server in front, which ends TLS, says about the client's certificate.

Believed from its addresses only. From anybody else such headers are an attempt to be somebody else, or a front that was
not configured: they are refused, never left out, so that nobody works for months as the wrong user.

nginx gives the leaf alone (`$ssl_client_escaped_cert`) and takes no proxies: `proxy_set_header X-SSL-Client-Verify
$ssl_client_verify;`, `… X-SSL-Client-S-DN $ssl_client_s_dn;`. Apache takes proxies with mod_gridsite only: `SSLOptions
+ExportCertData`, `RequestHeader set X-SSL-Client-Cert "%{SSL_CLIENT_CERT}s%{SSL_CLIENT_CERT_CHAIN_0}s"`. HAProxy takes
them with `crt-ignore-err all ca-ignore-err all`, which needs `client_ca` to be set here: then chains are checked here.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from transfer_engine.config_service import ReverseProxy
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.chains import CHAIN_MAX, load
from transfer_engine.identity.x509.der import Malformed, read_all
from transfer_engine.identity.x509.names import dn_from_text, dn_of

HEADER_MAX: Final = 64 * 1024
_NOTHING: Final = frozenset({"", "-", "none"})
"""What servers write where there is no certificate; Apache writes `(null)` for each part of a header."""
_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_PROXY_NAME: Final = re.compile(r"/CN=(?:[0-9]+|proxy|limited proxy)$")
_PROXIES: Final = re.compile(r"(?:/CN=(?:[0-9]+|proxy|limited proxy))+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """A client certificate as it was forwarded: its chain, DER, leaf first; or, where that is empty, its subject."""

    chain: tuple[bytes, ...] = ()
    dn: str = ""


def forwarded(headers: Mapping[str, str], peer: str | None, settings: ReverseProxy) -> Forwarded | None:
    """The certificate that a request was forwarded with; None: it was forwarded without one, or not forwarded.

    Args: headers: by lower-case name. peer: where the connection comes from; None: a socket of this machine.
    Raises: BadCredential: there are such headers and they are not believed.
    """
    names = (settings.verify_header, settings.dn_header, settings.chain_header)
    verify, dn, chain = (headers.get(name.lower()) for name in names)
    if verify is None and dn is None and chain is None:
        return None
    if not is_front(peer, settings):
        raise BadCredential("headers about a client certificate are taken from the service's own reverse proxy only")
    verdict, subject, pem = (_said(value) for value in (verify, dn, chain))
    if verdict.upper() != "SUCCESS":
        if not verdict and not subject and not pem:
            return None
        raise BadCredential("the reverse proxy has not verified the client certificate")
    if pem:
        chain_der = _certificates(pem)
        if subject:
            _check_same(chain_der[0], subject)
        return Forwarded(chain=chain_der)
    if not subject:
        raise BadCredential("the reverse proxy has verified a client certificate, and does not say whose")
    name = dn_from_text(subject)
    # Without the chain a proxy would be another user than its own.
    if _PROXY_NAME.search(name):
        raise BadCredential(
            f"the subject of a proxy certificate: for proxies the reverse proxy must send {settings.chain_header}"
        )
    return Forwarded(dn=name)


def _check_same(leaf: bytes, subject: str) -> None:
    """Certificates are public: a client may send anybody's, where the front sets the subject alone.

    Raises: BadCredential: the certificate is not the one that the front has verified.
    """
    name, shown = dn_from_text(subject), dn_of(load(leaf).subject)
    if name != shown and not (shown.startswith(name) and _PROXIES.fullmatch(shown, len(name))):
        raise BadCredential("the forwarded certificate is not that of the forwarded subject")


def _said(value: str | None) -> str:
    text = (value or "").strip()
    return "" if text.replace("(null)", "").lower() in _NOTHING else text


def is_front(peer: str | None, settings: ReverseProxy) -> bool:
    """Is this the address of a web server in front?"""
    if peer is None:
        return False
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in settings.peers)


def _certificates(text: str) -> tuple[bytes, ...]:
    """The certificates in a header: PEM, with line ends or blanks or nothing where lines end, or URL-encoded.

    A block may have several: HAProxy's `ssl_c_chain_der` is one certificate after the other.
    """
    if len(text) > HEADER_MAX:
        raise BadCredential(f"forwarded certificates of more than {HEADER_MAX} characters")
    pem = unquote(text) if "%" in text else text
    found: list[bytes] = []
    for block in _BLOCK.finditer(pem):
        try:
            content = base64.b64decode("".join(block[1].split()), validate=True)
            found += [value.whole for value in read_all(content)]
        except (binascii.Error, Malformed) as error:
            raise BadCredential("a forwarded certificate cannot be read") from error
    if not found:
        raise BadCredential("the forwarded certificate cannot be read")
    # mod_ssl repeats nothing, but sets of headers that people write do: the leaf is in its own list of issuers.
    chain = tuple(dict.fromkeys(found))
    if len(chain) > CHAIN_MAX:
        raise BadCredential(f"more than {CHAIN_MAX} certificates")
    return chain
