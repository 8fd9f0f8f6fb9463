"""The simulator: the real engine on modelled storages, the same in every run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from transfer_engine.cli.main import app
from transfer_engine.simulation.result import Result
from transfer_engine.simulation.run import simulate
from transfer_engine.simulation.scenario import load, parse

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "benchmarks" / "scenarios"


def small(**parts) -> dict:
    """A few hundred files between three storages."""
    return {
        "name": "small",
        "endpoints": {name: {"in_bytes_s": 1e8, "out_bytes_s": 1e8} for name in "abc"},
        "limits": {"endpoint_inbound": 10, "endpoint_outbound": 20},
        "streams": [
            {
                "name": vo,
                "vo": vo,
                "arrivals": {"kind": "at-once", "files": 150},
                "size": {"kind": "lognormal", "mean_bytes": 1e8, "sigma": 0.7},
                "route": {"sources": ["a", "b"], "destinations": ["c"]},
            }
            for vo in ("x", "y")
        ],
    } | parts


def faulty(name: str, *troubles: dict, **parts) -> Result:
    data = small(**parts)
    data["endpoints"][name]["faults"] = list(troubles)
    return simulate(parse(data))


def check(result: Result) -> Result:
    """What holds in every run."""
    assert result.oracle.overshoot <= 0
    assert result.n_finished + result.n_failed <= result.n_files
    assert result.oracle.last_end_s <= result.ended_s
    if result.complete:
        assert result.n_finished + result.n_failed == result.n_files
    assert result.oracle.total == 0 or not result.complete
    if result.over_bound is not None:
        assert result.over_bound >= 1 - 1e-6
    return result


@pytest.mark.slow
def test_a_healthy_day_is_near_the_bound_and_fair():
    result = check(simulate(parse(small())))
    assert result.complete
    assert result.n_finished == 300
    assert result.over_bound is not None
    assert result.over_bound < 1.05
    assert result.fairness.deviation <= 2
    assert result.oracle.most["in c"] == 10


@pytest.mark.slow
def test_the_same_seed_is_the_same_run_and_another_seed_another():
    hashes = [simulate(parse(small()), seed=seed).summary()["trace_hash"] for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [None, 60])
def test_hash_randomisation_changes_nothing(tmp_path, duration_s):
    """Sets and dictionaries of strings are ordered differently in each of these processes."""
    data = small(duration_s=duration_s)
    data["endpoints"]["a"]["faults"] = [{"kind": "errors", "chance": 0.2, "error": "lost"}]
    data["endpoints"]["c"]["faults"] = [{"kind": "busy", "above": 6, "retry_after_s": 5}]
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(data))
    summaries = []
    for number in ("0", "1", "77"):
        out = tmp_path / f"{number}.json"
        command = [sys.executable, "-m", "transfer_engine.cli.main", "simulate", str(path), "--json", str(out)]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": number}, capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == (9 if duration_s else 6), done.stderr
        summaries.append(json.loads(out.read_text()))
    assert summaries[0] == summaries[1] == summaries[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "seen"),
    [
        ({"kind": "errors", "chance": 0.3, "error": "copy-failed"}, "failed COPY_FAILED"),
        ({"kind": "errors", "chance": 0.1, "error": "lost"}, "failed OUTCOME_UNKNOWN"),
        ({"kind": "errors", "chance": 0.1, "error": "checksum"}, "copied wrongly"),
        ({"kind": "dead", "from_s": 20, "to_s": 200}, "failed OUTCOME_UNKNOWN"),
        ({"kind": "stall", "from_s": 20, "to_s": 500}, "failed STALLED"),
        ({"kind": "busy", "above": 5, "retry_after_s": 10}, "busy"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else f"{value['kind']} {value.get('error', '')}",
)
def test_faults_are_met_and_survived(trouble, seen):
    result = check(faulty("c", trouble, retry={"retries_max": 30, "delay_max_s": 60}))
    assert result.complete
    assert result.oracle.counts[seen] > 0
    assert result.n_finished == 300, result.oracle.counts


@pytest.mark.slow
def test_a_storage_that_refuses_for_ever_fails_what_is_for_it():
    result = check(faulty("c", {"kind": "refuses"}))
    assert result.complete
    assert result.n_failed == 300
    assert result.over_bound is None
    assert result.makespan_s == 0


def test_a_stop_in_the_middle_leaves_work():
    result = check(simulate(parse(small(duration_s=30))))
    assert not result.complete
    assert result.ended_s == pytest.approx(30)
    assert 0 < result.n_finished < 300
    assert result.over_bound is None


@pytest.mark.slow
def test_disks_are_slower_with_more_copies_than_heads():
    few = small(limits={"endpoint_inbound": 2})
    many = small(limits={"endpoint_inbound": 20})
    found = small(limits={"endpoint_inbound": 20})
    for data in (few, many, found):
        data["endpoints"]["c"] |= {"heads": 2, "thrash": 1.0}
        data["settings"] = {"optimizer": {"enabled": data is found}}
    fewest_s = simulate(parse(few)).makespan_s
    assert fewest_s * 3 < simulate(parse(many)).makespan_s
    assert simulate(parse(found)).makespan_s < 1.15 * fewest_s, "the optimizer finds the disk's best number"


@pytest.mark.slow
def test_series_add_up():
    result = simulate(parse(small()))
    data = result.as_json()["series"]
    assert data["at_s"] == sorted(data["at_s"])
    spans = [b - a for a, b in zip([0.0, *data["at_s"]], data["at_s"], strict=False)]
    moved = sum(r * s for rates in data["goodput_bytes_s"].values() for r, s in zip(rates, spans, strict=True))
    assert moved == pytest.approx(result.n_bytes, rel=1e-6)
    assert max(data["active_in"]["c"]) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["healthy", "elephants-mice", "flapping-link", "greedy-vo", "shared-pipe", "single-disk"],
)
def test_committed_scenarios_run_within_their_limits(name):
    result = check(simulate(load(SCENARIOS / f"{name}.json")))
    assert result.complete
    if name == "healthy":
        assert result.over_bound is not None
        assert result.over_bound < 1.05
        assert result.fairness.vos.lowest >= 0.99


@pytest.mark.slow
def test_the_rehearsal_thinned_out():
    result = check(simulate(load(SCENARIOS / "fdr-small.json")))
    assert result.complete
    assert result.n_finished >= 0.98 * result.n_files


@pytest.mark.slow
def test_a_dead_storage_leaves_the_others_what_they_had():
    def moved(name: str) -> int:
        result = check(simulate(load(SCENARIOS / f"{name}.json")))
        assert not result.complete, "everybody must have had work to the end"
        return sum(n for link, n in result.oracle.link_bytes.items() if "site01" not in link)

    assert moved("dead-destination") >= 0.98 * moved("dead-destination-alive")


def test_the_command_says_what_is_wrong(tmp_path):
    from typer.testing import CliRunner

    from transfer_engine.errors import Invalid

    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(small(pipe={})))
    done = CliRunner().invoke(app, ["simulate", str(path)])
    assert isinstance(done.exception, Invalid)
    assert "pipe: unknown key" in str(done.exception)


@pytest.mark.slow
def test_the_command_prints_the_figures_and_writes_the_trace(tmp_path):
    from typer.testing import CliRunner

    path, trace = tmp_path / "scenario.json", tmp_path / "trace.txt"
    path.write_text(json.dumps(small()))
    done = CliRunner().invoke(app, ["simulate", str(path), "--seed", "5", "--trace", str(trace)])
    assert done.exit_code == 0, done.output
    assert "limits exceeded by  0" in done.output
    assert "seed 5" in done.output
    lines = trace.read_text().splitlines()
    assert sum(" copied " in line for line in lines) == 300
