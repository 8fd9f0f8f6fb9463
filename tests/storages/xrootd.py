"""XRootD 5 with HTTP third-party copy: anonymous nodes, nodes that want WLCG tokens, and nodes that want certificates.

XrdHttp tells http from https by the first byte, so one port serves both. XRootD has no setting to
listen on loopback only. It looks for CAs of a third-party copy's other end in `X509_CERT_DIR` and
in `xrd.tlsca`.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from tests.storages.authority import ANY_AUDIENCE
from tests.storages.bench import Bench
from tests.storages.process import Server, find_library, find_program
from tests.storages.storage import Storage

PACKAGES = "xrootd-server xrootd-server-plugins xrootd-plugins"
TOKEN_PACKAGES = f"{PACKAGES} xrootd-scitokens-plugins"
DIGESTS = ("adler32", "md5", "crc32c")


def check() -> None:
    """Raise CannotRun unless XRootD and its HTTP plug-ins are installed."""
    find_program("xrootd", PACKAGES)
    for library in ("libXrdHttp-*.so", "libXrdHttpTPC-*.so"):
        find_library(library, PACKAGES)


def check_token() -> None:
    """The same with the plug-in for tokens."""
    check()
    find_library("libXrdAccSciTokens-*.so", TOKEN_PACKAGES)


def check_certificate() -> None:
    """The same with the plug-in for macaroons."""
    check()
    find_library("libXrdMacaroons-*.so", PACKAGES)


def start(bench: Bench, name: str) -> Storage:
    """An anonymous node; anyone may read and write."""
    folder, port = bench.folder(name), bench.port()
    return _launch(bench, name, folder, port, _settings(bench, name, folder, port), token=False)


def start_token(bench: Bench, name: str) -> Storage:
    """A node that wants a token for everything; scope paths count from the root."""
    folder, port = bench.folder(name), bench.port()
    audiences = f"https://localhost:{port}, https://127.0.0.1:{port}, {ANY_AUDIENCE}"
    tokens, nobody = folder / "scitokens.cfg", folder / "authdb"
    tokens.write_text(
        f"[Global]\naudience = {audiences}\n\n"
        + "\n".join(
            f"[Issuer {n}]\nissuer = {issuer}\nbase_path = /\nmap_subject = False\ndefault_user = nobody\n"
            for n, issuer in enumerate(bench.authority.issuers)
        )
    )
    # XRootD wants an authorization file, and one line in it; nobody has this name.
    nobody.write_text("u no-such-user /nowhere rl\n")
    bench.authority.write_key_cache(folder / "cache")
    settings = [
        *_settings(bench, name, folder, port),
        "ofs.authorize 1",
        f"acc.authdb {nobody}",
        f"ofs.authlib ++ libXrdAccSciTokens.so config={tokens}",
        "scitokens.trace all",
    ]
    return _launch(bench, name, folder, port, settings, token=True)


def start_certificate(bench: Bench, name: str) -> Storage:
    """A node that lets in the grid's `alice` alone, by her certificate or a proxy of it, and gives macaroons.

    Debian has no plug-in that reads VOMS attributes for XrdHttp: users are known by their subject.
    """
    folder, port = bench.folder(name), bench.port()
    trusted, users, rights, secret = (folder / part for part in ("ca.pem", "gridmap", "authdb", "macaroon.key"))
    trusted.write_bytes(bench.authority.ca_file.read_bytes() + bench.grid.bundle.read_bytes())
    # A proxy's subject is that of its user with more behind it.
    users.write_text(f'"^{bench.grid.user("alice").dn}" alice\n')
    rights.write_text("u alice / a\n")
    secret.write_text(base64.b64encode(os.urandom(64)).decode() + "\n")
    secret.chmod(0o600)
    settings = [
        *(line for line in _settings(bench, name, folder, port) if not line.startswith("xrd.tlsca ")),
        f"xrd.tlsca certfile {trusted}",
        f"http.gridmap {users}",
        "http.exthandler xrdmacaroons libXrdMacaroons.so",
        f"macaroons.secretkey {secret}",
        "macaroons.trace all",
        "ofs.authorize 1",
        f"acc.authdb {rights}",
        "ofs.authlib ++ libXrdMacaroons.so",
    ]
    storage = _launch(bench, name, folder, port, settings, token=False)
    storage.kind, storage.url, storage.needs_certificate = "xrootd-x509", storage.https_url, True
    return storage


def _settings(bench: Bench, name: str, folder: Path, port: int) -> list[str]:
    certificate, key = bench.authority.write_server(folder)
    admin = bench.admin(name)
    return [
        f"all.sitename {name.upper()}",
        f"xrd.port {port}",
        f"xrd.protocol XrdHttp:{port} libXrdHttp.so",
        "xrd.network nodnr norpipa",
        "all.export / r/w",
        f"oss.localroot {folder / 'data'}",
        f"all.adminpath {admin}",
        f"all.pidpath {admin}",
        "xrootd.seclib libXrdSec.so",
        f"xrootd.chksum max 4 {' '.join(DIGESTS)}",
        f"xrd.tls {certificate} {key}",
        f"xrd.tlsca certfile {bench.authority.ca_file}",
        "http.header2cgi Authorization authz",
        "http.exthandler xrdtpc libXrdHttpTPC.so",
        "tpc.trace all",
    ]


def _launch(bench: Bench, name: str, folder: Path, port: int, settings: list[str], *, token: bool) -> Storage:
    config = folder / "xrootd.cfg"
    config.write_text("\n".join(settings) + "\n")
    server = Server(
        name=name,
        command=[find_program("xrootd", PACKAGES), "-c", str(config), "-n", "te", "-s", str(folder / "pid")],
        directory=folder,
        log=folder / "xrootd.log",
        account=bench.account,
        environ={"XDG_CACHE_HOME": str(folder / "cache")},
    )
    bench.launch(server, (port, True))
    https = f"https://localhost:{port}"
    return Storage(
        name=name,
        kind="xrootd-token" if token else "xrootd",
        url=https if token else f"http://localhost:{port}",
        https_url=https,
        data_dir=folder / "data",
        log=server.log,
        account=bench.account,
        servers=[server],
        digests=frozenset(DIGESTS),
        copies=True,
        needs_token=token,
        _token=bench.authority.token if token else None,
    )
