"""The Full Dress Rehearsal of the ESCAPE Pilot DataLake (24 hours; talk of 13 January 2021) as a scenario.

From the talk: the storages, the share of transfers that were done on each link, the experiments with
their mean file sizes, the patterns of FAIR, SKA, VIRGO and MAGIC, the noise of 100 MB files, the pipe of
LAPP that filled when two communities moved data at once, GSI-ROOT on a single disk, and the totals:
8 TB in some 660,000 transfers.
Constructed, so that the totals match: the other counts and windows, every route and QoS class, the hour at
which GSI-ROOT was repaired, and everything of the network: bandwidths, latencies, overheads, limits.
"""

from __future__ import annotations

from typing import Any

from benchmarks.scenario_parts import HOUR, rate

PROVENANCE = {
    "endpoints": "names: the talk; bandwidths, latencies, overheads: constructed",
    "pipes": "that the pipe of LAPP filled: the talk; its width and outside traffic: constructed",
    "links": "chance of an error = 1 - (done / submitted) of the talk's matrix, taken per attempt: constructed",
    "gsi-root": "one disk: the talk; speed, and repair after 12 hours: constructed",
    "streams": "mean sizes, patterns of FAIR, VIRGO, SKA, MAGIC: the talk; other counts, windows, routes: constructed",
    "totals": "659,832 transfers and 8.05 TB without the noise: the talk",
    "limits": "constructed",
}
GBIT_S = {
    "alpamed-dpm": 2.5,
    "cnaf-storm": 10,
    "desy-dcache": 10,
    "eulake-1": 10,
    "gsi-root": 1,
    "in2p3-cc-dcache": 10,
    "infn-na-dpm": 2.5,
    "infn-na-dpm-fed": 2.5,
    "infn-roma1": 1,
    "lapp-dcache": 1,
    "lapp-webdav": 1,
    "pic-dcache": 10,
    "pic-inject": 1,
    "sara-dcache": 10,
}
"""Constructed."""
DONE = {
    ("desy-dcache", "pic-dcache"): 0.91,
    ("desy-dcache", "alpamed-dpm"): 0.93,
    ("sara-dcache", "alpamed-dpm"): 0.88,
    ("eulake-1", "sara-dcache"): 0.78,
    ("eulake-1", "pic-dcache"): 0.47,
    ("lapp-dcache", "lapp-webdav"): 0.94,
    ("in2p3-cc-dcache", "pic-dcache"): 0.89,
    ("in2p3-cc-dcache", "cnaf-storm"): 0.91,
    ("in2p3-cc-dcache", "alpamed-dpm"): 0.35,
    ("alpamed-dpm", "desy-dcache"): 0.28,
    ("alpamed-dpm", "sara-dcache"): 0.94,
    ("alpamed-dpm", "infn-na-dpm"): 0.93,
    ("gsi-root", "pic-dcache"): 0.94,
    ("gsi-root", "alpamed-dpm"): 0.89,
    ("infn-na-dpm", "alpamed-dpm"): 0.9,
    ("infn-na-dpm-fed", "lapp-dcache"): 0.93,
    ("infn-na-dpm-fed", "alpamed-dpm"): 0.81,
}
"""The talk's links below 95 % (to GSI-ROOT apart, which had its own reason): done over submitted."""
SAFE = ["desy-dcache", "pic-dcache", "sara-dcache"]
CHEAP = ["cnaf-storm", "in2p3-cc-dcache", "infn-na-dpm"]
FAST = ["eulake-1", "gsi-root", "lapp-dcache"]
OPPORTUNISTIC = ["alpamed-dpm", "infn-na-dpm-fed", "infn-roma1", "lapp-webdav"]
"""QoS classes; who is in which is constructed."""
EVERY = sorted({*SAFE, *CHEAP, *FAST, *OPPORTUNISTIC})


def fdr(*, factor: float = 1.0) -> dict[str, Any]:
    """The rehearsal with `factor` times as many files."""
    return {
        "name": "full dress rehearsal" + ("" if factor == 1 else f", {factor:g} times the files"),
        "description": "24 hours of the ESCAPE Pilot DataLake",
        "provenance": PROVENANCE,
        "seed": 1,
        "endpoints": {name: endpoint(name, gbit_s) for name, gbit_s in GBIT_S.items()},
        "pipes": {
            "lapp": {
                "bytes_s": 125_000_000,
                "outside": [{"from_s": 6 * HOUR, "to_s": 12 * HOUR, "bytes_s": 60_000_000}],
            }
        },
        "links": [
            {
                "source": source,
                "destination": destination,
                "faults": [{"kind": "errors", "chance": round(1 - done, 2), "error": "copy-failed"}],
            }
            for (source, destination), done in DONE.items()
        ],
        "limits": {
            "endpoint_inbound": 100,
            "endpoint_outbound": 100,
            "link": 60,
            "endpoints": {"gsi-root": {"inbound": 8, "outbound": 8}},
        },
        "retry": {"retries_max": 8},
        "streams": [thinned(row, factor) for row in streams()],
    }


