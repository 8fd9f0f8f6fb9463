"""What the service says when things are wrong, about itself, and where it listens."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from openapi_spec_validator import validate

from tests.service import FixedClock, Service, StandingEngine, file, running_service, table
from transfer_engine.config_service import AuthSettings, LocalToken, ReverseProxy, ServiceSettings, ServiceTls
from transfer_engine.errors import IllegalTransition, Invalid, StoreUnavailable
from transfer_engine.guarded import Gate
from transfer_engine.identity.loopback import is_loopback
from transfer_engine.service.app import build_app, no_chain
from transfer_engine.service.boundary import Boundary, read_body
from transfer_engine.service.server import check_host, open_door, serve
from transfer_engine.service.wire.instance import CallerObject
from transfer_engine.store.sqlite import SqliteStore


@pytest.mark.asyncio
async def test_what_the_service_is():
    async with running_service() as service:
        for path in ("/", "//"):
            status, about = await service.call("GET", path)
            assert status == 200
            assert all(type(about["api"][part]) is int for part in ("major", "minor", "patch"))
            assert about["schema"]["major"] >= 8
            assert about["core"] is None
            for name, link in about["_links"].items():
                if name != "curies" and not link.get("templated"):
                    assert (await service.call("GET", link["href"]))[0] in {200, 405}, name
            assert {"fts:configaudit", "fts:submitschema", "fts:optimizer", "fts:archive"} < about["_links"].keys()
        for path in ("/whoami", "//whoami"):
            status, me = await service.call("GET", path)
            assert status == 200
            assert list(me) == list(get_type_hints(CallerObject))
        assert (me["user_dn"], me["dn"], me["vos"]) == ("local", ["local"], ["local"])
        status, left = await service.call("GET", f"/delegation/{me['delegation_id']}")
        assert (status, left) == (200, {"termination_time": "2023-11-15T22:13:20", "voms_attrs": []})
        assert (await service.call("GET", "/delegation/0123456789abcdef"))[0] == 403


@pytest.mark.asyncio
async def test_health():
    async with running_service() as service:
        assert await service.call("GET", "/healthz") == (200, {"status": "ok"})
        assert await service.call("GET", "/readyz") == (200, {"status": "ready"})
        service.engine.ready, service.engine.reason = False, "the dispatcher is not running"
        assert (await service.call("GET", "/healthz"))[0] == 200
        status, error = await service.call("GET", "/readyz")
        assert (status, error["message"]) == (503, "the dispatcher is not running")
        service.engine.ready, service.engine.reason = True, None
        service.engine.fails = StoreUnavailable("the disk is full")
        status, error = await service.call("GET", "/readyz")
        assert (status, error["message"]) == (503, "the disk is full")
        assert (await service.call("GET", "/healthz"))[0] == 200


@pytest.mark.asyncio
async def test_unknown_routes_and_methods():
    async with running_service() as service:
        status, error = await service.call("GET", "/nowhere")
        assert (status, error["status"]) == (404, "404 Not Found")
        for path, allowed in (
            ("/jobs", "GET,HEAD,OPTIONS,POST,PUT"),
            ("//jobs", "GET,HEAD,OPTIONS,POST,PUT"),
            ("/jobs/x", "DELETE,GET,HEAD,OPTIONS,POST"),
        ):
            async with service.http.patch(service.url + path) as response:
                assert response.status == 405
                assert response.headers["Allow"] == allowed
                assert (await response.json())["status"] == "405 Method Not Allowed"
        status, error = await service.call("POST", "/jobs", {"delete": ["https://a.example/x"]})
        assert (status, error["message"]) == (405, "Deletion jobs are no longer supported by FTS")


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/", "//whoami", "/jobs", "/healthz"])
async def test_head_and_options(path: str):
    """What load balancers and FTS3's own tests ask."""
    async with running_service() as service:
        async with service.http.head(service.url + path) as answer, service.http.get(service.url + path) as whole:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["Content-Length"] == whole.headers["Content-Length"]
        async with service.http.options(service.url + path) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert {"GET", "HEAD", "OPTIONS"} <= set(answer.headers["Allow"].split(","))
        async with service.http.options(service.url + "/nowhere") as answer:
            assert answer.status == 404


