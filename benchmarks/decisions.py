"""How many decisions a second the scheduler makes, on one core, with 10,000 links and up to 4 M queued transfers.

    python benchmarks/decisions.py [--seconds 2] [--json OUT]

Pure: no store, no network. 100 sources and 100 destinations, four VOs and three activities on them, three
priorities; every link has work of one VO and activity, or, where there are fewer transfers than links, the first
ones have. The steady state: one transfer ends, its slots are given back, and the scheduler decides what
takes them, as `Board.release` and `Board.decide` do. What starts is queued again as new work, so that the
backlog stays what it is. Each figure is for one thing that binds: the destinations' inbound limits, the
sources' outbound limits, the links', the node's, or source and destination at once.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from transfer_engine.config import Limits, Shares
from transfer_engine.limits import LimitTable
from transfer_engine.model import Queue, QueueId
from transfer_engine.schedule import Scheduler
from transfer_engine.shares import ShareTable

N_ENDS: Final = 100
VOS: Final = ("atlas", "cms", "lhcb", "dune")
ACTIVITIES: Final = ("production", "user", "default")
QUEUED: Final = (1_000, 10_000, 100_000, 1_000_000, 4_000_000)
WIDE: Final = 100_000
BINDING: Final[Mapping[str, Limits]] = {
    "destination": Limits(endpoint_inbound=20, endpoint_outbound=WIDE, link=WIDE, node=WIDE),
    "source": Limits(endpoint_inbound=WIDE, endpoint_outbound=20, link=WIDE, node=WIDE),
    "both": Limits(endpoint_inbound=20, endpoint_outbound=20, link=WIDE, node=WIDE),
    "link": Limits(endpoint_inbound=WIDE, endpoint_outbound=WIDE, link=1, node=WIDE),
    "node": Limits(endpoint_inbound=WIDE, endpoint_outbound=WIDE, link=WIDE, node=1000),
}
SHARES: Final = Shares(
    vos={"atlas": 40.0, "cms": 40.0, "lhcb": 15.0}, activities={"atlas": {"production": 3.0, "default": 1.0}}
)


class Steady:
    """A scheduler with a backlog that never shrinks."""

    def __init__(self, n_queued: int, limits: Limits) -> None:
        self.rng = random.Random(0)
        self.scheduler = Scheduler(LimitTable.of(limits), ShareTable.of(SHARES))
        self.now = 0.0
        self.n_started = 0
        queues = [
            (Queue(QueueId(n), f"https://s{s}", f"https://d{d}", self.rng.choice(VOS), self.rng.choice(ACTIVITIES)), p)
            for n, (s, d) in enumerate((s, d) for s in range(N_ENDS) for d in range(N_ENDS))
            for p in [self.rng.choice((1, 3, 5))]
        ]
        self.rng.shuffle(queues)
        queues = queues[:n_queued]
        for queue, priority in queues:
            self.scheduler.ready(queue, priority, max(n_queued // len(queues), 1), 0, self.now)
        self.running: list[tuple[Queue, int, float]] = []
        self.decide()

    def decide(self) -> None:
        """Until nothing more starts; whatever starts is replaced in the backlog."""
        while starts := self.scheduler.decide(self.now):
            for start in starts:
                lane = start.lane
                self.n_started += start.n
                self.running += [(lane.queue, lane.priority, self.now)] * start.n
                self.scheduler.ready(lane.queue, lane.priority, start.n, 0, self.now)

    def end_one(self) -> None:
        """A transfer ends."""
        running = self.running
        n = self.rng.randrange(len(running))
        running[n], running[-1] = running[-1], running[n]
        queue, priority, since = running.pop()
        self.now += 0.001
        self.scheduler.learn(queue, max(self.now - since, 1e-6), 0.0)
        self.scheduler.release(queue, priority, self.now)


def _measure(n_queued: int, limits: Limits, seconds: float) -> dict[str, float]:
    steady = Steady(n_queued, limits)
    turns = 2_000
    for _ in range(turns):
        steady.end_one()
        steady.decide()
    rounds: list[float] = []
    spent, n_before = 0.0, steady.n_started
    gc.collect()
    gc.freeze()
    while spent < seconds:
        began, n_started = time.process_time(), steady.n_started
        for _ in range(turns):
            steady.end_one()
            steady.decide()
        took = time.process_time() - began
        spent += took
        rounds.append(1e6 * took / max(steady.n_started - n_started, 1))
    gc.unfreeze()
    n = steady.n_started - n_before
    rounds.sort()
    return {"per_s": n / spent, "us": rounds[len(rounds) // 2], "n": n, "n_active": len(steady.running)}


def decisions(
    n_queued: int = 1_000_000, *, seconds: float = 1.0, binding: Mapping[str, Limits] = BINDING
) -> dict[str, Any]:
    """Started transfers per CPU second in the steady state, release and bookkeeping included.

    Returns: {"n_queued", "n_links", "per_s", "us"} of the slowest case, and "cases": {what binds:
        {"per_s", "us", "n", "n_active"}}.
    """
    cases = {name: _measure(n_queued, limits, seconds) for name, limits in binding.items()}
    slowest = min(cases.values(), key=lambda case: case["per_s"])
    return {
        "n_queued": n_queued,
        "n_links": min(n_queued, N_ENDS * N_ENDS),
        "per_s": slowest["per_s"],
        "us": slowest["us"],
        "cases": cases,
    }


def main() -> None:
    """Print a table, and how much dearer a decision is with 4 M queued than with 1 k and 10 k."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of each figure")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    rows = {n: decisions(n, seconds=args.seconds) for n in QUEUED}
    print("CPU microseconds per decision (decisions per second), by what binds")
    print(f"{'queued':>10}" + "".join(f"{name:>20}" for name in BINDING))
    for n, row in rows.items():
        cells = "".join(f"{case['us']:>9.1f} ({case['per_s']:>8,.0f})" for case in row["cases"].values())
        print(f"{n:>10,}{cells}")
    for few in QUEUED[:2]:
        ratios = (rows[QUEUED[-1]]["cases"][name]["us"] / rows[few]["cases"][name]["us"] for name in BINDING)
        print(f"4 M / {few:>6,}" + "".join(f"{ratio:>20.2f}" for ratio in ratios))
    if args.json is not None:
        args.json.write_text(json.dumps({str(n): row for n, row in rows.items()}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
