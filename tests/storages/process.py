"""Start server programs as an unprivileged user, see that they answer, end them by their own pid."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIBRARIES = ("lib/*", "lib64", "lib", "local/lib*")
"""Below /usr."""

PORTS = range(20_000, 32_000)
"""Below the kernel's ephemeral ports, so that no outgoing connection takes one before its server does."""

READY_S = 30.0
STOP_S = 5.0
POLL_S = 0.05


class CannotRun(Exception):
    """Something is not installed; the message names the Debian packages that bring it."""

    def __init__(self, what: str, packages: str = "") -> None:
        super().__init__(f"{what}: apt-get install {packages}" if packages else what)


class ServerFailed(Exception):
    """A server ended or did not answer; the message holds the end of its log."""


def find_program(name: str, packages: str) -> str:
    """The program's path; CannotRun names the Debian packages that bring it."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise CannotRun(f"the program {name} is missing", packages)
    return found


def find_library(pattern: str, packages: str) -> str:
    """A plug-in's path by shell pattern in the library directories; CannotRun as above."""
    for folder in LIBRARIES:
        for found in Path("/usr").glob(f"{folder}/{pattern}"):
            return str(found)
    raise CannotRun(f"the plug-in {pattern} is missing", packages)


@dataclass(frozen=True, slots=True)
class Account:
    """As whom the servers run; `uid` None: as the caller."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def choose(cls) -> Account:
        """The caller, but never root: XRootD refuses it and the others would hide permission errors."""
        if os.geteuid() != 0:
            return cls()
        for name in ("xrootd", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid)
        raise CannotRun("tests run by root need a user `xrootd` or `nobody` for the servers")

    def own(self, path: Path) -> None:
        """Give `path` and everything below it to the servers."""
        if self.uid is None or self.gid is None:
            return
        os.lchown(path, self.uid, self.gid)
        if path.is_dir() and not path.is_symlink():
            for child in path.iterdir():
                self.own(child)

    def prefix(self) -> list[str]:
        """The command that becomes this account; the kernel kills what it starts when the tests die."""
        command = [find_program("setpriv", "util-linux"), "--pdeathsig", "KILL"]
        if self.uid is not None:
            command += ["--reuid", str(self.uid), "--regid", str(self.gid), "--clear-groups"]
        return command


def free_port(taken: set[int]) -> int:
    """A port that nobody listens on and that is not in `taken`, to which it is added."""
    for _ in range(200):
        port = random.choice(PORTS)
        if port in taken:
            continue
        try:
            with socket.create_server(("", port)):
                taken.add(port)
                return port
        except OSError:
            continue
    msg = "no free port found"
    raise ServerFailed(msg)


def short_directory(wanted: Path, longest: int) -> tuple[Path, Path | None]:
    """`wanted`, or a new directory with a shorter name; (it, what to remove in the end).

    Unix sockets have at most 107 bytes in their name, and servers put theirs deep into it.
    """
    if len(str(wanted)) <= longest:
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted, None
    made = Path(tempfile.mkdtemp(prefix="te", dir="/tmp"))
    made.chmod(0o755)
    return made, made


@dataclass(slots=True)
class Server:
    """One running program."""

    name: str
    command: list[str]
    directory: Path
    log: Path
    account: Account
    environ: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process else None

    def start(self) -> None:
        """Start it with a minimal environment: a proxy setting would send its own transfers away.

        It is killed when the calling thread ends, which is what the kernel takes for the parent.
        """
        home = str(self.directory)
        environ = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "HOME": home, "TMPDIR": home, **self.environ}
        with self.log.open("ab") as log:
            self.account.own(self.log)
            self._process = subprocess.Popen(
                [*self.account.prefix(), *self.command],
                cwd=self.directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, port: int, *, tls: bool) -> None:
        """Return when it answers HTTP at `port`; ServerFailed when it ends or stays silent."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                raise ServerFailed(f"{self.name} ended\n{self.tail()}")
            if answers(port, tls=tls):
                return
            time.sleep(POLL_S)
        raise ServerFailed(f"{self.name} does not answer at port {port}\n{self.tail()}")

    def stop(self) -> None:
        """End it: politely first, then surely."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def tail(self, n_lines: int = 20) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-n_lines:])


def answers(port: int, *, tls: bool) -> bool:
    """Whether something at `port` answers an HTTP request."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            if not tls:
                return _asks(plain)
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with context.wrap_socket(plain) as wrapped:
                return _asks(wrapped)
    except OSError:
        return False


def _asks(connection: socket.socket) -> bool:
    connection.sendall(b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return connection.recv(5) == b"HTTP/"