async def post(service: Service, body: bytes, **headers: str) -> tuple[int, Any]:
    return await service.call("POST", "/jobs", body, headers=headers)


@pytest.mark.asyncio
async def test_bad_bodies_change_nothing():
    async with running_service(body_max_bytes=4096) as service:
        json_type = {"Content-Type": "application/json"}
        bad = {"status": "400 Bad Request", "message": "Badly formatted JSON request"}
        for body in (b"", b"{", b"files=1", b"\x00", b"[" * 4000, b'{"files": NaN', b"\xff" * 100):
            assert await post(service, body, **json_type) == (400, bad)
        status, error = await post(service, b"{}", **{"Content-Type": "text/plain"})
        assert status == 400
        assert error["message"] == "Expecting application/json or application/x-www-form-urlencoded"
        large = json.dumps({"files": [file(n) for n in range(100)]}).encode()
        assert (await post(service, large, **json_type))[0] == 413
        packed = gzip.compress(json.dumps({"files": [file()]}).encode())
        status, error = await post(service, packed, **json_type, **{"Content-Encoding": "gzip"})
        assert (status, error["status"]) == (415, "415 Unsupported Media Type")
        for document in ({"files": [file(sources=["nonsense"])]}, {"files": [file(checksum="ADLER32:zz")]}):
            status, error = await service.call("POST", "/jobs", document)
            assert status == 400
            assert error["message"].startswith("Invalid value within the request: ")
            assert error["field"].startswith("files[0].")
        assert await service.call("GET", "/jobs") == (200, [])


@pytest.mark.asyncio
async def test_json_is_read_whatever_curl_calls_it():
    async with running_service() as service:
        body = json.dumps({"files": [file()]}).encode()
        for kind in ("application/json; charset=utf-8", "application/x-www-form-urlencoded"):
            assert (await post(service, body, **{"Content-Type": kind}))[0] == 200


@pytest.mark.asyncio
async def test_metadata_that_no_json_can_hold():
    async with running_service() as service:
        body = json.dumps({"files": [file(metadata={"x": float("inf")})]}).encode()
        status, error = await post(service, body, **{"Content-Type": "application/json"})
        assert (status, error["field"]) == (400, "files[0].metadata")


@pytest.mark.asyncio
async def test_a_large_job_is_read_beside_the_loop():
    async with running_service() as service:
        job_id = await service.submit(*(file(n, metadata={"n": n}) for n in range(3000)))
        status, files = await service.call("GET", f"/jobs/{job_id}/files")
        assert (status, len(files)) == (200, 3000)
        status, job = await service.call("GET", f"/jobs/{job_id}?files=file_metadata")
        assert [one["file_metadata"]["n"] for one in job["files"]] == list(range(3000))


@pytest.mark.asyncio
async def test_a_store_that_cannot_answer_is_not_a_missing_job(caplog: pytest.LogCaptureFixture):
    async with running_service() as service:
        ids = [await service.submit(file(n)) for n in range(2)]
        service.engine.fails = StoreUnavailable("the disk is full")
        requests = [
            ("POST", "/jobs", {"files": [file()]}),
            ("DELETE", f"/jobs/{ids[0]}", None),
            ("DELETE", ",".join([f"/jobs/{ids[0]}", ids[1]]), None),
            ("POST", f"/jobs/{ids[0]}", {"params": {"priority": 1}}),
        ]
        for method, path, body in requests:
            async with service.http.request(method, service.url + path, json=body) as response:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) > 0
                assert (await response.json())["message"] == "the disk is full"
        service.engine.unreadable = StoreUnavailable("the disk is gone")
        for path in ("/jobs", f"/jobs/{ids[0]}", f"/jobs/{ids[0]},x", f"/jobs/{ids[0]}/files", f"/jobs/{ids[0]}/dm"):
            status, error = await service.call("GET", path)
            assert (status, error["message"]) == (503, "the disk is gone")
    assert "cannot answer" in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [IllegalTransition("FINISHED", "claim"), ZeroDivisionError("secret")])
