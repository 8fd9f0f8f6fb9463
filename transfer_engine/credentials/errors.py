"""Failures to have a credential for a storage. No storage was asked: they speak against none."""

from __future__ import annotations

from protocols.errors import Again, Denied, Unavailable


class TokenEnded(Denied):
    """The transfer's token has ended, and nothing can be done about it here."""

    code = "TOKEN_ENDED"
    hint_default = (
        "submit again with a token that lives longer, or with one whose scope has offline_access from an issuer at"
        " which this service is a client: such tokens are renewed"
    )


class TokenRefused(Denied):
    """The issuer says for certain that it gives no token in place of this one."""

    code = "TOKEN_REFUSED"
    hint_default = "submit again with a new token; the issuer's administrators know why it refuses this one"


class ClientRefused(TokenRefused):
    """The issuer does not accept this service as its client, or not for this."""

    code = "CLIENT_REFUSED"
    again = Again.LATE
    hint_default = "an operator has to check auth.issuers: client_id, client_secret, and what the client may do there"


class IssuerAway(Unavailable):
    """The issuer cannot be asked now."""

    code = "ISSUER_UNAVAILABLE"
    hint_default = "nothing to do: the issuer is asked again until it answers"


class ProxyEnded(Denied):
    """There is no proxy of this user any more, or it has ended."""

    code = "PROXY_ENDED"
    again = Again.LATE
    hint_default = "delegate again (fts-rest-delegate, or `fts-rest-transfer-submit` does it): the transfer is repeated"


class SecretLost(Denied):
    """A stored token or proxy is not there any more, or does not open."""

    code = "SECRET_LOST"
    again = Again.LATE
    hint_default = "an operator has to put the earlier key back into vault.key_file; else submit again"
