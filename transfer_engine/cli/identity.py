"""Who the command line is towards a job service: a token or a certificate, from the environment.

`TRANSFER_ENGINE_TOKEN` or `TRANSFER_ENGINE_TOKEN_FILE` name the token for the service. Without them, over
https: the user's certificate or proxy, else the user's bearer token, from the usual places of grid tools.
A token never crosses a network in clear.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from protocols.credentials import Secret, discover_ca, discover_certificate, discover_token
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import stop
from transfer_engine.identity.loopback import is_loopback

TOKEN, TOKEN_FILE = "TRANSFER_ENGINE_TOKEN", "TRANSFER_ENGINE_TOKEN_FILE"


def own_token(environ: Mapping[str, str]) -> Secret | None:
    """The token that is meant for job services."""
    if text := environ.get(TOKEN, "").strip():
        return Secret(text)
    if named := environ.get(TOKEN_FILE):
        try:
            return Secret(Path(named).read_text("ascii").strip())
        except (OSError, UnicodeDecodeError) as error:
            stop(f"{TOKEN_FILE}: {named} cannot be read: {error}", Exit.DENIED)
    return None


def identity(url: str, environ: Mapping[str, str] | None = None) -> tuple[dict[str, str], ssl.SSLContext | bool]:
    """(headers, TLS) for requests to a service. Raises: Stop: what is there cannot be used."""
    env = os.environ if environ is None else environ
    parts = urlsplit(url)
    token = own_token(env)
    if parts.scheme != "https":
        if token is not None and not is_loopback(parts.hostname or ""):
            stop(f"a token is not sent to {url} in clear; use https", Exit.DENIED)
        return _headers(token), True
    context = _trust(env)
    if token is None:
        certificate, key = discover_certificate(env)
        if certificate is not None:
            try:
                context.load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError) as error:
                stop(f"{certificate} cannot be used: {error}", Exit.DENIED)
        else:
            token = _bearer(env)
    return _headers(token), context


def _bearer(env: Mapping[str, str]) -> Secret | None:
    try:
        return discover_token(env)
    except ValueError as error:
        stop(str(error), Exit.DENIED)


def _trust(env: Mapping[str, str]) -> ssl.SSLContext:
    ca = discover_ca(env)
    try:
        if ca is None:
            return ssl.create_default_context()
        return ssl.create_default_context(
            capath=str(ca) if ca.is_dir() else None, cafile=None if ca.is_dir() else str(ca)
        )
    except (OSError, ssl.SSLError) as error:
        stop(f"{ca}: no certificates of CAs can be read: {error}", Exit.DENIED)


def _headers(token: Secret | None) -> dict[str, str]:
    if token is None:
        return {}
    text = token.reveal()
    if not (text.isascii() and text.isprintable()) or " " in text:
        stop("what is given as the token is none: it holds blanks, line ends or letters beyond ASCII", Exit.DENIED)
    return {"Authorization": f"Bearer {text}"}
