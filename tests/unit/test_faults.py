"""The table of faults: real wordings of XRootD, dCache and StoRM, and what is made of them."""

from __future__ import annotations

import errno
import ssl
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import given
from hypothesis import strategies as st

from protocols.api import Mode
from protocols.errors import (
    AlreadyExists,
    BadServer,
    ChecksumMismatch,
    CopyFailed,
    Denied,
    Missing,
    NoSpace,
    Overloaded,
    ParentMissing,
    Refused,
    Scope,
    TimedOut,
    TransferError,
    Unavailable,
    Unsupported,
)
from protocols.http import faults

SOURCE, DESTINATION, TRANSFER = Scope.SOURCE, Scope.DESTINATION, Scope.TRANSFER

PULL_TEXTS = [
    ('Remote side failed with status code 404; error message: "..."', Missing, SOURCE),
    ('Remote side failed with status code 403; error message: "Unable to open /f; permission denied "', Denied, SOURCE),
    ("Remote side failed with status code 503", Overloaded, SOURCE),
    ("Remote side failed with status code 500", Unavailable, SOURCE),
    ("remote host returned '404 Not Found' while fetching file size, local=/x, remote=http://h/y", Missing, SOURCE),
    ("remote host returned '403 Forbidden' while fetching file size, local=/x, remote=http://h/y", Denied, SOURCE),
    ("rejected GET: 404 Not Found", Missing, SOURCE),
    ("Error fetching https://h/p/q: 404", Missing, SOURCE),
    ("Unable to create /x; no such file or directory", ParentMissing, DESTINATION),
    ("Unable to create /x; permission denied", Denied, DESTINATION),
    ("Unable to create /x; file exists", AlreadyExists, DESTINATION),
    ("Remote file exists", AlreadyExists, DESTINATION),
    ("Couldn't connect to server", Unavailable, SOURCE),
    ("Couldn't resolve host name", Unavailable, SOURCE),
    ("ConnectException while fetching https://h/x", Unavailable, SOURCE),
    ("SSL peer certificate or SSH remote key was not OK", BadServer, SOURCE),
    ("Transferred a partial file", CopyFailed, SOURCE),
    ("Timeout was reached", CopyFailed, SOURCE),
    (
        "Error when interacting with local filesystem: Transfer failed because no bytes have been received in 60 s",
        CopyFailed,
        SOURCE,
    ),
    ("Error when interacting with local filesystem: Unable to write x; no space left on device", NoSpace, DESTINATION),
    ("Error when interacting with local filesystem: Unable to write x; input/output error", CopyFailed, DESTINATION),
    ("Failed to open local resource", Unavailable, DESTINATION),
    ("verification failed: adler32 1 != 2", ChecksumMismatch, TRANSFER),
    ("checksum verification failed", ChecksumMismatch, TRANSFER),
    ("Mismatch between client-provided and remote server checksums", ChecksumMismatch, TRANSFER),
    ("Unsupported protocol", Unsupported, DESTINATION),
    ("RemoteTransferManager restarted", Unavailable, DESTINATION),
    ("something nobody has seen before", CopyFailed, TRANSFER),
    ("", CopyFailed, TRANSFER),
]


@pytest.mark.parametrize(("text", "error", "scope"), PULL_TEXTS)
def test_failure_lines_of_a_pull(text, error, scope):
    found = faults.from_copy_text(text, mode=Mode.PULL)
    assert (type(found), found.scope) == (error, scope)
    assert found.errno
    assert found.message
    assert not found.unsettled


@pytest.mark.parametrize(
    ("text", "error", "scope"),
    [
        ("Unable to open /f; no such file or directory", Missing, SOURCE),
        ("Unable to open /f; is a directory", Refused, SOURCE),
        ("Remote side failed with status code 403", Denied, DESTINATION),
        ("Remote side failed with status code 409", ParentMissing, DESTINATION),
        ("Remote side failed with status code 507", NoSpace, DESTINATION),
        ("failed to send PUT request: broken after sending 3", CopyFailed, DESTINATION),
        ("Failed sending data to the peer", CopyFailed, DESTINATION),
        ("Server returned nothing (no headers, no data)", CopyFailed, DESTINATION),
    ],
)
def test_failure_lines_of_a_push(text, error, scope):
    found = faults.from_copy_text(text, mode=Mode.PUSH)
    assert (type(found), found.scope) == (error, scope)


