"""Apache with mod_dav: a passive storage without checksums."""

from __future__ import annotations

from pathlib import Path

from tests.storages.bench import Bench
from tests.storages.process import Server, find_library, find_program
from tests.storages.storage import Storage

PACKAGES = "apache2"
MODULES = (
    "mpm_event",
    "authn_core",
    "authz_core",
    "dir",
    "mime",
    "autoindex",
    "socache_shmcb",
    "ssl",
    "dav",
    "dav_fs",
)

CONFIG = """\
ServerRoot {folder}
{modules}
ServerName localhost
PidFile {folder}/pid
Mutex file:{folder} default
ErrorLog {folder}/error.log
TransferLog {folder}/access.log
LogLevel warn
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{port_tls} https
StartServers 1
ServerLimit 1
ThreadsPerChild 32
MaxRequestWorkers 32
DavLockDB {folder}/locks
TypesConfig /dev/null
DocumentRoot {folder}/data
<Directory {folder}/data>
  Dav On
  Require all granted
  Options Indexes
  AllowOverride None
  DirectoryIndex disabled
</Directory>
<VirtualHost 127.0.0.1:{port_tls}>
  SSLEngine on
  SSLCertificateFile {certificate}
  SSLCertificateKeyFile {key}
  DocumentRoot {folder}/data
</VirtualHost>
"""


def _module(name: str) -> str:
    return find_library(f"apache2/modules/mod_{name}.so", PACKAGES)


def check() -> None:
    """Raise CannotRun unless Apache and its modules are installed."""
    find_program("apache2", PACKAGES)
    for module in MODULES:
        _module(module)


def _config(folder: Path, certificate: Path, key: Path, port: int, port_tls: int) -> str:
    modules = "\n".join(f"LoadModule {name}_module {_module(name)}" for name in MODULES)
    return CONFIG.format(folder=folder, modules=modules, port=port, port_tls=port_tls, certificate=certificate, key=key)


def start(bench: Bench, name: str) -> Storage:
    """One Apache that serves http and https, in its single-process mode (-X)."""
    folder, port, port_tls = bench.folder(name), bench.port(), bench.port()
    config = folder / "apache.conf"
    config.write_text(_config(folder, *bench.authority.write_server(folder), port, port_tls))
    server = Server(
        name=name,
        command=[find_program("apache2", PACKAGES), "-f", str(config), "-X"],
        directory=folder,
        log=folder / "error.log",
        account=bench.account,
    )
    bench.launch(server, (port, False), (port_tls, True))
    return Storage(
        name=name,
        kind="apache",
        url=f"http://localhost:{port}",
        https_url=f"https://localhost:{port_tls}",
        data_dir=folder / "data",
        log=server.log,
        account=bench.account,
        servers=[server],
    )