def endpoint(name: str, gbit_s: float) -> dict[str, Any]:
    """One storage; disk storages elsewhere serve as many streams as come."""
    bytes_s = int(gbit_s * 125_000_000)
    row: dict[str, Any] = {
        "in_bytes_s": bytes_s,
        "out_bytes_s": bytes_s,
        "stream_bytes_s": 60_000_000,
        "latency_s": 0.03,
        "overhead_s": 0.5,
    }
    if name.startswith("lapp-"):
        row["pipes"] = ["lapp"]
    if name == "gsi-root":
        row["heads"], row["thrash"] = 2, 0.5
        row["faults"] = [
            {"kind": "slow", "to_s": 12 * HOUR, "factor": 0.4},
            {"kind": "busy", "to_s": 12 * HOUR, "above": 6, "retry_after_s": 60},
        ]
    return row


def stream(
    name: str, arrivals: dict[str, Any], mean_bytes: int, sources: list[str], destinations: list[str], **more: Any
) -> dict[str, Any]:
    """A stream of files of one size."""
    return {
        "name": name,
        "vo": more.pop("vo", name.partition("-")[0].lower()),
        **more,
        "arrivals": arrivals,
        "size": {"kind": "fixed", "bytes": mean_bytes},
        "route": {"sources": sources, "destinations": destinations},
    }


def streams() -> list[dict[str, Any]]:
    """Every stream of the day."""
    return [
        stream("FAIR-safe", rate(288, 0, 24, 2), 1_036_000_000, ["gsi-root"], SAFE, activity="SAFE"),
        stream("FAIR-cheap", rate(144, 0, 24), 1_036_000_000, ["gsi-root"], CHEAP, activity="CHEAP-ANALYSIS"),
        stream("VIRGO", rate(14_400, 2, 4), 86_400, ["eulake-1"], ["cnaf-storm"]),
        stream("SKA-PSS", rate(3500, 4, 4, 10), 50_000_000, ["desy-dcache"], ["eulake-1"], activity="PSS"),
        stream("SKA-SPS", rate(480, 4, 4, 20), 50_000_000, ["desy-dcache"], ["eulake-1"], activity="SPS"),
        stream(
            "SKA-MFT", rate(246_020, 8, 16, 200), 1_000_000, [*OPPORTUNISTIC, *FAST], [*CHEAP, *SAFE], activity="QoS"
        ),
        stream("MAGIC", rate(800, 18, 6, 4), 573_000_000, ["pic-inject"], ["pic-dcache"]),
        stream("ATLAS", rate(4000, 6, 6, 20), 235_000_000, [*SAFE, "cnaf-storm"], ["lapp-dcache"]),
        stream("CMS", rate(200, 6, 12), 1_026_000_000, EVERY, EVERY),
        stream("CTA", rate(180_000, 0, 24, 10, "poisson"), 9_273_000, EVERY, EVERY),
        stream(
            "LSST",
            rate(210_000, 1, 8, 200),
            18_500_000,
            ["in2p3-cc-dcache"],
            [name for name in EVERY if name not in {"in2p3-cc-dcache", "gsi-root"}],
        ),
        stream(
            "noise",
            {"kind": "bursts", "files": 132, "every_s": HOUR, "count": 24},
            100_000_000,
            EVERY,
            EVERY,
            vo="escape",
            activity="Functional Test",
            priority=1,
        ),
    ]


def thinned(row: dict[str, Any], factor: float) -> dict[str, Any]:
    """The same stream with `factor` times the files, at the same times."""
    if factor == 1:
        return row
    arrivals = dict(row["arrivals"])
    arrivals["files"] = max(round(arrivals["files"] * factor), 1)
    if factor > 1 and "batch" in arrivals:
        arrivals["batch"] = round(arrivals["batch"] * factor)
    return {**row, "arrivals": arrivals}