async def test_a_defect_is_logged_and_keeps_its_story_to_itself(error: Exception, caplog: pytest.LogCaptureFixture):
    async with running_service() as service:
        service.engine.fails = error
        status, answer = await service.call("POST", "/jobs", {"files": [file()]})
        assert (status, answer["status"]) == (500, "500 Internal Server Error")
        assert str(error) not in answer["message"]
        record = next(record for record in caplog.records if record.message == "request failed")
        assert record.error_id in answer["message"]  # type: ignore[attr-defined]
        assert record.exc_info is not None
        assert (await service.call("GET", "/healthz"))[0] == 200


@pytest.mark.asyncio
async def test_web_pages_of_others_are_kept_out():
    async with running_service() as service:
        host = service.url.removeprefix("http://")
        refused = [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Origin": f"http://rebound.example:{host.split(':')[1]}", "Host": f"rebound.example:{host.split(':')[1]}"},
            # What a browser sends for a GET of a page at a name that resolves to this machine.
            {"Host": f"rebound.example:{host.split(':')[1]}"},
            {"Host": "127.0.0.1.rebound.example"},
            {"Host": "192.0.2.1:80"},
            {"Host": "[2001:db8::1]"},
        ]
        for headers in refused:
            assert (await service.call("GET", "/jobs", headers=headers))[0] == 403
        _, error = await service.call("GET", "/jobs", headers=refused[0])
        assert error["message"] == "Host and Origin do not match"
        for headers in (
            {"Origin": service.url},
            {"Sec-Fetch-Site": "same-origin"},
            {"Host": "laptop"},
            {"Host": "[::1]:8446"},
        ):
            assert (await service.call("GET", "/jobs", headers=headers))[0] == 200


@pytest.mark.asyncio
async def test_slow_bodies_end():
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=await read_body(request, within_s=0.01))

    async with standing_engine() as engine:
        boundary = Boundary(open_door().authenticator, Gate(engine, FixedClock()), no_chain)
        app = web.Application(middlewares=[boundary.middleware])
        app.router.add_post("/", handler)
        await send_half_a_body(app)


async def send_half_a_body(app: web.Application) -> None:
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        writer.write(head.encode())
        async with asyncio.timeout(10):
            assert b" 408 " in await reader.readline()
        writer.close()


@pytest.mark.asyncio
async def test_slow_heads_end_and_broken_http_is_one_line_of_log(caplog: pytest.LogCaptureFixture):
    async with standing_engine() as engine, asyncio.TaskGroup() as group:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        settings = ServiceSettings(port=0, grace_s=1)
        task = group.create_task(serve(engine, settings, open_door(), on_ready=ready.set_result, idle_s=0.05))
        port = int((await ready).rpartition(":")[2])
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: ")
            assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n")
            assert b" 400 " in await reader.readline()
            writer.close()
        task.cancel()
    record = next(record for record in caplog.records if "not HTTP" in record.message)
    assert (record.levelname, record.exc_info) == ("WARNING", None)


@pytest.mark.asyncio
async def test_an_announced_giant_is_refused_before_it_comes():
    async with running_service() as service:
        host, port = service.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        json_type = "Content-Type: application/json"
        head = ["POST /jobs HTTP/1.1", "Host: localhost", json_type, "Content-Length: 9999999999"]
        writer.write("\r\n".join([*head, "", ""]).encode())
        async with asyncio.timeout(10):
            assert b" 413 " in await reader.readline()
        writer.close()


# The document


@pytest.mark.asyncio
async def test_the_openapi_document_is_the_routes():
    async with running_service() as service:
        status, document = await service.call("GET", "/openapi.json")
        assert status == 200
        validate(document)
        described = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
        app = build_app(service.engine, ServiceSettings(), open_door())  # type: ignore[arg-type]
        served = {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None
            and not route.resource.canonical.startswith("/{slashes}")
            and route.method != "HEAD"
        }
        assert described == served
        rows = table(service.engine)
        assert len({route.name for route in rows}) == len(rows)
        schemas = document["components"]["schemas"]
        assert "file_state" in json.dumps(schemas)
        operation = document["paths"]["/jobs"]["post"]
        assert set(operation["responses"]) == {
            *("200", "400", "403", "405", "408", "409", "413", "415", "429", "500", "503")
        }


