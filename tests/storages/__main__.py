"""Say which storages can run on this machine: `python -m tests.storages [--packages]`."""

from __future__ import annotations

import sys

from tests import broker, programs
from tests.storages.kinds import KINDS
from tests.storages.process import Account, CannotRun, find_program


def main(arguments: list[str]) -> int:
    """Print a line per kind, or with `--packages` the Debian packages that are missing, on one line."""
    packages: dict[str, None] = {}
    for name, kind in KINDS.items():
        reason = "ok"
        try:
            Account.choose().prefix()
            kind.check()
        except CannotRun as error:
            reason = str(error)
            packages.update(dict.fromkeys(kind.packages.split()))
        if not arguments:
            print(f"{name:14} {reason}")
    try:
        broker.check()
    except CannotRun as error:
        packages[broker.PACKAGES] = None
        reason = str(error)
    else:
        reason = "ok"
    if not arguments:
        print(f"{'broker':14} {reason}")
    for name, package in programs.PACKAGES.items():
        try:
            find_program(name, package)
        except CannotRun as error:
            packages[package] = None
            if not arguments:
                print(f"{name:14} {error}")
    if arguments == ["--packages"]:
        print(" ".join(packages))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
