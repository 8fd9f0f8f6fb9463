"""`rclone serve webdav`: a passive storage without checksums; one process for http, one for https."""

from __future__ import annotations

from pathlib import Path

from tests.storages.bench import Bench
from tests.storages.process import Server, find_program
from tests.storages.storage import Storage

PACKAGES = "rclone"


def check() -> None:
    """Raise CannotRun unless rclone is installed."""
    find_program("rclone", PACKAGES)


def start(bench: Bench, name: str) -> Storage:
    """Two servers over the same directory; neither caches what the other changes."""
    folder, port, port_tls = bench.folder(name), bench.port(), bench.port()
    certificate, key = bench.authority.write_server(folder)
    (folder / "rclone.conf").touch()
    plain = bench.launch(_server(bench, name, folder, port, []), (port, False))
    try:
        tls = _server(bench, f"{name}-https", folder, port_tls, ["--cert", str(certificate), "--key", str(key)])
        bench.launch(tls, (port_tls, True))
    except BaseException:
        plain.stop()
        raise
    return Storage(
        name=name,
        kind="rclone",
        url=f"http://localhost:{port}",
        https_url=f"https://localhost:{port_tls}",
        data_dir=folder / "data",
        log=plain.log,
        account=bench.account,
        servers=[plain, tls],
    )


def _server(bench: Bench, name: str, folder: Path, port: int, more: list[str]) -> Server:
    command = [find_program("rclone", PACKAGES), "serve", "webdav", str(folder / "data")]
    command += ["--config", str(folder / "rclone.conf"), "--cache-dir", str(folder / "cache")]
    command += ["--dir-cache-time", "0s", "--poll-interval", "0", "--vfs-cache-mode", "off"]
    command += ["--addr", f"127.0.0.1:{port}", *more]
    return Server(
        name=name,
        command=command,
        directory=folder,
        log=folder / f"{name}.log",
        account=bench.account,
        # XRootD 5.5.3 as the active party of a push over HTTP/2 reports "status code 405" though the file arrives.
        environ={"GODEBUG": "http2server=0"},
    )
