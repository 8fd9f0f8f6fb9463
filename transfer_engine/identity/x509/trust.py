"""The CAs that are believed, their revocation lists, and whether a certificate goes back to one of them.

Read from a bundle or from a hashed directory, as IGTF distributes it (`<hash>.0`, `<hash>.r0`); looked at again when a
file has changed, at most once a minute. A CA without a revocation list revokes nothing; with one, the list must be
signed by the CA and not out of date, as OpenSSL wants it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509

from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.chains import UNREADABLE, allows, check_readable, check_signed, check_valid, is_ca

LOOK_AGAIN_S: Final = 60.0
PATH_MAX: Final = 8
"""Longest way from a certificate to its root."""

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.+?-----END [A-Z0-9 ]+-----", re.DOTALL
)
_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_HASHED_CERTIFICATE: Final = re.compile(r"^[0-9a-f]{8}\.[0-9]+$")
_HASHED_LIST: Final = re.compile(r"^[0-9a-f]{8}\.r[0-9]+$")

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp:
    """What changes when a file does; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


@dataclass(slots=True)
class _Roots:
    by_subject: dict[bytes, list[x509.Certificate]] = field(default_factory=dict)
    lists: dict[bytes, list[x509.CertificateRevocationList]] = field(default_factory=dict)


class TrustStore:
    """The CAs of some files.

    Args:
        cas: bundle or hashed directory; None: there are none, and nothing is believed.
        crl: revocation lists, in PEM, further to those in a hashed directory.
    """

    def __init__(self, *, cas: Path | None, crl: Path | None = None) -> None:
        self._cas = cas
        self._crl = crl
        self._stamps: Mapping[Path, Stamp] = {}
        self._looked_at: float | None = None
        self._roots = _Roots()
        self.generation = 0
        """Grows with each change of the files."""

    def refresh(self, now: float) -> None:
        """Read what has changed, if the last look is a minute ago. What cannot be read is left out, and logged."""
        if self._looked_at is not None and 0 <= now - self._looked_at < LOOK_AGAIN_S:
            return
        self._looked_at = now
        try:
            stamps = {path: stamp(path) for path in self._files()}
        except OSError as error:
            _not_listed(self._cas, error)
            return
        if stamps == self._stamps:
            return
        roots = _Roots()
        for path in stamps:
            _read(path, roots)
        self._roots, self._stamps = roots, stamps
        self.generation += 1
        n_cas = sum(len(some) for some in roots.by_subject.values())
        log.info("read the CAs whose users are believed", extra={"event": "cas-read", "n_cas": n_cas})

    def _files(self) -> list[Path]:
        files: list[Path] = []
        if self._cas is not None and self._cas.is_dir():
            names = sorted(self._cas.iterdir())
            files += [one for one in names if _HASHED_CERTIFICATE.match(one.name) or _HASHED_LIST.match(one.name)]
        elif self._cas is not None:
            files.append(self._cas)
        return files if self._crl is None else [*files, self._crl]

    def check(self, certificate: x509.Certificate, others: Sequence[x509.Certificate], now: float) -> float:
        """Does a certificate go back to a CA that is believed, and has nobody revoked it?

        Args: others: intermediate CAs that came with it.
        Returns: when the first of its CAs ends. Raises: BadCredential.
        """
        self.refresh(now)
        ends = float("inf")
        child, seen = certificate, 0
        while True:
            issuer, anchored = self._issuer(child, others, n_below=seen, now=now)
            self._check_revoked(child, issuer, now)
            ends = min(ends, issuer.not_valid_after_utc.timestamp())
            if anchored:
                return ends
            seen += 1
            if seen > PATH_MAX:
                raise BadCredential("the way to the certificate's CA is too long")
            child = issuer

    def _issuer(
        self, child: x509.Certificate, others: Sequence[x509.Certificate], *, n_below: int, now: float
    ) -> tuple[x509.Certificate, bool]:
        """The CA that issued `child`, and whether it is one of ours."""
        wanted = _der(child.issuer)
        failure = BadCredential("the certificate's CA is not believed here")
        for candidate, ours in [
            *((one, True) for one in self._roots.by_subject.get(wanted, ())),
            *((one, False) for one in others if _der(one.subject) == wanted and one != child),
        ]:
            try:
                _check_ca(candidate, n_below=n_below, now=now)
                check_signed(child, candidate)
            except BadCredential as error:
                failure = error
            else:
                return candidate, ours
        raise failure

    def _check_revoked(self, child: x509.Certificate, issuer: x509.Certificate, now: float) -> None:
        lists = self._roots.lists.get(_der(issuer.subject), ())
        # Several where a CA has two keys of one name; a list that another key signed is not about this certificate.
        signed = [one for one in lists if _is_signed_by(one, issuer)]
        if lists and not signed:
            raise BadCredential("the revocation list of the certificate's CA is not signed by it")
        for one in signed:
            if one.get_revoked_certificate_by_serial_number(child.serial_number) is not None:
                raise BadCredential("the certificate has been revoked")
        ends = [one.next_update_utc for one in signed]
        if signed and not any(end is None or end.timestamp() > now for end in ends):
            raise BadCredential("the revocation list of the certificate's CA is out of date")


def _der(name: x509.Name) -> bytes:
    return name.public_bytes()


def _is_signed_by(one: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return one.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # whatever key it is not
    except UNREADABLE:
        return False


def _check_ca(candidate: x509.Certificate, *, n_below: int, now: float) -> None:
    if not is_ca(candidate):
        raise BadCredential("a certificate issued by a user, and not a proxy")
    if not allows(candidate, "key_cert_sign"):
        raise BadCredential("a CA whose key is not for certificates")
    constraints = candidate.extensions.get_extension_for_class(x509.BasicConstraints).value
    if constraints.path_length is not None and n_below > constraints.path_length:
        raise BadCredential("a CA that is too far from the certificate (pathLenConstraint)")
    if any(one.oid == x509.NameConstraints.oid for one in candidate.extensions):
        raise BadCredential("a CA with constraints of names, which are not understood here")
    check_valid(candidate, now)


def _read(path: Path, roots: _Roots) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        log.warning("cannot read a file of CAs", extra={"event": "cas-unread", "path": str(path), "error": str(error)})
        return
    for certificate in _certificates(content, path):
        roots.by_subject.setdefault(_der(certificate.subject), []).append(certificate)
    for found in _LIST.finditer(content):
        try:
            one = x509.load_pem_x509_crl(found[0])
            roots.lists.setdefault(_der(one.issuer), []).append(one)
        except UNREADABLE as error:
            _unread(path, error)


def _certificates(content: bytes, path: Path) -> Iterable[x509.Certificate]:
    blocks = [found[0] for found in _CERTIFICATE.finditer(content)]
    for block in blocks:
        try:
            certificate = x509.load_pem_x509_certificate(block)
            check_readable(certificate)
        except (BadCredential, *UNREADABLE) as error:
            _unread(path, error)
        else:
            yield certificate


def _not_listed(path: Path | None, error: OSError) -> None:
    log.warning(
        "kept the CAs that were read before: their directory cannot be read",
        extra={"event": "cas-unread", "path": str(path), "error": str(error)},
    )


def _unread(path: Path, error: Exception) -> None:
    log.warning(
        "left out what cannot be read in a file of CAs",
        extra={"event": "cas-unread", "path": str(path), "error": str(error)},
    )


def load_pem(content: bytes, path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file; what cannot be read is left out, and logged."""
    return list(_certificates(content, path))
