"""Scenarios for the optimizer: storages whose best concurrency nobody has configured. All constructed.

Each has far more work than can be done in `duration_s`, so that goodput is the figure; `benchmarks.optimizer`
compares it with that of the best fixed limit.
"""

from __future__ import annotations

from typing import Any

from benchmarks.scenario_parts import GB, MB, at_once, scenario, storage, work

LIMITS = {"endpoint_inbound": 40, "endpoint_outbound": 80}


def disk(heads: int) -> dict[str, Any]:
    """One destination with so many heads."""
    return scenario(
        f"a storage with {heads} heads",
        "goodput peaks with as many copies as heads; limits allow 40",
        duration_s=1200,
        sample_s=5,
        endpoints={
            "a": storage(2 * GB),
            "b": storage(2 * GB),
            "disk": storage(GB // 5, heads=heads, thrash=1.0),
        },
        limits=LIMITS,
        streams=[work("all", at_once(6000), 100 * MB, ["a", "b"], ["disk"], vo="vo")],
    )


def capacity_drop() -> dict[str, Any]:
    """A storage with four heads is down to a third for five minutes."""
    row = disk(4)
    row["endpoints"]["disk"]["faults"] = [{"kind": "slow", "from_s": 600, "to_s": 900, "factor": 0.33}]
    return row | {
        "name": "capacity drops and comes back",
        "description": "a storage with four heads gives a third of its goodput from minute 10 to 15",
    }


def needs_streams() -> dict[str, Any]:
    """Distance bounds each copy; only many of them fill the link."""
    return scenario(
        "a long fat link",
        "one copy gets 20 MB/s of 600, so that 30 are needed; from minute 10 to 15 only 150 MB/s are there",
        duration_s=1200,
        sample_s=5,
        endpoints={
            "a": storage(2 * GB),
            "far": storage(600 * MB, faults=[{"kind": "slow", "from_s": 600, "to_s": 900, "factor": 0.25}]),
        },
        links=[{"source": "a", "destination": "far", "stream_bytes_s": 20 * MB}],
        limits={"endpoint_inbound": 100, "endpoint_outbound": 100, "link": 100},
        streams=[work("all", at_once(6000), 200 * MB, ["a"], ["far"], vo="vo")],
    )


def busy() -> dict[str, Any]:
    """A storage that refuses more than twelve copies."""
    return scenario(
        "a busy storage",
        "more than 12 copies are answered with 503 and Retry-After: 30; limits allow 40",
        duration_s=1200,
        sample_s=5,
        retry={"retries_max": 100},
        endpoints={
            "a": storage(2 * GB),
            "b": storage(2 * GB),
            "busy": storage(
                300 * MB, stream_bytes_s=25 * MB, faults=[{"kind": "busy", "above": 12, "retry_after_s": 30}]
            ),
        },
        limits=LIMITS,
        streams=[work("all", at_once(6000), 100 * MB, ["a", "b"], ["busy"], vo="vo")],
    )


SCENARIOS = {
    "disk-1": lambda: disk(1),
    "disk-2": lambda: disk(2),
    "disk-4": lambda: disk(4),
    "disk-8": lambda: disk(8),
    "capacity-drop": capacity_drop,
    "needs-streams": needs_streams,
    "busy": busy,
}
