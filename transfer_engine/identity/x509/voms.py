"""VOMS attributes that are believed: signed by a server that the VO's folder in `vomsdir` names, for this very user.

As with GridSite, and therefore FTS3, attributes that are not believed are left out, and their user has no VO by them: a
proxy may carry attributes of a VO that this service does not serve.

`vomsdir/<vo>/<host>.lsc` lists the subject of a VOMS server's certificate, the subject of its CA, and so on up;
chains are separated by `------ NEXT CHAIN ------`. `vomsdir/<vo>/*.pem` are certificates of servers, as before `.lsc`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.attributes import VOMS_AC, AttributeCertificate, read_attributes
from transfer_engine.identity.x509.chains import SKEW_S, UNREADABLE, Chain, allows, check_valid, is_ca
from transfer_engine.identity.x509.der import read
from transfer_engine.identity.x509.names import dn_of, usual_spelling
from transfer_engine.identity.x509.trust import LOOK_AGAIN_S, Stamp, TrustStore, load_pem, stamp

LSC_MAX: Final = 64 * 1024
_NEXT: Final = "NEXT CHAIN"
_NULLS: Final = ("/Capability=NULL", "/Role=NULL")

_RSA: Final = {
    "1.2.840.113549.1.1.11": hashes.SHA256(),
    "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
}
_ECDSA: Final = {
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """FQANs that are believed, until when, and why others are not."""

    fqans: tuple[str, ...]
    expires_at: float
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Servers:
    """Who may sign for a VO: chains of subjects, and certificates."""

    chains: tuple[tuple[str, ...], ...]
    certificates: tuple[x509.Certificate, ...]


class Voms:
    """Believes or does not believe VOMS attributes.

    Args:
        directory: `vomsdir`.
        trust: CAs of the VOMS servers.
        hosts: names of this service, for attributes that are meant for certain services only.
    """

    def __init__(self, *, directory: Path, trust: TrustStore, hosts: frozenset[str] = frozenset()) -> None:
        self._directory = directory
        self._trust = trust
        self._hosts = frozenset(host.lower() for host in hosts)
        self._stamps: dict[Path, Stamp] = {}
        self._looked_at: float | None = None
        self._servers: dict[str, _Servers] = {}
        self.generation = 0
        """Grows with each change of the directory."""

    def refresh(self, now: float) -> None:
        """Read the directory again when it has changed, if the last look is a minute ago."""
        if self._looked_at is not None and 0 <= now - self._looked_at < LOOK_AGAIN_S:
            return
        self._looked_at = now
        try:
            found = {folder.name: _files(folder) for folder in _folders(self._directory)}
        except OSError as error:
            log.warning(
                "kept the VOMS servers that were read before: vomsdir cannot be read",
                extra={"event": "vomsdir-unread", "path": str(self._directory), "error": str(error)},
            )
            return
        stamps = {path: stamp(path) for files in found.values() for path in files}
        if stamps != self._stamps or self.generation == 0:
            self._stamps = stamps
            self._servers = {vo: _read_servers(files) for vo, files in found.items()}
            self.generation += 1

    def attributes(self, chain: Chain, now: float) -> Attributes | None:
        """The attributes in the proxy that is nearest to the leaf and has some; None: there are none.

        Raises: BadCredential: there are some, and they cannot be read.
        """
        extension = _extension(chain)
        if extension is None:
            return None
        self.refresh(now)
        fqans: dict[str, None] = {}
        ends = float("inf")
        refused: list[str] = []
        for one in read_attributes(extension):
            try:
                ends = min(ends, self._check(one, chain.end_entity, now))
            except BadCredential as error:
                refused.append(error.why)
            else:
                fqans |= dict.fromkeys(map(plain_fqan, one.fqans))
        return Attributes(fqans=tuple(fqans), expires_at=ends, refused=tuple(refused))

    def _check(self, one: AttributeCertificate, user: x509.Certificate, now: float) -> float:
        """Raises: BadCredential: it is not for this user, this service, this time, or not from a server of the VO."""
        # RFC 5755 wants the issuer of the user's certificate. VOMS' own server (2.1.0) writes the user's subject there,
        # and its library takes both.
        if one.holder_serial != user.serial_number or one.holder_issuer not in {user.issuer, user.subject}:
            raise BadCredential("VOMS attributes of somebody else's certificate")
        if one.not_after <= now:
            raise BadCredential("VOMS attributes that have expired")
        if one.not_before > now + SKEW_S:
            raise BadCredential("VOMS attributes that are not valid yet")
        if one.targets is not None and not self._hosts & {_host(target) for target in one.targets}:
            raise BadCredential("VOMS attributes that are meant for another service")
        if any(fqan != f"/{one.vo}" and not fqan.startswith(f"/{one.vo}/") for fqan in one.fqans):
            raise BadCredential("VOMS attributes with those of another VO among them")
        server, others = self._server(one)
        if is_ca(server) or not allows(server, "digital_signature"):
            raise BadCredential("VOMS attributes signed with a certificate that is not for it")
        _check_signature(one, server)
        check_valid(server, now)
        ends = self._trust.check(server, others, now)
        return min(one.not_after, server.not_valid_after_utc.timestamp(), ends)

    def _server(self, one: AttributeCertificate) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
        """The certificate of the server that says it has signed, if it is one of the VO's."""
        servers = self._servers.get(one.vo)
        if servers is None:
            raise BadCredential("VOMS attributes of a VO that has no folder in vomsdir")
        if one.certificates:
            server = one.certificates[0]
            if server.subject == one.issuer and (
                server in servers.certificates or any(_matches(listed, one.certificates) for listed in servers.chains)
            ):
                return server, one.certificates[1:]
        for server in servers.certificates:
            if server.subject == one.issuer:
                return server, one.certificates[1:]
        raise BadCredential("VOMS attributes of a server that is not listed for its VO in vomsdir")


