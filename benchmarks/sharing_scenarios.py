"""Scenarios for shares, priorities and limits. All constructed."""

from __future__ import annotations

from typing import Any

from benchmarks.scenario_parts import GB, MB, at_once, rate, scenario, storage, work


def priorities() -> dict[str, Any]:
    """High priority alone could fill the destination for ever."""
    return scenario(
        "constant high priority",
        "priority 5 arrives at 105 % of what the destination can take for four hours; 100 files of priority 1 wait",
        duration_s=4 * 3600,
        endpoints={"a": storage(GB), "b": storage(200 * MB)},
        limits={"endpoint_inbound": 20},
        streams=[
            work("high", rate(15_120, 0, 4, 5), 200 * MB, ["a"], ["b"], vo="vo", activity="Production", priority=5),
            work("low", at_once(100, 300), 200 * MB, ["a"], ["b"], vo="vo", activity="Production", priority=1),
        ],
    )


def weights() -> dict[str, Any]:
    """100:1 on four slots: the light one cannot have its part of a slot at any instant, only over time."""
    return scenario(
        "weights 100 to 1 on four slots",
        "shares far from whole slots have to hold over time",
        duration_s=3 * 3600,
        endpoints={"a": storage(GB), "b": storage(200 * MB, stream_bytes_s=50 * MB)},
        limits={"endpoint_inbound": 4},
        shares={"vos": {"heavy": 100, "light": 1}},
        streams=[
            work("heavy", at_once(12_000), 200 * MB, ["a"], ["b"]),
            work("light", at_once(1_000), 200 * MB, ["a"], ["b"]),
        ],
    )


def many_vos() -> dict[str, Any]:
    """Twelve VOs with four activities each, everything queued."""
    vos = {f"vo{n:02}": weight for n, weight in enumerate((1, 1, 1, 2, 2, 3, 3, 4, 5, 8, 10, 20), 1)}
    activities = {"Production": 6, "Analysis": 3, "Debug": 1, "default": 2}
    return scenario(
        "many VOs and activities",
        "12 VOs with weights 1 to 20, four activities in each, deep backlog at three destinations",
        duration_s=2 * 3600,
        endpoints={
            "a": storage(4 * GB),
            "b": storage(4 * GB),
            "x": storage(GB),
            "y": storage(GB),
            "z": storage(GB // 2),
        },
        limits={"endpoint_inbound": 60, "endpoint_outbound": 200},
        shares={"vos": vos, "activities": dict.fromkeys(list(vos)[:6], activities)},
        streams=[
            work(
                f"{vo}-{activity.lower()}",
                at_once(900),
                0,
                ["a", "b"],
                ["x", "y", "z"],
                vo=vo,
                activity=activity,
                size={"kind": "lognormal", "mean_bytes": 600 * MB, "sigma": 0.8},
            )
            for vo in vos
            for activity in ("Production", "Analysis", "Debug", "User")
        ],
    )


def narrow_source() -> dict[str, Any]:
    """Everybody wants files of one storage that may serve few."""
    return scenario(
        "one source for all",
        "six destinations of unlike speed read from one source with 30 slots; others have work besides",
        endpoints={
            "source": storage(2 * GB),
            "other": storage(2 * GB),
            **{f"d{n}": storage(speed * MB) for n, speed in enumerate((800, 800, 400, 400, 200, 100), 1)},
        },
        limits={"endpoint_inbound": 20, "endpoint_outbound": 60, "endpoints": {"source": {"outbound": 30}}},
        streams=[
            work("wanted", at_once(2400), GB // 2, ["source"], [f"d{n}" for n in range(1, 7)], vo="one"),
            work("besides", rate(1200, 0, 0.3, 20), GB // 2, ["other"], ["d1", "d3"], vo="two"),
        ],
    )


def full_storage() -> dict[str, Any]:
    """A destination that is full for half an hour beside one that is not."""
    return scenario(
        "a full storage",
        "every copy into one of three fails with no-space for 30 minutes; the others must not notice",
        endpoints={
            "a": storage(2 * GB),
            "full": storage(
                GB // 2, faults=[{"kind": "errors", "from_s": 300, "to_s": 2100, "chance": 1, "error": "no-space"}]
            ),
            "x": storage(GB // 2),
            "y": storage(GB // 2),
        },
        limits={"endpoint_inbound": 20, "endpoint_outbound": 40},
        retry={"retries_max": 10},
        streams=[
            work("to-full", at_once(600), GB // 2, ["a"], ["full"], vo="vo"),
            work("others", at_once(5000), GB // 2, ["a"], ["x", "y"], vo="vo"),
        ],
    )


SCENARIOS = {
    "priorities": priorities,
    "weights-100-1": weights,
    "many-vos": many_vos,
    "narrow-source": narrow_source,
    "full-storage": full_storage,
}
