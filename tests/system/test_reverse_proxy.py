"""Real web servers in front that end TLS: nginx and Apache, as `docs/access.md` configures them."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector, web

from tests.grid import Grid, Identity
from tests.programs import need
from transfer_engine.callers import Caller
from transfer_engine.clock import SystemClock
from transfer_engine.config_service import AuthSettings, ReverseProxy
from transfer_engine.identity.authenticator import TheAuthenticator
from transfer_engine.identity.x509.users import GridCertificates
from transfer_engine.service.boundary import Boundary, caller_of

NGINX = """
daemon off; master_process off; pid {root}/nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
    uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate}; ssl_certificate_key {key};
        ssl_client_certificate {ca}; ssl_verify_client optional;
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-SSL-Client-Verify $ssl_client_verify;
            proxy_set_header X-SSL-Client-S-DN $ssl_client_s_dn;
            proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
        }}
    }}
}}
"""

APACHE = """
ServerRoot {root}
PidFile {root}/apache.pid
ErrorLog {root}/apache.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
LoadModule socache_shmcb_module /usr/lib/apache2/modules/mod_socache_shmcb.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
Listen 127.0.0.1:{port}
ServerName localhost
SSLEngine on
SSLCertificateFile {certificate}
SSLCertificateKeyFile {key}
SSLCACertificateFile {ca}
SSLVerifyClient optional
SSLVerifyDepth 10
SSLOptions +StdEnvVars +ExportCertData
RequestHeader set X-SSL-Client-Verify "%{{SSL_CLIENT_VERIFY}}s"
RequestHeader set X-SSL-Client-S-DN "%{{SSL_CLIENT_S_DN}}s"
RequestHeader set X-SSL-Client-Cert "%{{SSL_CLIENT_CERT}}s%{{SSL_CLIENT_CERT_CHAIN_0}}s%{{SSL_CLIENT_CERT_CHAIN_1}}s"
ProxyPreserveHost on
ProxyPass / http://127.0.0.1:{behind}/
"""


class Anybody:
    """A gate behind which nobody is banned."""

    @staticmethod
    def is_banned(_: Caller) -> bool:
        return False


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def service(grid: Grid) -> AsyncIterator[int]:
    """What is behind the front: it answers who is asking; its port."""
    front = ReverseProxy(peers=(ipaddress.ip_network("127.0.0.1/32"),))
    authenticator = TheAuthenticator(
        AuthSettings(),
        clock=SystemClock(),
        certificates=GridCertificates(client_ca=grid.bundle),
        reverse_proxy=front,
    )
    app = web.Application(middlewares=[Boundary(authenticator, Anybody(), lambda _: ()).middleware])  # type: ignore[arg-type]

    async def who(request: web.Request) -> web.Response:
        caller = caller_of(request)
        return web.json_response({"dn": caller.user_dn, "certificate": bool(caller.certificate)})

    app.router.add_get("/", who)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
        await authenticator.aclose()


@asynccontextmanager
async def front(kind: str, grid: Grid, root: Path) -> AsyncIterator[str]:
    """A web server in front of the service; its URL."""
    host = grid.host()
    async with service(grid) as behind:
        port = free_port()
        config = root / f"{kind}.conf"
        text = NGINX if kind == "nginx" else APACHE
        facts = {"certificate": host.certificate, "key": host.key_file, "ca": grid.bundle, "behind": behind}
        config.write_text(text.format(root=root, port=port, **facts))
        command = ["nginx", "-c", config] if kind == "nginx" else ["apache2", "-f", config, "-DFOREGROUND"]
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stderr=asyncio.subprocess.DEVNULL, env={**os.environ, "APACHE_RUN_DIR": str(root)}
        )
        try:
            async with asyncio.timeout(20):
                while not await listens(port):
                    assert process.returncode is None, f"{kind} does not start"
            yield f"https://localhost:{port}/"
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def ask(grid: Grid, url: str, identity: Identity | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    context = ssl.create_default_context(cafile=grid.bundle)
    if identity is not None:
        context.load_cert_chain(identity.file)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        ClientSession(connector=TCPConnector(ssl=context)) as session,
        session.get(url, headers=names) as answer,
    ):
        # A web server's own refusal is a page.
        return answer.status, await answer.json() if answer.content_type == "application/json" else {}


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["nginx", "apache"])
async def test_users_behind_a_web_server(kind, tmp_path, request):
    need(request, "nginx" if kind == "nginx" else "apache2")
    grid, other = Grid(tmp_path / "grid"), Grid(tmp_path / "other", ca_name="Another CA")
    alice = grid.user("alice")
    forged = {"X_SSL_Client_Verify": "SUCCESS", "X_SSL_Client_S_DN": "CN=root,DC=org", "x_ssl_client_cert": "x"}
    async with front(kind, grid, tmp_path) as url:
        assert await ask(grid, url, alice) == (200, {"dn": alice.dn, "certificate": True})
        assert await ask(grid, url, alice, **forged) == (200, {"dn": alice.dn, "certificate": True})
        assert await ask(grid, url) == (200, {"dn": "anon", "certificate": False})
        assert await ask(grid, url, **forged) == (200, {"dn": "anon", "certificate": False})
        try:
            status, _ = await ask(grid, url, other.user("alice"))
        except (ClientError, OSError):
            status = 0
        assert status in {0, 400, 403}
