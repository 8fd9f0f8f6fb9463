"""The public keys that an issuer publishes, and which of them may have signed a token. Pure.

Source: RFC 7517 (JWK Set), RFC 7518 §3 (which key and curve belongs to which algorithm), RFC 8037.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.jwt import Unverified, strict_object

RSA_MIN_BITS: Final = 2048
RSA_MAX_BITS: Final = 8192
"""A longer one makes every check of a signature slow."""
KEYS_MAX: Final = 64
"""Most keys of one issuer that are looked at."""
KID_MAX: Final = 255

PublicKey = RSAKey | ECKey | OKPKey

_EC: Final[Mapping[str, str]] = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_OKP: Final = frozenset({"Ed25519", "Ed448"})
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that an issuer signs with, and for which algorithms."""

    kid: str | None
    key: PublicKey
    algorithms: frozenset[str]


def parse_keys(document: bytes) -> tuple[SigningKey, ...]:
    """The keys of a JWK Set that tokens can be checked with; all others are passed over.

    Passed over are symmetric keys, keys with a private part, keys for encryption, RSA keys with fewer than
    2048 bits, unknown curves, and what cannot be read: an issuer may publish keys for other purposes.
    Raises: ValueError: it is no JWK Set.
    """
    keys = strict_object(document).get("keys")
    if not isinstance(keys, list):
        raise ValueError("a JWK Set has a list of keys")  # noqa: TRY004 - it is the document that is wrong
    if len(keys) > KEYS_MAX:
        raise ValueError(f"expected at most {KEYS_MAX} keys")
    found = (_signing_key(entry) for entry in keys if isinstance(entry, dict))
    return tuple(key for key in found if key is not None)


def _signing_key(entry: dict[str, Any]) -> SigningKey | None:
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= KID_MAX):
        return None
    if entry.get("use", "sig") != "sig" or _PRIVATE & entry.keys():
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        found = _public_key(entry)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if found is None:
        return None
    key, algorithms = found
    named = entry.get("alg")
    if named is not None:
        algorithms &= frozenset({named} if isinstance(named, str) else ())
    return SigningKey(kid, key, algorithms) if algorithms else None


def _public_key(entry: dict[str, Any]) -> tuple[PublicKey, frozenset[str]] | None:
    """The key without whatever else its issuer wrote beside it, and the algorithms it can be used with."""
    if entry.get("kty") == "RSA":
        if not RSA_MIN_BITS <= _bits(entry["n"]) <= RSA_MAX_BITS:
            return None
        return RSAKey.import_key({"kty": "RSA", "n": entry["n"], "e": entry["e"]}), _RSA
    if entry.get("kty") == "EC":
        algorithms = frozenset(name for name, curve in _EC.items() if curve == entry["crv"])
        if not algorithms:
            return None
        ec = ECKey.import_key({"kty": "EC", "crv": entry["crv"], "x": entry["x"], "y": entry["y"]})
        return ec, algorithms
    if entry.get("kty") == "OKP" and entry["crv"] in _OKP:
        return OKPKey.import_key({"kty": "OKP", "crv": entry["crv"], "x": entry["x"]}), frozenset({"EdDSA"})
    return None


def _bits(modulus: str) -> int:
    """Length of a number in base64url; 0: it is far too long."""
    if len(modulus) * 6 > RSA_MAX_BITS + 64:
        return 0
    return int.from_bytes(base64.urlsafe_b64decode(modulus + "=="), "big").bit_length()


def candidates(keys: tuple[SigningKey, ...], kid: str | None, algorithm: str) -> tuple[SigningKey, ...]:
    """The keys that may have signed a token with this header; without a `kid` only when there is just one."""
    fitting = tuple(key for key in keys if algorithm in key.algorithms)
    if kid is None:
        return fitting if len(fitting) == 1 else ()
    return tuple(key for key in fitting if key.kid == kid)


def verify(token: Unverified, key: SigningKey, algorithm: str) -> None:
    """Raises: BadCredential: this key did not sign the token with this algorithm."""
    assert algorithm in key.algorithms
    model = JWSRegistry.algorithms[algorithm]
    try:
        model.check_key(key.key)
        good = model.verify(token.signed, token.signature, key.key)
    except (JoseError, ValueError, TypeError):
        good = False
    if not good:
        raise BadCredential("the token's signature is wrong")
