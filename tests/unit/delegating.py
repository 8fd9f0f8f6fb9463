"""A user who delegates, for tests: callers, and what a client sends for a request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from tests.grid import Grid, Identity
from tests.service import NOW
from transfer_engine.callers import CERTIFICATE, Caller
from transfer_engine.identity.x509.delegation import Request, make_request

WHEN = datetime.fromtimestamp(NOW, UTC)
ID, OTHER_ID = "0123456789abcdef", "fedcba9876543210"


class World:
    def __init__(self, root) -> None:
        self.grid = Grid(root, now=WHEN)
        self.alice = self.grid.user("alice")
        self.bob = self.grid.user("bob", key="ec")
        self.login = self.grid.proxy(self.alice, key="ec")
        self.request = make_request(2048)

    def caller(self, identity: Identity | None = None, **more: Any) -> Caller:
        who = identity or self.alice
        known = {
            "user_dn": self.alice.dn, "vos": ("escape",), "delegation_id": ID, "method": CERTIFICATE,
            "voms_cred": ("/escape",), "certificate": who.pem_chain.decode(),
        }  # fmt: skip
        return Caller(**(known | more))

    def signed(self, request: Request | str | None = None, issuer: Identity | None = None, **how: Any) -> bytes:
        """What a client sends for a request: the proxy, and the chain of its own."""
        given = request or self.request
        csr = x509.load_pem_x509_csr((given if isinstance(given, str) else given.pem).encode())
        signer = issuer or self.alice
        made = self.grid.proxy(signer, key=_Public(csr.public_key()), **how)
        return made.pem_chain


class _Public:
    """Stands for a key of which only the public half is known."""

    def __init__(self, key) -> None:
        self._key = key

    def public_key(self):
        return self._key