@pytest.mark.asyncio
async def test_answers_are_of_the_documented_types():
    async with running_service() as service:
        job_id = await service.submit(file(metadata="text"), file(1, scitag=66), job_metadata={"issuer": "rucio"})
        good, bad = await service.engine.claim()
        await service.engine.finish(good)
        await service.engine.fail(bad)
        _, me = await service.call("GET", "/whoami")
        known = {
            "ids": f"{job_id},nope",
            "job_id": job_id,
            "file_id": str(bad.file_id),
            "delegation_id": me["delegation_id"],
            "field": "reason",
            "kind": "storage",
            **dict.fromkeys(("symbolicname", "vo", "name", "service", "path"), "x"),
        }
        rows = table(service.engine)
        query = "?endpoint=https%3A%2F%2Fsource.example"
        queries = {"explain": query, "optimizerHistory": query}
        asked = [route for route in rows if route.method == "GET" and route.media == "application/json"]
        assert len(asked) >= 13
        for route in asked:
            path = route.path.format_map(known) + queries.get(route.name, "")
            status, answer = await service.call("GET", path)
            assert status in {200, *route.statuses}
            if status == 200 or status in route.own:
                route.answers.validate_python(answer, strict=True)
        for ids in (job_id, "nope"):
            _, answer = await service.call("GET", f"/jobs/{ids}?files=file_state")
            next(route for route in rows if route.name == "showJobs").answers.validate_python(answer, strict=True)


# Listening


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST."])
def test_loopback(host: str):
    assert is_loopback(host)
    assert check_host(ServiceSettings(host=host), AuthSettings(loopback="admin"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "localhost.example", "::ffff:192.0.2.1", "*"])
def test_anything_else_is_refused(host: str):
    with pytest.raises(Invalid, match="loopback only") as caught:
        check_host(ServiceSettings(host=host), AuthSettings(loopback="admin"))
    assert caught.value.field == "service.host"


@contextlib.asynccontextmanager
async def standing_engine() -> Any:
    clock = FixedClock()
    store = SqliteStore("sqlite://", incarnation="test", now=clock.now, inline=True)
    await store.open()
    try:
        yield StandingEngine(store, clock)
    finally:
        await store.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_serve_until_cancelled(host: str):
    async with standing_engine() as engine, asyncio.TaskGroup() as group:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        settings = ServiceSettings(host=host, port=0, grace_s=1)
        task = group.create_task(serve(engine, settings, open_door(), on_ready=ready.set_result))
        url = await ready
        async with ClientSession() as http, http.get(f"{url}//whoami") as response:
            assert response.status == 200
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


@pytest.mark.asyncio
async def test_a_port_that_is_taken():
    async with standing_engine() as engine:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings = ServiceSettings(port=taken.getsockname()[1])
            with pytest.raises(Invalid, match="in use") as caught:
                await serve(engine, settings, open_door(), on_ready=str)
        assert caught.value.field == "service.port"
        with pytest.raises(Invalid, match="loopback only"):
            await serve(engine, ServiceSettings(host="0.0.0.0"), open_door(), on_ready=str)


def test_a_service_that_nobody_may_use_does_not_start():
    with pytest.raises(Invalid, match="--no-auth") as caught:
        check_host(ServiceSettings(), AuthSettings())
    nobody = AuthSettings.model_validate({"issuers": [{"issuer": "https://iam.example", "storage_only": True}]})
    with pytest.raises(Invalid, match="nobody is known"):
        check_host(ServiceSettings(), nobody)
    assert caught.value.field == "auth"


def test_tokens_do_not_cross_the_network_in_clear(tmp_path: Path):
    token = LocalToken(name="script", sha256="0" * 64)
    auth = AuthSettings(tokens=(token,))
    with pytest.raises(Invalid, match="in clear") as caught:
        check_host(ServiceSettings(host="0.0.0.0"), auth)
    assert caught.value.field == "service.tls.certificate"
    assert check_host(ServiceSettings(host="127.0.0.1"), auth) == "127.0.0.1"
    tls = ServiceTls(certificate=tmp_path / "host.pem")
    assert check_host(ServiceSettings(host="0.0.0.0", tls=tls), auth) == "0.0.0.0"
    behind = ReverseProxy(peers=("192.0.2.7/32",))
    assert check_host(ServiceSettings(host="192.0.2.1", reverse_proxy=behind), auth) == "192.0.2.1"
