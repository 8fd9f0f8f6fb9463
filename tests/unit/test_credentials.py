"""Credentials: found where every grid tool finds them, and never printed."""

from __future__ import annotations

import pickle

import pytest

from protocols.credentials import ANONYMOUS, TOKEN_MAX, Credential, Secret, discover, discover_ca, discover_token


def test_a_secret_does_not_print_itself():
    secret = Secret("CANARY")
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r}", repr(Credential(token=secret)), f"{[secret]}"]
    assert not any("CANARY" in text for text in shown)
    assert secret.reveal() == "CANARY"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_secrets_compare_by_value():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")


def test_the_order_of_token_discovery(tmp_path):
    named, runtime = tmp_path / "named", tmp_path / "run"
    named.write_text(" from-file\n")
    runtime.mkdir()
    (runtime / "bt_u4242").write_text("from-runtime")
    env = {"BEARER_TOKEN": " direct ", "BEARER_TOKEN_FILE": str(named), "XDG_RUNTIME_DIR": str(runtime)}
    assert discover_token(env, 4242) == Secret("direct")
    del env["BEARER_TOKEN"]
    assert discover_token(env, 4242) == Secret("from-file")
    del env["BEARER_TOKEN_FILE"]
    assert discover_token(env, 4242) == Secret("from-runtime")
    assert discover_token({}, 999_999_999) is None


def test_a_token_file_that_is_no_token(tmp_path):
    big, empty = tmp_path / "big", tmp_path / "empty"
    big.write_text("x" * (TOKEN_MAX + 1))
    empty.write_text("\n")
    with pytest.raises(ValueError, match="at most"):
        discover_token({"BEARER_TOKEN_FILE": str(big)})
    assert discover_token({"BEARER_TOKEN_FILE": str(empty)}) is None
    assert discover_token({"BEARER_TOKEN_FILE": str(tmp_path / "missing")}) is None


def test_certificates(tmp_path):
    proxy = tmp_path / "proxy"
    assert discover({"X509_USER_PROXY": str(proxy)}, 999_999_999) == Credential(certificate=proxy)
    pair = {"X509_USER_CERT": str(tmp_path / "c"), "X509_USER_KEY": str(tmp_path / "k")}
    assert discover(pair, 999_999_999) == Credential(certificate=tmp_path / "c", key=tmp_path / "k")
    assert discover({}, 999_999_999) == ANONYMOUS


def test_the_ca_directory(tmp_path):
    assert discover_ca({"X509_CERT_DIR": str(tmp_path), "SSL_CERT_FILE": "/x"}) == tmp_path
