"""Who we are towards a storage: values that never print themselves, and where they are found.

Discovery follows the community's conventions: `BEARER_TOKEN`, `BEARER_TOKEN_FILE`,
`$XDG_RUNTIME_DIR/bt_u$UID`, `/tmp/bt_u$UID` (WLCG Bearer Token Discovery), and `X509_USER_PROXY`,
`/tmp/x509up_u$UID`, `X509_USER_CERT` with `X509_USER_KEY`, `X509_CERT_DIR` for certificates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final


class Secret:
    """A string that shows itself only when asked to."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; for the wire only."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[object, ...]:
        msg = "a Secret is not pickled"
        raise TypeError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What may be shown to one storage."""

    token: Secret | None = None
    """Bearer token or macaroon."""
    certificate: Path | None = None
    """PEM with the certificate chain; an RFC 3820 proxy file holds chain and key together."""
    key: Path | None = None
    """PEM with the private key; None: it is in `certificate`."""
    pem: Secret | None = None
    """Certificate, private key and chain as PEM, in memory: a delegated proxy. It is used instead of `certificate`."""

    @property
    def shows_certificate(self) -> bool:
        """Is a certificate shown in the TLS handshake?"""
        return self.pem is not None or self.certificate is not None


ANONYMOUS: Final = Credential()

TOKEN_MAX: Final = 16 * 1024
"""Longest token that is taken from a file or the environment, in bytes."""


def _token_from_file(path: Path) -> Secret | None:
    try:
        with path.open("rb") as file:
            raw = file.read(TOKEN_MAX + 1)
    except OSError:
        return None
    if len(raw) > TOKEN_MAX:
        msg = f"{path}: a bearer token is at most {TOKEN_MAX} bytes long"
        raise ValueError(msg)
    text = raw.decode("ascii", errors="replace").strip()
    return Secret(text) if text else None


def discover_token(environ: Mapping[str, str], uid: int | None = None) -> Secret | None:
    """The first token of the four places, or None; ValueError for one that cannot be a token."""
    if text := environ.get("BEARER_TOKEN", "").strip():
        return Secret(text)
    number = os.getuid() if uid is None else uid
    if named := environ.get("BEARER_TOKEN_FILE"):
        return _token_from_file(Path(named))
    places = [Path(environ["XDG_RUNTIME_DIR"]) / f"bt_u{number}"] if environ.get("XDG_RUNTIME_DIR") else []
    places.append(Path("/tmp") / f"bt_u{number}")  # noqa: S108 - the convention's own path
    return next((token for place in places if (token := _token_from_file(place))), None)


def discover_certificate(environ: Mapping[str, str], uid: int | None = None) -> tuple[Path | None, Path | None]:
    """(certificate, key) from the usual places; (None, None) when there is none."""
    if proxy := environ.get("X509_USER_PROXY"):
        return Path(proxy), None
    if environ.get("X509_USER_CERT") and environ.get("X509_USER_KEY"):
        return Path(environ["X509_USER_CERT"]), Path(environ["X509_USER_KEY"])
    number = os.getuid() if uid is None else uid
    proxy_file = Path("/tmp") / f"x509up_u{number}"  # noqa: S108 - the convention's own path
    return (proxy_file, None) if proxy_file.is_file() else (None, None)


def discover(environ: Mapping[str, str] | None = None, uid: int | None = None) -> Credential:
    """The user's own credential, as every grid tool would find it; `ANONYMOUS` when there is none."""
    env = os.environ if environ is None else environ
    certificate, key = discover_certificate(env, uid)
    return Credential(token=discover_token(env, uid), certificate=certificate, key=key)


def discover_ca(environ: Mapping[str, str] | None = None) -> Path | None:
    """Directory (hashed) or bundle of trusted CAs: `X509_CERT_DIR`, `SSL_CERT_FILE`, or the grid's default."""
    env = os.environ if environ is None else environ
    for name in ("X509_CERT_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        if value := env.get(name):
            return Path(value)
    grid = Path("/etc/grid-security/certificates")
    return grid if grid.is_dir() else None
