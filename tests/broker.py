"""A private RabbitMQ that speaks STOMP, on free ports in a directory of its own, and a receiver as Rucio has one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stomp

from tests.storages.authority import Authority
from tests.storages.process import POLL_S, SEARCH_PATH, Account, CannotRun, Server, ServerFailed, free_port

PACKAGES = "rabbitmq-server"
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER, PASSWORD = "fts", "canary-broker-password"
READY_S = 60.0

_CONFIG = """\
listeners.tcp = none
stomp.listeners.tcp.1 = 127.0.0.1:{port}
stomp.listeners.ssl.1 = 127.0.0.1:{port_tls}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
default_user = {user}
default_pass = {password}
default_vhost = /
log.file = broker.log
"""


def check() -> None:
    """Raises CannotRun when it is not installed."""
    if not PROGRAM.exists():
        raise CannotRun("the program rabbitmq-server is missing", PACKAGES)


@dataclass
class RealBroker:
    """One broker; `start` after `stop` or `kill` goes on with what it had stored."""

    directory: Path
    authority: Authority
    port: int = 0
    port_tls: int = 0
    _taken: set[int] = field(default_factory=set)
    _server: Server | None = None
    _port_epmd: int = 0

    def start(self) -> None:
        """Start it and wait until it lets somebody log in. Raises: CannotRun, ServerFailed."""
        check()
        if not self.port:
            self._prepare()
        account = Account()
        server = Server(
            "rabbitmq", [str(PROGRAM), "-noinput"], self.directory, self.directory / "out", account, self._environ()
        )
        server.start()
        self._server = server
        end = time.monotonic() + READY_S
        while not _answers(self.port):
            if server.pid is None or time.monotonic() > end:
                tail = server.tail()
                self.stop()
                raise ServerFailed(f"the broker did not start\n{tail}")
            time.sleep(POLL_S)

    def _prepare(self) -> None:
        self.port, self.port_tls, self._port_epmd = (free_port(self._taken) for _ in range(3))
        for name in ("home", "data", "log"):
            (self.directory / name).mkdir(parents=True)
        certificate, key = self.authority.write_server(self.directory)
        config = _CONFIG.format(
            port=self.port,
            port_tls=self.port_tls,
            ca=self.authority.ca_file,
            certificate=certificate,
            key=key,
            user=USER,
            password=PASSWORD,
        )
        (self.directory / "rabbitmq.conf").write_text(config)
        (self.directory / "plugins").write_text("[rabbitmq_stomp].")

    def _environ(self) -> dict[str, str]:
        here = self.directory
        return {
            "HOME": str(here / "home"),
            "RABBITMQ_CONF_ENV_FILE": str(here / "none"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_NODENAME": f"te{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port(self._taken)),
            "ERL_EPMD_PORT": str(self._port_epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The shell becomes the broker, so that its process id is the broker's.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }

    def kill(self) -> None:
        """End it as a crash does."""
        pid = self._server.pid if self._server else None
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it, and the name server that it started."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._port_epmd:
            environ = {
                "PATH": SEARCH_PATH,
                "ERL_EPMD_PORT": str(self._port_epmd),
                "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",
            }
            with contextlib.suppress(OSError):
                subprocess.run(
                    ["epmd", "-port", str(self._port_epmd), "-kill"], env=environ, capture_output=True, check=False
                )


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            login = f"CONNECT\naccept-version:1.2\nhost:/\nlogin:{USER}\npasscode:{PASSWORD}\n\n\0"
            connection.sendall(login.encode())
            return connection.recv(9) == b"CONNECTED"
    except OSError:
        return False


class Receiver(stomp.ConnectionListener):  # type: ignore[misc]
    """Collects messages as Rucio's receiver does: STOMP 1.2, `ack` auto; its subscriptions outlive the broker."""

    def __init__(self, broker: RealBroker, topics: list[str]) -> None:
        self._broker = broker
        self._topics = topics
        self._changed = threading.Condition()
        self.messages: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        """(topic, headers, document) in the order received."""
        self._connection: Any = None

    def connect(self) -> None:
        """Log in and subscribe."""
        self._connection = stomp.Connection12([("127.0.0.1", self._broker.port)], vhost="/", reconnect_attempts_max=1)
        self._connection.set_listener("receiver", self)
        self._connection.connect(USER, PASSWORD, wait=True)
        for number, topic in enumerate(self._topics):
            headers = {"durable": "true", "auto-delete": "false"}
            self._connection.subscribe(
                topic, id=f"receiver-{number}", ack="auto", headers=headers, receipt=f"s{number}"
            )

    def on_message(self, frame: Any) -> None:
        assert frame.body.endswith("} "), "FTS3 ends a message with a blank"
        with self._changed:
            self.messages.append((frame.headers["destination"], dict(frame.headers), json.loads(frame.body)))
            self._changed.notify_all()

    def of(self, topic: str) -> list[dict[str, Any]]:
        """The documents of one topic."""
        with self._changed:
            return [document for where, _, document in self.messages if where == topic]

    def wait(self, enough: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Return when there is enough; fails when it does not come."""
        with self._changed:
            if not self._changed.wait_for(enough, timeout_s):
                counts = Counter(where for where, _, _ in self.messages)
                raise AssertionError(f"only {dict(counts)} came")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.disconnect()
