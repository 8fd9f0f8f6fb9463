"""Text that somebody else wrote, without the secrets in it.

Two ways, for two kinds of knowledge. Whoever sent a secret knows it and cuts out exactly that (`without`): a storage
may quote the header that it was sent, whole or in part, in an error that ends before users, in the database and in
the log. Where nothing is known (a log line, somebody else's token) secrets are told by their shape (`shapeless`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from protocols.credentials import Credential
from protocols.errors import TransferError

MASK: Final = "***"
WINDOW: Final = 16
"""So many characters in a row that are in a secret are no coincidence; they are cut out wherever they are from."""
SHORT_MIN: Final = 4
"""Secrets shorter than that would be found in every word."""

# Names of query parameters and form fields whose values are secrets: XRootD puts tokens into `authz` and `xrdhttptk`,
# EOS signed capabilities into `cap.…`, S3 and Google signatures into the `X-…` ones, OAuth the rest.
_NAMES: Final = (
    r"authz|(?:access_|refresh_|id_|subject_|actor_)?token|client_secret|macaroon|xrdhttptk|cap\.sym|cap\.msg"
    r"|signature|sig|x-(?:amz|goog)-[a-z-]+|awsaccesskeyid|passcode|password"
)
_NAMED: Final = re.compile(rf"(?i)(?<![\w.-])({_NAMES})=[^&\s\"'<>,;]*")
_NAMED_JSON: Final = re.compile(rf"(?i)(\\?[\"'](?:{_NAMES})\\?[\"']\s*:\s*\\?[\"'])[^\"'\\]*")
_SHAPES: Final = (
    (re.compile(r"(?s)-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)"), MASK),
    (re.compile(r"(?im)\b((?:proxy-|transferheader|copy-header)?authorization[\"']?\s*[:=]\s*).+$"), r"\1" + MASK),
    (_NAMED, r"\1=" + MASK),
    (_NAMED_JSON, r"\1" + MASK),
    # Not "bearer token": what is no word has a digit, a sign or capitals within.
    (
        re.compile(
            r"\b(?i:(bearer|basic))(?:\s|%20|\+)+(?=[A-Za-z]*(?:[0-9]|[._~+/=%-][A-Za-z0-9]|[a-z][A-Z]|[A-Z]{2}))"
            r"[A-Za-z0-9._~+/=%-]{4,}"
        ),
        r"\1 " + MASK,
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}"), MASK),
    # A macaroon begins with the length of its first packet and its name: `0021location `.
    (re.compile(r"\bMDA[A-Za-z0-9]{3}xvY2F0aW9u[A-Za-z0-9_+/=-]*"), MASK),
    # A token of this service.
    (re.compile(r"\bte_[A-Za-z0-9_-]{20,}"), MASK),
    (re.compile(r"(?<=://)[^/@\s:]+:[^/@\s]*@"), MASK + "@"),
)
_HINTS: Final = (
    "private key", "authori", "bearer", "basic", "eyj", "mda", "te_", "@", "authz", "token", "secret", "macaroon",
    "xrdhttptk", "cap.", "sig", "x-amz-", "x-goog-", "awsaccess", "pass",
)  # fmt: skip
"""What every text with one of the shapes holds, in lower case: nearly no text has any of them."""


def shapeless(text: str) -> str:
    """`text` without what looks like a secret."""
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS):
        return text
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    return text


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` with these secrets cut out, also where only a part of one is there, or one that is written otherwise.

    Known spellings: as it is, escaped for URLs, JSON and HTML, in base64.
    """
    for secret in secrets:
        if len(secret) < SHORT_MIN:
            continue
        for form in _forms(secret):
            text = text.replace(form, MASK) if len(form) <= WINDOW else _cut(text, form)
    return text


def _forms(secret: str) -> Iterator[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    spelt = [secret, quote(raw, safe=""), quote_plus(raw), json.dumps(secret)[1:-1], escape(secret)]
    # Inside something longer (`id:secret`) base64 depends on where it begins; its first and last characters on more.
    spelt += [base64.b64encode(b"\0" * shift + raw).decode()[4 if shift else 0 :].rstrip("=") for shift in range(3)]
    return (form for form in dict.fromkeys(spelt) if len(form) >= SHORT_MIN)


def _cut(text: str, secret: str) -> str:
    parts: list[str] = []
    end = -1
    for start in range(len(text) - WINDOW + 1):
        if text[start : start + WINDOW] in secret:
            if start > end:
                parts += [text[max(end, 0) : start], MASK]
            end = start + WINDOW
    return "".join(parts) + text[end:] if parts else text


def secrets_of(url: str) -> list[str]:
    """The secrets that the query of a URL holds."""
    try:
        query = urlsplit(url).query
    except ValueError:
        return []
    if "=" not in query:
        return []
    raw = [part.partition("=")[2] for part in query.split("&") if _NAMED.match(part)]
    return [*raw, *(value for name, value in parse_qsl(query) if _NAMED.match(f"{name}="))]


@contextmanager
def masking(credentials: Iterable[Credential], urls: Iterable[str] = ()) -> Iterator[None]:
    """Failures from within say nothing of what was shown to storages."""
    try:
        yield
    except TransferError as failure:
        shown = [credential.token.reveal() for credential in credentials if credential.token]
        mask(failure, [*shown, *(secret for url in urls for secret in secrets_of(url))])
        raise


def mask(failure: TransferError, secrets: Iterable[str]) -> None:
    """Cut secrets out of what a failure says."""
    known = tuple(secrets)
    failure.message = without(failure.message, known)
    failure.hint = without(failure.hint, known)
    failure.args = (failure.message,)
