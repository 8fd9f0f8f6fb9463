"""Scenarios drawn from a seed, as an operator might write them. All numbers are drawn.

    python -m benchmarks.random_scenarios SEED [--faults]

prints one. What is drawn: the number of storages, their bandwidths, latencies and overheads, bounds of
single copies, pipes, limits of everything, VOs with shares and activities, streams with every kind of
arrivals and sizes; with faults also errors, dead and slow spells, busy and flapping ones.
"""

from __future__ import annotations

import argparse
import json
import random
from typing import Any

from benchmarks.scenario_parts import GB, MB, scenario

SPAN_S = 3600
"""Work for about so long is drawn."""
ACTIVITIES = ("Production", "Analysis", "Rebalancing", "default")


def random_scenario(seed: int, *, faults: bool = False) -> dict[str, Any]:
    """One of them; equal seeds give equal scenarios."""
    rng = random.Random(seed)
    n = rng.choice((3, 4, 5, 6, 8, 10, 13, 20, 30))
    names = [f"se{number:02}" for number in range(1, n + 1)]
    endpoints = {name: _endpoint(rng) for name in names}
    vos = [f"vo{number}" for number in range(1, rng.randint(1, 5) + 1)]
    row = scenario(
        f"random {seed}" + (" with faults" if faults else ""),
        f"{n} storages, {len(vos)} VOs, drawn from seed {seed}",
        endpoints=endpoints,
        limits=_limits(rng, names),
        shares=_shares(rng, vos),
        streams=[_stream(rng, index, names, endpoints, vos) for index in range(rng.randint(2, 3 + len(vos) * 2))],
    )
    _pipes(rng, row, names)
    _links(rng, row, names)
    if faults:
        _faults(rng, row, names)
    return row


def _endpoint(rng: random.Random) -> dict[str, Any]:
    speed = rng.choice((100, 125, 250, 500, 1000, 1250, 2500)) * MB
    row: dict[str, Any] = {
        "in_bytes_s": speed,
        "out_bytes_s": speed * rng.choice((1, 1, 1, 2)),
        "latency_s": rng.choice((0.005, 0.02, 0.05, 0.1)),
        "overhead_s": rng.choice((0, 0.1, 0.3, 1.0)),
    }
    if rng.random() < 0.3:
        row["stream_bytes_s"] = rng.choice((20, 50, 100)) * MB
    return row


