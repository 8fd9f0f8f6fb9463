"""Tokens that somebody would send who should not get in: name → how to make it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import OctKey

from tests.issuer import ANY, b64, ec_key, rsa_key, signed
from tests.unit.identity_world import AUDIENCE, NOW, STORAGE_ISSUER, World

KINDS: dict[str, Callable[[World], str]] = {}


def hostile(name: str) -> Callable[[Callable[[World], str]], Callable[[World], str]]:
    def keep(make: Callable[[World], str]) -> Callable[[World], str]:
        KINDS[name] = make
        return make

    return keep


def head(world: World, **changes: Any) -> str:
    """A token that is good but for its header, and signed with it."""
    found = {"kid": "rsa1", "alg": "RS256", **changes}
    header = {name: value for name, value in found.items() if value is not ...}
    return signed(header, world.claims(), world.issuer.keys[0], "RS256")


def body(world: World, raw: bytes) -> str:
    return signed({"kid": "rsa1", "alg": "RS256"}, raw, world.issuer.keys[0], "RS256")


def spoilt(world: World, name: str, value: Any) -> str:
    """A good token with one claim set, without any care."""
    return body(world, json.dumps({**world.claims(), name: value}).encode())


def raw_claim(world: World, name: str, text: str) -> str:
    """A good token with one claim written as this JSON text."""
    claims = world.claims()
    claims.pop(name, None)
    return body(world, json.dumps(claims)[:-1].encode() + f', "{name}": {text}}}'.encode())


def parts(world: World) -> list[str]:
    return world.token().split(".")


def hmac_token(world: World, secret: bytes, algorithm: str = "HS256") -> str:
    text = f"{b64(json.dumps({'kid': 'rsa1', 'alg': algorithm}).encode())}.{b64(json.dumps(world.claims()).encode())}"
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    return f"{text}.{b64(hmac.new(secret, text.encode(), digest).digest())}"


# Algorithms

for spelling in ("none", "None", "NONE", "nOnE", "none ", "", "null"):

    @hostile(f"alg {spelling!r}, no signature")
    def _(world: World, spelling: str = spelling) -> str:
        return f"{b64(json.dumps({'alg': spelling}).encode())}.{parts(world)[1]}."

    @hostile(f"alg {spelling!r}, signed")
    def _(world: World, spelling: str = spelling) -> str:
        return head(world, alg=spelling)


for wrong in (None, 1, ["RS256"], {"RS256": 1}, True, "rs256", "RS256 ", "RSA", "RS1", "HS256", "dir", "A" * 3000):

    @hostile(f"alg {str(wrong)[:20]!r}")
    def _(world: World, wrong: Any = wrong) -> str:
        return head(world, alg=wrong)


@hostile("alg missing")
def _(world: World) -> str:
    return head(world, alg=...)


for how in ("pem", "der", "jwk", "modulus"):

    @hostile(f"HS256 with the public key as secret: {how}")
    def _(world: World, how: str = how) -> str:
        key = rsa_key()
        secret = {
            "pem": key.as_pem(private=False),
            "der": key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "jwk": json.dumps(key.as_dict(private=False)).encode(),
            "modulus": base64.urlsafe_b64decode(str(key.as_dict()["n"]) + "=="),
        }[how]
        return hmac_token(world, secret)


@hostile("HS512 with the empty key")
def _(world: World) -> str:
    return hmac_token(world, b"", "HS512")


@hostile("a symmetric key in the issuer's keys")
def _(world: World) -> str:
    key = OctKey.import_key("0123456789abcdef0123456789abcdef", {"kid": "oct"})
    world.issuer.jwks = json.dumps({"keys": [rsa_key().as_dict(private=False), key.as_dict(private=True)]}).encode()
    return signed({"kid": "oct", "alg": "HS256"}, world.claims(), key, "HS256")


@hostile("ES256 said, RS256 done")
def _(world: World) -> str:
    return head(world, alg="ES256")


@hostile("RS512 said, RS256 done")
def _(world: World) -> str:
    return head(world, alg="RS512")


@hostile("PS256 said, RS256 done")
def _(world: World) -> str:
    return head(world, alg="PS256")


@hostile("an algorithm that the issuer does not use: PS512")
def _(world: World) -> str:
    return signed({"kid": "rsa1", "alg": "PS512"}, world.claims(), rsa_key(), "PS512")


@hostile("ES256 with a key of another curve")
def _(world: World) -> str:
    key = ec_key("P-384")
    world.issuer.jwks = json.dumps({"keys": [key.as_dict(private=False)]}).encode()
    text = f"{b64(json.dumps({'kid': key.kid, 'alg': 'ES256'}).encode())}.{b64(json.dumps(world.claims()).encode())}"
    return f"{text}.{b64(b'1' * 64)}"


@hostile("ES256 with a DER signature")
def _(world: World) -> str:
    world.issuer.keys = [ec_key()]
    text = world.token().rpartition(".")[0]
    return f"{text}.{b64(ec_key().private_key.sign(text.encode(), ECDSA(SHA256())))}"


@hostile("ES256 with r and s zero")
def _(world: World) -> str:
    world.issuer.keys = [ec_key()]
    return f"{world.token().rpartition('.')[0]}.{b64(bytes(64))}"


@hostile("ES256K")
def _(world: World) -> str:
    return head(world, alg="ES256K")


# Keys

KIDS: tuple[Any, ...] = (
    "../../../../dev/null", "file:///etc/passwd", "http://169.254.169.254/latest", "rsa1' OR '1'='1", "rsa1\x00",
    "rsa1\n", "k" * 2000, "", 7, None, ["rsa1"], {"kid": "rsa1"}, True, "rsa9", "RSA1", "rsa1 ", "\u202ersa1",
)  # fmt: skip

for number, kid in enumerate(KIDS):
    if kid is None:
        continue

    @hostile(f"kid {number}")
    def _(world: World, kid: Any = kid) -> str:
        return head(world, kid=kid)


@hostile("no kid where the issuer has two keys")
def _(world: World) -> str:
    world.issuer.keys = [rsa_key(), rsa_key(3)]
    return head(world, kid=...)


@hostile("another issuer's key")
def _(world: World) -> str:
    return signed({"kid": "rsa1", "alg": "RS256"}, world.claims(), rsa_key(2), "RS256")


for member, value in (
    ("jku", "https://evil.example/jwk"),
    ("x5u", "https://evil.example/cert"),
    ("x5c", ["MIIB"]),
    ("jwk", {"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
    ("crit", ["exp"]),
    ("crit", []),
    ("crit", ["b64"]),
    ("b64", False),
    ("b64", True),
    ("zip", "DEF"),
    ("cty", "JWT"),
    ("enc", "A256GCM"),
    ("typ", "logout+jwt"),
    ("typ", "JOSE"),
    ("typ", 1),
):

    @hostile(f"header {member} {str(value)[:30]}")
    def _(world: World, member: str = member, value: Any = value) -> str:
        return head(world, **{member: value})


@hostile("its own key in the header, signed with it")
def _(world: World) -> str:
    key = rsa_key(3)
    return signed({"alg": "RS256", "jwk": key.as_dict(private=False)}, world.claims(), key, "RS256")


@hostile("an RSA key of 1024 bits in the issuer's keys")
def _(world: World) -> str:
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    key = rsa.generate_private_key(65537, 1024)
    numbers = key.public_key().public_numbers()
    entry = {"kty": "RSA", "kid": "weak", "n": b64(numbers.n.to_bytes(128, "big")), "e": "AQAB"}
    world.issuer.jwks = json.dumps({"keys": [rsa_key().as_dict(private=False), entry]}).encode()
    text = f"{b64(json.dumps({'kid': 'weak', 'alg': 'RS256'}).encode())}.{b64(json.dumps(world.claims()).encode())}"
    return f"{text}.{b64(key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"


@hostile("a key for encryption")
def _(world: World) -> str:
    keys = [{**rsa_key().as_dict(private=False), "use": "enc"}, rsa_key(3).as_dict(private=False)]
    world.issuer.jwks = json.dumps({"keys": keys}).encode()
    return world.token()


@hostile("a key for another algorithm")
def _(world: World) -> str:
    keys = [{**rsa_key().as_dict(private=False), "alg": "RS512"}]
    world.issuer.jwks = json.dumps({"keys": keys}).encode()
    return world.token()


# Signatures


@hostile("signature stripped")
def _(world: World) -> str:
    return f"{'.'.join(parts(world)[:2])}."


@hostile("signature truncated")
def _(world: World) -> str:
    return world.token()[:-8]


@hostile("signature with a bit flipped")
def _(world: World) -> str:
    one, two, three = parts(world)
    return f"{one}.{two}.{'A' if three[0] != 'A' else 'B'}{three[1:]}"


@hostile("claims changed after signing")
def _(world: World) -> str:
    one, _two, three = parts(world)
    return f"{one}.{b64(json.dumps(world.claims(sub='root')).encode())}.{three}"


@hostile("signature of another token")
def _(world: World) -> str:
    return f"{'.'.join(parts(world)[:2])}.{world.token(sub='bob').split('.')[2]}"


# Form

TWICE = b'{"alg":"RS256","alg":"none"}'
MARKED = b'\xef\xbb\xbf{"alg":"RS256","kid":"rsa1"}'

FORMS: dict[str, Callable[[list[str]], str]] = {
    "two parts": lambda p: ".".join(p[:2]),
    "one part": lambda p: p[0],
    "four parts": lambda p: ".".join([*p, p[2]]),
    "five parts": lambda p: ".".join([*p, p[0], p[1]]),
    "empty header": lambda p: f".{p[1]}.{p[2]}",
    "empty claims": lambda p: f"{p[0]}..{p[2]}",
    "only dots": lambda _p: "..",
    "padding": lambda p: f"{p[0]}=.{p[1]}=.{p[2]}==",
    "plain base64 alphabet": lambda p: ".".join([p[0], p[1], p[2][:-1] + "+"]),
    "blank inside": lambda p: f"{p[0]}. {p[1]}.{p[2]}",
    "line break at the end": lambda p: ".".join(p) + "\n",
    "tab before": lambda p: "\t" + ".".join(p),
    "NUL": lambda p: ".".join(p) + "\x00",
    "full-width dots": "\uff0e".join,
    "full-width letters": lambda p: f"{p[0]}.{p[1]}.\uff21{p[2][1:]}",
    "comma and a second one": lambda p: ".".join(p) + "," + ".".join(p),
    "stray bits in the last character": lambda p: ".".join([p[0], p[1], p[2][:-1] + chr(ord(p[2][-1]) + 1)]),
    "length that base64 cannot have": lambda p: f"{p[0]}.{p[1]}.{p[2]}AAA",
    "header not JSON": lambda p: f"{b64(b'hello')}.{p[1]}.{p[2]}",
    "header a list": lambda p: f"{b64(b'[]')}.{p[1]}.{p[2]}",
    "header null": lambda p: f"{b64(b'null')}.{p[1]}.{p[2]}",
    "header twice the same name": lambda p: f"{b64(TWICE)}.{p[1]}.{p[2]}",
    "header UTF-16": lambda p: f"{b64('{}'.encode('utf-16'))}.{p[1]}.{p[2]}",
    "header with BOM": lambda p: f"{b64(MARKED)}.{p[1]}.{p[2]}",
    "longer than 16 KiB": lambda p: f"{p[0]}.{p[1]}.{'A' * 16 * 1024}",
    "a megabyte": lambda p: f"{p[0]}.{'A' * (1 << 20)}.{p[2]}",
    "a megabyte of dots": lambda _p: "." * (1 << 20),
    "long header": lambda p: f"{'A' * 5000}.{p[1]}.{p[2]}",
    "flattened JSON form": lambda p: json.dumps({"payload": p[1], "protected": p[0], "signature": p[2]}),
}  # fmt: skip

for name, change in FORMS.items():

    @hostile(f"form: {name}")
    def _(world: World, change: Callable[[list[str]], str] = change) -> str:
        return change(parts(world))


BODIES: dict[str, bytes] = {
    "not JSON": b"hello",
    "a list": b"[1]",
    "a number": b"1",
    "deep": b'{"a":' * 1500 + b"1" + b"}" * 1500,
    "deep lists": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a little too deep": b'{"a":' + b"[" * 16 + b"]" * 16 + b"}",
    "invalid UTF-8": b'{"iss":"\xff\xfe"}',
    "huge integer": b'{"exp":' + b"9" * 8000 + b"}",
    "empty object": b"{}",
    "trailing comma": b'{"iss":"x",}',
    "two objects": b"{}{}",
}

for name, raw in BODIES.items():

    @hostile(f"claims: {name}")
    def _(world: World, raw: bytes = raw) -> str:
        return body(world, raw)


@hostile("a token in a token")
def _(world: World) -> str:
    return body(world, world.token().encode())


@hostile("five parts, as an encrypted one has")
def _(world: World) -> str:
    return f"{b64(json.dumps({'alg': 'RSA-OAEP', 'enc': 'A256GCM', 'cty': 'JWT'}).encode())}.a.b.c.d"


# Claims

RAW_CLAIMS: tuple[tuple[str, str], ...] = (
    ("exp", "NaN"), ("exp", "Infinity"), ("exp", "1e400"), ("exp", "1e300"), ("exp", "-1"), ("exp", "true"),
    ("exp", '"9999999999"'), ("exp", "null"), ("exp", "[]"), ("exp", "{}"), ("exp", "0"), ("exp", str(int(NOW) - 61)),
    ("exp", str(int(NOW) + 10 * 366 * 86400)), ("exp", "1e10"), ("nbf", str(int(NOW) + 61)), ("nbf", '"0"'),
    ("nbf", "null"), ("nbf", "false"), ("iat", str(int(NOW) + 61)), ("iat", "[1]"), ("iat", "NaN"),
    ("aud", "null"), ("aud", '""'), ("aud", "[]"), ("aud", "5"), ("aud", '[["https://fts.example"]]'),
    ("aud", '["https://fts.example", 5]'), ("aud", '{"https://fts.example": 1}'), ("aud", '"https://fts.example/"'),
    ("aud", '"https://FTS.example"'), ("aud", '"https://fts.example.evil.example"'), ("aud", '"*"'),
    ("aud", f'"{ANY}"'), ("aud", '["a", "b"]'), ("aud", '"https://fts.example https://other.example"'),
    ("aud", json.dumps([f"a{number}" for number in range(100)] + [AUDIENCE])),
    ("sub", '""'), ("sub", "null"), ("sub", "5"), ("sub", '["alice"]'), ("sub", json.dumps("x" * 256)),
    ("sub", '"a\\u0000b"'), ("sub", '"a\\nb"'), ("sub", '"\\ud800"'), ("sub", '"\\u202eecila"'), ("sub", '" alice"'),
    ("sub", '"a\\u001b[31mb"'),
    ("scope", "[]"), ("scope", "5"), ("scope", '"a\\u0000b"'), ("scope", '"a\\tb"'), ("scope", '"\\u00e9"'),
    ("scope", "null"),
    ("wlcg.ver", '"2.0"'), ("wlcg.ver", "1.0"), ("wlcg.ver", '"1"'), ("wlcg.ver", '"1.x"'), ("wlcg.ver", "null"),
    ("wlcg.ver", '"10.0"'), ("wlcg.ver", '"1.0\\n"'),
    ("wlcg.groups", '"/escape"'), ("wlcg.groups", "{}"), ("wlcg.groups", "[1]"), ("wlcg.groups", "[[]]"),
    ("wlcg.groups", "null"), ("wlcg.groups", json.dumps([f"/g{number}" for number in range(600)])),
)  # fmt: skip

for number, (name, text) in enumerate(RAW_CLAIMS):

    @hostile(f"claim {name} {text[:30]} ({number})")
    def _(world: World, name: str = name, text: str = text) -> str:
        return raw_claim(world, name, text)


for name in ("exp", "aud", "sub", "iss"):

    @hostile(f"no {name}")
    def _(world: World, name: str = name) -> str:
        return world.token(**{name: None})


@hostile("the audience twice")
def _(world: World) -> str:
    return body(world, json.dumps(world.claims())[:-1].encode() + b', "aud": "https://fts.example"}')


@hostile("the subject twice, once escaped")
def _(world: World) -> str:
    return body(world, json.dumps(world.claims())[:-1].encode() + b', "s\\u0075b": "root"}')


@hostile("ends before it begins")
def _(world: World) -> str:
    return world.token(nbf=int(NOW) + 30, iat=int(NOW) + 30, exp=int(NOW) + 20)


@hostile("six thousand scopes")
def _(world: World) -> str:
    return world.token(scope="a " * 5000)


@hostile("a hundred thousand scopes")
def _(world: World) -> str:
    return world.token(scope="a " * 100_000)


ISSUERS = (
    "https://issuer.example.evil.example", "https://issuer.example@evil.example", "https://evil@issuer.example",
    "https://ISSUER.example", "HTTPS://issuer.example", "http://issuer.example", "https://issuer.example//",
    "https://issuer.example/.", "https://issuer.example/..", "https://issuer.example:443", "https://issuer.example/x",
    "https://issuer.example?", "https://issuer.example#", "https://issuer.example\u200b", "https://\u0456ssuer.example",
    "https://xn--ssuer-yqe.example", " https://issuer.example", "https://issuer.example\n", "issuer.example",
    "https://issuer.example.", "file:///etc/passwd", "", "https://issuer", "https://issuer.example\x00",
    "https://storages.example/", "https://issuer%2Eexample", "https://issuer.example/" + "a" * 5000,
)  # fmt: skip

for number, issuer in enumerate(ISSUERS):

    @hostile(f"issuer {number}")
    def _(world: World, issuer: str = issuer) -> str:
        return spoilt(world, "iss", issuer)


for wrong in (None, 5, ["https://issuer.example/"], {"iss": 1}, True):

    @hostile(f"issuer {wrong!r}")
    def _(world: World, wrong: Any = wrong) -> str:
        return spoilt(world, "iss", wrong)


@hostile("a good token of an issuer for storages")
def _(world: World) -> str:
    return world.storages.sign(world.storages.claims(aud=AUDIENCE, iss=STORAGE_ISSUER + "/"))
