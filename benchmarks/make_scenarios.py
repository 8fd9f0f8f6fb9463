"""Write benchmarks/scenarios/: the rehearsal and its variants, larger streams, and adversarial ones.

    python -m benchmarks.make_scenarios [DIRECTORY]

Which numbers of the rehearsal are the talk's and which are constructed is said in fdr.py and in the files'
own `provenance`. All numbers of the adversarial scenarios are constructed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import random_scenarios, sharing_scenarios, storage_scenarios
from benchmarks.fdr import EVERY, fdr
from benchmarks.scenario_parts import GB, HOUR, at_once, rate, scenario, storage, work

SITES = [f"site{n:02}" for n in range(1, 14)]


def dead_destination(*, dead: bool = True) -> dict[str, Any]:
    """One of 13 storages answers nothing; what happens to the others?"""
    endpoints = {name: storage(GB // 10) for name in SITES}
    if dead:
        endpoints[SITES[0]]["faults"] = [{"kind": "dead", "from_s": 300}]
    return scenario(
        "one of 13 storages is dead",
        "from minute 5 on; the others must not notice",
        duration_s=1200,  # work is left for everybody: what was moved until then can be compared
        endpoints=endpoints,
        limits={"endpoint_inbound": 20, "endpoint_outbound": 20, "link": 10},
        streams=[work("all", rate(4000, 0, 0.05, 100), GB // 2, SITES, SITES)],
    )


def elephants_mice() -> dict[str, Any]:
    """Large files of one community and small ones of another, to the same place."""
    return scenario(
        "elephants and mice",
        "50 GB files and 5 MB files compete for two storages",
        endpoints={"a": storage(4 * GB), "b": storage(GB), "c": storage(GB)},
        limits={"endpoint_inbound": 20, "endpoint_outbound": 40},
        streams=[
            work("elephants", at_once(120), 50 * GB, ["a"], ["b", "c"]),
            work("mice", rate(6000, 0, 1, 50), GB // 200, ["a"], ["b", "c"]),
        ],
    )


def greedy_vo() -> dict[str, Any]:
    """One VO queues everything at once, the other comes later and wants a little."""
    return scenario(
        "a greedy VO",
        "greedy fills the queue at the beginning; modest has the same share, and work of its own from minute 10 on",
        endpoints={"a": storage(2 * GB), "b": storage(2 * GB), "c": storage(GB)},
        limits={"endpoint_inbound": 40},
        shares={
            "vos": {"greedy": 1, "modest": 1},
            "activities": {"greedy": {"Production": 3, "Analysis": 1}},
        },
        streams=[
            work("greedy-production", at_once(3000), GB, ["a", "b"], ["c"], vo="greedy", activity="Production"),
            work("greedy-analysis", at_once(1000), GB, ["a", "b"], ["c"], vo="greedy", activity="Analysis"),
            work("modest", at_once(800, 600), GB, ["a", "b"], ["c"]),
        ],
    )


def flapping_link() -> dict[str, Any]:
    """A link goes down for a minute in every five."""
    return scenario(
        "a flapping link",
        "a to c is dead for one minute in five",
        endpoints={name: storage(GB) for name in "abc"},
        links=[
            {
                "source": "a",
                "destination": "c",
                "faults": [{"kind": "dead", "from_s": 120, "to_s": 2 * HOUR, "every_s": 300, "for_s": 60}],
            }
        ],
        limits={"endpoint_inbound": 20, "endpoint_outbound": 20},
        retry={"retries_max": 20},
        streams=[
            work("flapping", at_once(1500), GB, ["a"], ["c"], vo="vo"),
            work("steady", at_once(1500), GB, ["b"], ["c"], vo="vo"),
        ],
    )


def single_disk() -> dict[str, Any]:
    """A storage with two heads among others that have no such bound."""
    endpoints = {name: storage(GB) for name in "abc"} | {"disk": storage(GB // 10, heads=2, thrash=1.0)}
    return scenario(
        "a storage on a single disk",
        "goodput peaks at two copies and halves at four; limits do not know",
        endpoints=endpoints,
        limits={"endpoint_inbound": 30, "endpoint_outbound": 60},
        streams=[
            work("to-disk", at_once(400), GB // 4, ["a", "b"], ["disk"], vo="vo"),
            work("others", at_once(3000), GB, ["a", "b"], ["c"], vo="vo"),
        ],
    )


def shared_pipe() -> dict[str, Any]:
    """Two communities move data through one pipe, which others use as well."""
    return scenario(
        "two communities on one pipe",
        "two storages of a site share its network, and outside traffic takes two thirds of it for a while",
        endpoints={
            "far1": storage(2 * GB),
            "far2": storage(2 * GB),
            "near1": storage(GB, pipes=["site"]),
            "near2": storage(GB, pipes=["site"]),
        },
        pipes={"site": {"bytes_s": GB // 2, "outside": [{"from_s": 1200, "to_s": 2400, "bytes_s": GB // 3}]}},
        limits={"endpoint_inbound": 40, "endpoint_outbound": 60},
        streams=[
            work("one", at_once(1500), GB, ["far1"], ["near1"]),
            work("two", at_once(1500), GB, ["far2"], ["near2"]),
        ],
    )


def healthy() -> dict[str, Any]:
    """Nothing goes wrong and everybody has work."""
    return scenario(
        "healthy",
        "four storages, two VOs with shares 2:1, everything there from the beginning",
        endpoints={"a": storage(2 * GB), "b": storage(2 * GB), "c": storage(GB), "d": storage(GB)},
        limits={"endpoint_inbound": 40, "endpoint_outbound": 80},
        shares={"vos": {"large": 2, "small": 1}},
        streams=[
            work("large", at_once(1200), GB, ["a", "b"], ["c", "d"]),
            work("small", at_once(1200), GB, ["a", "b"], ["c", "d"]),
        ],
    )


def lhc_day() -> dict[str, Any]:
    """33 files of 1.5 GB a second for a day."""
    sites = [f"t{n:02}" for n in range(1, 31)]
    return scenario(
        "an LHC day",
        "33 files/s of 1.5 GB on average between 30 sites for 24 hours",
        endpoints={name: storage(6 * GB, stream_bytes_s=100_000_000) for name in sites},
        limits={"endpoint_inbound": 100, "endpoint_outbound": 100, "node": 3000},
        streams=[
            work(
                vo,
                rate(33 * 24 * HOUR // 2, 0, 24, 100, "poisson"),
                0,
                sites,
                sites,
                size={"kind": "lognormal", "mean_bytes": 1.5 * GB, "sigma": 1.0},
            )
            for vo in ("atlas", "cms")
        ],
    )


def whole_stock() -> dict[str, Any]:
    """The lake's whole stock queued at once; files and mean sizes by experiment are the talk's."""
    stock = {
        "lofar": (25_200, 1_666_000_000),
        "fair": (192, 1_036_000_000),
        "cms": (398, 1_026_000_000),
        "magic": (824, 573_000_000),
        "atlas": (6952, 235_000_000),
        "lsst": (350_000, 18_500_000),
        "cta": (563_000, 9_273_000),
        "ska": (2_703_000, 3_259_000),
        "virgo": (15_600, 86_400),
    }
    base = fdr()
    return {
        **base,
        "name": "the whole stock at once",
        "description": "3.67 million files, one copy of each between any two storages",
        "streams": [work(vo, at_once(files), size, EVERY, EVERY) for vo, (files, size) in stock.items()],
        "links": [],
    }


SCENARIOS = {
    "fdr": fdr,
    "fdr-small": lambda: fdr(factor=0.01),
    "fdr-10": lambda: fdr(factor=10),
    "fdr-100": lambda: fdr(factor=100),
    "lhc-day": lhc_day,
    "whole-stock": whole_stock,
    "healthy": healthy,
    "dead-destination": dead_destination,
    "dead-destination-alive": lambda: dead_destination(dead=False),
    "elephants-mice": elephants_mice,
    "greedy-vo": greedy_vo,
    "flapping-link": flapping_link,
    "single-disk": single_disk,
    "shared-pipe": shared_pipe,
    **storage_scenarios.SCENARIOS,
    **sharing_scenarios.SCENARIOS,
    **random_scenarios.SCENARIOS,
}


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, make in SCENARIOS.items():
        text = json.dumps(make(), indent=1, ensure_ascii=False)
        (directory / f"{name}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "scenarios")