@pytest.mark.parametrize(
    ("status", "text", "mode", "error", "scope"),
    [
        (400, "Unable to create /x; no such file or directory", Mode.PULL, ParentMissing, DESTINATION),
        (409, "", Mode.PULL, ParentMissing, DESTINATION),
        (400, "failure: no such directory", Mode.PULL, ParentMissing, DESTINATION),
        (404, "remote host returned '404 Not Found'", Mode.PULL, Missing, SOURCE),
        (404, "", Mode.PUSH, Missing, SOURCE),
        (412, "", Mode.PULL, AlreadyExists, DESTINATION),
        (500, "Unable to create /x; file exists, local=/x, remote=http://h/y", Mode.PULL, AlreadyExists, DESTINATION),
        (412, "Mismatch between client-provided and remote server checksums", Mode.PULL, ChecksumMismatch, TRANSFER),
        (401, "", Mode.PULL, Denied, DESTINATION),
        (403, "", Mode.PUSH, Denied, SOURCE),
        (429, "", Mode.PULL, Overloaded, DESTINATION),
        (500, "Timeout was reached", Mode.PULL, CopyFailed, SOURCE),
        (500, "", Mode.PULL, Unavailable, DESTINATION),
        (502, "", Mode.PULL, Unavailable, DESTINATION),
        (507, "", Mode.PUSH, NoSpace, DESTINATION),
        (414, "", Mode.PULL, Refused, DESTINATION),
        (405, "", Mode.PULL, Unsupported, DESTINATION),
    ],
)
def test_refused_copies_of_tpc_servers(status, text, mode, error, scope):
    found = faults.from_copy_status(status, text, {"Retry-After": "7"}, mode=mode)
    assert (type(found), found.scope, found.status, found.retry_after_s) == (error, scope, status, 7.0)


@given(status=st.integers(300, 999), text=st.text(max_size=50), mode=st.sampled_from([Mode.PULL, Mode.PUSH]))
def test_every_status_has_a_class(status, text, mode):
    for found in (
        faults.from_copy_status(status, text, {}, mode=mode),
        faults.from_status(status, text, {}, subject="HEAD x"),
    ):
        assert isinstance(found, TransferError)
        assert found.message.isprintable()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("99999999999999", 900.0), ("-1", None), ("soon", None), ("", None), (None, None)],
)
def test_retry_after_in_seconds(value, seconds):
    assert faults.retry_after(value) == seconds


def test_retry_after_as_a_date_is_measured_by_the_servers_own_clock():
    headers = {"Date": "Wed, 25 Nov 2026 05:00:00 GMT", "Retry-After": "Wed, 25 Nov 2026 05:01:30 GMT"}
    assert faults.retry_after_of(headers) == 90.0
    past = datetime(2027, 1, 1, tzinfo=UTC)
    assert faults.retry_after(headers["Retry-After"], past) == 0.0
    assert faults.retry_after_of({"Retry-After": headers["Retry-After"]}) is None


@pytest.mark.parametrize(
    "text",
    [
        "GET https://h/p?authz=Bearer%20CANARY123&x=1",
        "Authorization: Bearer CANARY123.abc",
        "bearer CANARY123abc is expired",
        "token eyJCANARY123.eyJzdWIi.sig is not yet valid",
        "see https://user:CANARY123@h/x",
        "https://h/p?x=1&access_token=CANARY123;y",
        "Location: https://h//p?&authz=CANARY123&xrdhttptk=CANARY123",
    ],
)
def test_secrets_are_taken_out(text):
    assert "CANARY123" not in faults.strip_secrets(text)
    assert "CANARY123" not in faults.from_copy_text(f"failure {text}", mode=Mode.PULL).message
    assert "CANARY123" not in faults.from_copy_status(400, text, {}, mode=Mode.PULL).message
    assert "CANARY123" not in faults.from_status(500, text, {}, subject="GET x").message
    assert "CANARY123" not in faults.from_exception(OSError(5, text), subject="GET x").message


@pytest.mark.parametrize(
    ("failure", "error", "number"),
    [
        (ssl.SSLError(1, "certificate verify failed"), BadServer, errno.EPROTO),
        # What aiohttp raises when a storage refuses our certificate after the handshake, as TLS 1.3 does.
        (aiohttp.ClientOSError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca"), Denied, errno.EACCES),
        (ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] certificate expired"), Denied, errno.EACCES),
        (ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] required"), Denied, errno.EACCES),
        (aiohttp.ClientOSError(1, "[SSL: TLSV1_ALERT_INTERNAL_ERROR] internal"), Unavailable, errno.ECONNRESET),
        (aiohttp.ServerDisconnectedError(), Unavailable, errno.ECONNRESET),
        (ConnectionResetError(104, "reset"), Unavailable, errno.ECONNRESET),
        (aiohttp.ConnectionTimeoutError("connect"), Unavailable, errno.ETIMEDOUT),
        (TimeoutError(), TimedOut, errno.ETIMEDOUT),
        (aiohttp.ClientPayloadError("cut"), Unavailable, errno.ECONNRESET),
        (aiohttp.InvalidURL("x"), Refused, errno.EINVAL),
        (RuntimeError("odd"), Unavailable, errno.ECOMM),
    ],
)
def test_exceptions(failure, error, number):
    found = faults.from_exception(failure, subject="HEAD https://h/x")
    assert (type(found), found.errno) == (error, number)
    assert found.message.startswith("HEAD https://h/x: ")


def test_html_bodies_become_one_line():
    body = b"<html><head><title>No</title></head>\n<body><h1>404</h1>\n<p>Not here</p></body></html>"
    assert faults.readable(body) == "404 Not here"


def test_a_connection_that_is_refused_says_nothing_of_tls():
    key = ConnectionKey("h", 80, False, True, None, None, None)
    failure = aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 80)"))
    found = faults.from_exception(failure, subject="HEAD http://h/x")
    assert (type(found), found.errno) == (Unavailable, errno.ECONNREFUSED)
    assert found.message == "HEAD http://h/x: Cannot connect to host h:80 [Connect call failed ('127.0.0.1', 80)]"