def plain_fqan(fqan: str) -> str:
    """Without what says nothing: `/escape/Role=NULL/Capability=NULL` is `/escape`."""
    for null in _NULLS:
        fqan = fqan.removesuffix(null)
    return fqan


def _extension(chain: Chain) -> bytes | None:
    for proxy in chain.proxies:
        try:
            value = proxy.extensions.get_extension_for_oid(VOMS_AC).value
        except x509.ExtensionNotFound:
            continue
        return value.value if isinstance(value, x509.UnrecognizedExtension) else None
    return None


def _host(target: str) -> str:
    """The host in a target: a URI, or just its name."""
    rest = target.partition("://")[2] or target
    return rest.partition("/")[0].partition(":")[0].lower()


def _folders(directory: Path) -> list[Path]:
    return sorted(one for one in directory.iterdir() if one.is_dir()) if directory.is_dir() else []


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix in {".lsc", ".pem"})


def _read_servers(files: Sequence[Path]) -> _Servers:
    chains: list[tuple[str, ...]] = []
    certificates: list[x509.Certificate] = []
    for path in files:
        try:
            content = path.read_bytes()[:LSC_MAX]
        except OSError:
            continue
        if path.suffix == ".pem":
            certificates += load_pem(content, path)
        else:
            chains += read_lsc(content.decode("utf-8", errors="replace"))
    return _Servers(chains=tuple(chains), certificates=tuple(certificates))


def read_lsc(text: str) -> list[tuple[str, ...]]:
    """The chains in a `.lsc` file: each a subject, its issuer's, and so on; at least two."""
    chains: list[list[str]] = [[]]
    for line in map(str.strip, text.splitlines()):
        if _NEXT in line and line.startswith("-"):
            chains.append([])
        elif line.startswith("/"):
            chains[-1].append(usual_spelling(line))
    return [tuple(chain) for chain in chains if len(chain) > 1]


def _matches(listed: tuple[str, ...], certificates: tuple[x509.Certificate, ...]) -> bool:
    """Is this the chain that is listed, as far as it has come?"""
    if len(certificates) >= len(listed):
        return False
    return all(
        dn_of(one.subject) == listed[depth] and dn_of(one.issuer) == listed[depth + 1]
        for depth, one in enumerate(certificates)
    )


def _check_signature(one: AttributeCertificate, server: x509.Certificate) -> None:
    failure = BadCredential("VOMS attributes whose signature is wrong")
    key = server.public_key()
    try:
        oid = read(one.algorithm).parts()[0].oid()
        if isinstance(key, rsa.RSAPublicKey) and oid in _RSA:
            key.verify(one.signature, one.signed, padding.PKCS1v15(), _RSA[oid])
        elif isinstance(key, ec.EllipticCurvePublicKey) and oid in _ECDSA:
            key.verify(one.signature, one.signed, ec.ECDSA(_ECDSA[oid]))
        else:
            raise failure
    except (InvalidSignature, IndexError, *UNREADABLE) as error:
        raise failure from error
