"""XRootD 5 with HTTP third-party copy: anonymous nodes, and nodes that want WLCG tokens.

XrdHttp tells http from https by the first byte, so one port serves both. XRootD has no setting to
listen on loopback only. It looks for CAs of a third-party copy's other end in `X509_CERT_DIR` and
in `xrd.tlsca`.
"""

from __future__ import annotations

from pathlib import Path

from tests.storages.authority import ANY_AUDIENCE, ISSUER
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
        f"[Issuer tests]\nissuer = {ISSUER}\nbase_path = /\nmap_subject = False\ndefault_user = nobody\n"
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
