"""nginx with its WebDAV modules: a passive storage without checksums."""

from __future__ import annotations

from tests.storages.bench import Bench
from tests.storages.process import Server, find_library, find_program
from tests.storages.storage import Storage

PACKAGES = "nginx-extras libnginx-mod-http-dav-ext"
MODULE = "nginx/modules/ngx_http_dav_ext_module.so"

CONFIG = """\
load_module {module};
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  access_log {folder}/access.log;
  default_type application/octet-stream;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{port_tls} ssl;
    server_name localhost;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    root {folder}/data;
    location / {{
      dav_methods PUT DELETE MKCOL COPY MOVE;
      dav_ext_methods PROPFIND OPTIONS;
      dav_access user:rw group:r all:r;
    }}
  }}
}}
"""


def check() -> None:
    """Raise CannotRun unless nginx and its module for PROPFIND are installed."""
    find_program("nginx", PACKAGES)
    find_library(MODULE, PACKAGES)


def start(bench: Bench, name: str) -> Storage:
    """One nginx that serves http and https."""
    folder, port, port_tls = bench.folder(name), bench.port(), bench.port()
    certificate, key = bench.authority.write_server(folder)
    config = folder / "nginx.conf"
    config.write_text(
        CONFIG.format(
            module=find_library(MODULE, PACKAGES),
            folder=folder,
            port=port,
            port_tls=port_tls,
            certificate=certificate,
            key=key,
        )
    )
    program = find_program("nginx", PACKAGES)
    server = Server(
        name=name,
        command=[program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")],
        directory=folder,
        log=folder / "error.log",
        account=bench.account,
    )
    bench.launch(server, (port, False), (port_tls, True))
    return Storage(
        name=name,
        kind="nginx",
        url=f"http://localhost:{port}",
        https_url=f"https://localhost:{port_tls}",
        data_dir=folder / "data",
        log=server.log,
        account=bench.account,
        servers=[server],
    )
