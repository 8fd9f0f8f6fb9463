"""A private certificate authority and a token issuer, made anew for each test session.

Nothing listens at the issuer's address: libscitokens finds the public key in its cache, which
`write_key_cache` fills (version 0.7 trusts the system's CAs only and could not fetch it).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any

import trustme
from joserfc import jwt
from joserfc.jwk import ECKey

ISSUER = "https://localhost/issuer"
ANY_AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"
YEAR_S = 365 * 86400


class Authority:
    """Issues the servers' certificates and the users' tokens."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self.ca_file.chmod(0o644)
        self._server = self._ca.issue_cert("localhost", "127.0.0.1", "::1", common_name="localhost")
        self._issuers: dict[str, dict[str, Any]] = {}
        self._key = ECKey.generate_key("P-256", {"kid": uuid.uuid4().hex[:8], "use": "sig", "alg": "ES256"})

    def write_server(self, directory: Path) -> tuple[Path, Path]:
        """Certificate chain and key as PEM files in `directory`; the key is its owner's alone."""
        certificate, key = directory / "server.pem", directory / "server.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in self._server.cert_chain_pems))
        key.write_bytes(self._server.private_key_pem.bytes())
        key.chmod(0o600)
        return certificate, key

    def token(self, scope: str, *, audience: str = ANY_AUDIENCE, lifetime_s: int = 3600, subject: str = "alice") -> str:
        """A token of the WLCG profile; a negative lifetime makes one that has expired."""
        now = int(time.time())
        claims = {
            "wlcg.ver": "1.0",
            "iss": ISSUER,
            "sub": subject,
            "aud": audience,
            "iat": now - 5,
            "nbf": now - 5,
            "exp": now + lifetime_s,
            "jti": str(uuid.uuid4()),
            "scope": scope,
        }
        return jwt.encode({"alg": "ES256", "typ": "JWT", "kid": self._key.kid}, claims, self._key)

    def believe(self, issuer: str, key_set: dict[str, Any]) -> None:
        """Storages with tokens that are started from now on also take those of this issuer, signed by these keys."""
        self._issuers[issuer] = key_set

    @property
    def issuers(self) -> list[str]:
        """Those whose tokens are taken."""
        return [ISSUER, *self._issuers]

    def write_key_cache(self, cache_home: Path) -> None:
        """Put the public keys where libscitokens looks below `$XDG_CACHE_HOME`."""
        folder = cache_home / "scitokens"
        folder.mkdir(parents=True, exist_ok=True)
        later = int(time.time()) + YEAR_S
        own = {"keys": [self._key.as_dict(private=False)]}
        rows = [
            (issuer, json.dumps({"expires": later, "next_update": later, "jwks": keys}))
            for issuer, keys in {ISSUER: own, **self._issuers}.items()
        ]
        with contextlib.closing(sqlite3.connect(folder / "scitokens_cpp.sqllite")) as database:
            database.execute("CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)")
            database.executemany("INSERT INTO keycache VALUES (?, ?)", rows)
            database.commit()
