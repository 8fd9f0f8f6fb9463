"""Real storage servers on loopback for the tests: XRootD with HTTP-TPC, nginx, Apache and rclone.

    with Storages(directory, kinds={"xrootd", "nginx"}) as storages:
        storages["xrootd-a"].put("file.bin", data)

What is not named in `kinds` starts when it is first asked for. `faults.FaultProxy` stands in front
of any of them and breaks things on purpose.
"""

from tests.storages.kinds import KINDS, Kind
from tests.storages.lab import Storages
from tests.storages.process import CannotRun
from tests.storages.storage import Storage

__all__ = ["KINDS", "CannotRun", "Kind", "Storage", "Storages"]