def _limits(rng: random.Random, names: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "endpoint_inbound": rng.choice((20, 30, 60, 100)),
        "endpoint_outbound": rng.choice((30, 60, 100, 200)),
    }
    if rng.random() < 0.5:
        row["link"] = rng.choice((10, 20, 40, 60))
    few = rng.sample(names, len(names) // 4)
    if few:
        row["endpoints"] = {name: {rng.choice(("inbound", "outbound")): rng.choice((5, 10, 15, 40))} for name in few}
    if rng.random() < 0.3:
        source, destination = rng.sample(names, 2)
        row["links"] = [{"source": source, "destination": destination, "active": rng.choice((2, 5, 30))}]
    return row


def _shares(rng: random.Random, vos: list[str]) -> dict[str, Any]:
    if rng.random() < 0.3:
        return {}
    row: dict[str, Any] = {"vos": {vo: rng.choice((1, 1, 2, 3, 5, 10)) for vo in vos}}
    if rng.random() < 0.6:
        row["activities"] = {vo: {name: rng.choice((1, 2, 4, 8)) for name in ACTIVITIES} for vo in vos[:2]}
    return row


def _stream(
    rng: random.Random, index: int, names: list[str], endpoints: dict[str, Any], vos: list[str]
) -> dict[str, Any]:
    sources = rng.sample(names, rng.randint(1, max(1, len(names) // 3)))
    others = [name for name in names if name not in sources]
    destinations = rng.sample(others, rng.randint(1, max(1, len(others) // 2)))
    mean = int(10 ** rng.uniform(7, 9.7))
    capacity = sum(endpoints[name]["in_bytes_s"] for name in destinations)
    capacity = min(capacity, sum(endpoints[name]["out_bytes_s"] for name in sources))
    n_files = int(capacity * SPAN_S * rng.uniform(0.1, 0.5) / mean)
    return {
        "name": f"stream{index}",
        "vo": rng.choice(vos),
        "activity": rng.choice(ACTIVITIES),
        "priority": rng.choice((1, 3, 3, 3, 5)),
        "arrivals": _arrivals(rng, min(max(n_files, 20), 3000)),
        "size": _size(rng, mean),
        "route": {"sources": sources, "destinations": destinations},
    }


def _arrivals(rng: random.Random, n_files: int) -> dict[str, Any]:
    kind = rng.choice(("at-once", "at-once", "even", "poisson", "bursts"))
    if kind == "at-once":
        return {"kind": "at-once", "files": n_files, "at_s": rng.choice((0, 0, 300, 1200))}
    if kind == "bursts":
        count = rng.randint(2, 6)
        return {"kind": "bursts", "files": max(n_files // count, 1), "every_s": SPAN_S // count, "count": count}
    batch = rng.choice((1, 10, 50))
    return {"kind": "rate", "files": n_files, "from_s": 0, "to_s": SPAN_S, "batch": batch, "spread": kind}


def _size(rng: random.Random, mean: int) -> dict[str, Any]:
    kind = rng.choice(("fixed", "lognormal", "lognormal", "choice"))
    if kind == "fixed":
        return {"kind": "fixed", "bytes": mean}
    if kind == "choice":
        return {"kind": "choice", "of": [{"bytes": mean // 10, "weight": 5}, {"bytes": mean * 2, "weight": 3}]}
    return {"kind": "lognormal", "mean_bytes": mean, "sigma": rng.choice((0.5, 1.0, 1.5)), "max_bytes": 50 * GB}


def _pipes(rng: random.Random, row: dict[str, Any], names: list[str]) -> None:
    if rng.random() < 0.3:
        for name in rng.sample(names, 2):
            row["endpoints"][name]["pipes"] = ["wan"]
        row["pipes"] = {"wan": {"bytes_s": rng.choice((250, 500, 1000)) * MB}}
        if rng.random() < 0.5:
            row["pipes"]["wan"]["outside"] = [{"from_s": 600, "to_s": 1800, "bytes_s": 100 * MB}]


def _links(rng: random.Random, row: dict[str, Any], names: list[str]) -> None:
    if rng.random() < 0.4:
        source, destination = rng.sample(names, 2)
        row["links"] = [{"source": source, "destination": destination, "bytes_s": rng.choice((50, 200)) * MB}]


def _faults(rng: random.Random, row: dict[str, Any], names: list[str]) -> None:
    row["retry"] = {"retries_max": 12}
    choices: list[dict[str, Any]] = [
        {"kind": "dead", "from_s": 600, "to_s": 1200},
        {"kind": "refuses", "from_s": 600, "to_s": 1200},
        {"kind": "stall", "from_s": 600, "to_s": 900},
        {"kind": "slow", "from_s": 600, "to_s": 1800, "factor": 0.3},
        {"kind": "errors", "chance": 0.05, "error": "copy-failed"},
        {"kind": "errors", "chance": 0.02, "error": "lost"},
        {"kind": "errors", "chance": 0.02, "error": "checksum"},
        {"kind": "busy", "above": 12, "retry_after_s": 20},
        {"kind": "dead", "from_s": 300, "to_s": 3000, "every_s": 600, "for_s": 60},
    ]
    for name in rng.sample(names, max(1, len(names) // 4)):
        row["endpoints"][name]["faults"] = [rng.choice(choices)]


HEALTHY = range(1, 9)
FAULTY = range(101, 107)
SCENARIOS = {f"random-{seed}": lambda seed=seed: random_scenario(seed) for seed in HEALTHY} | {
    f"random-{seed}": lambda seed=seed: random_scenario(seed, faults=True) for seed in FAULTY
}


def main() -> None:
    """Print one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args()
    print(json.dumps(random_scenario(options.seed, faults=options.faults), indent=1))


if __name__ == "__main__":
    main()
