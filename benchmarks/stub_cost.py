"""What the stub costs per request: `python benchmarks/stub_cost.py [--connections N] [--rounds N]`.

Plain sockets in threads of this process send HEAD, HEAD, COPY, HEAD over kept connections, one request
at a time each, with the headers that an HTTP client sends; the CPU time is the stub's own.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from stub import file_name

HEADERS = (
    "Host: 127.0.0.1\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: raw/1\r\n"
    "Authorization: Bearer {token}\r\n"
)


def drive(address: tuple[str, int], numbers: range, token: str) -> None:
    """One transfer after the other over one connection."""
    head = HEADERS.format(token=token)
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in numbers:
            name = file_name(number)
            source = f"Source: http://127.0.0.2:1/src/{name}\r\n"
            copy = f"{source}Overwrite: F\r\nTransferHeaderAuthorization: Bearer {token}\r\n"
            for method, path, more, end in (
                ("HEAD", f"/src/{name}", "Want-Digest: adler32\r\n", b"\r\n\r\n"),
                ("HEAD", f"/dst/{name}", "", b"\r\n\r\n"),
                ("COPY", f"/dst/{name}", copy, b"0\r\n\r\n"),
                ("HEAD", f"/dst/{name}", "Want-Digest: adler32\r\n", b"\r\n\r\n"),
            ):
                connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}{more}\r\n".encode())
                answer = b""
                while not answer.endswith(end):
                    got = connection.recv(65536)
                    if not got:
                        raise ConnectionError(path)
                    answer += got


def usage(port: int) -> dict[str, float]:
    """The stub's own figures."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/.usage") as response:
        figures: dict[str, float] = json.load(response)
    return figures


def main() -> None:
    """Start a stub, drive it, print one line of JSON."""
    parser = argparse.ArgumentParser(description="CPU time of the stub per request.")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2500, help="transfers per connection, four requests each")
    options = parser.parse_args()
    command = [sys.executable, str(Path(__file__).with_name("stub.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stub:
        assert stub.stdout is not None
        port = json.loads(stub.stdout.readline())["port"]
        before, began = usage(port), time.monotonic()
        threads = [
            threading.Thread(
                target=drive,
                args=((f"127.0.0.{n % 13 + 1}", port), range(n * options.rounds, (n + 1) * options.rounds), "T" * 600),
            )
            for n in range(options.connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after, took_s = usage(port), time.monotonic() - began
        stub.terminate()
    n_requests = after["n_requests"] - before["n_requests"]
    cpu_us = (after["cpu_s"] - before["cpu_s"]) / n_requests * 1e6
    print(json.dumps({"requests": n_requests, "cpu_us": round(cpu_us, 1), "requests_s": round(n_requests / took_s)}))


if __name__ == "__main__":
    main()
