"""The report on scheduling: what counts as reached, and what is said when it is not."""

from __future__ import annotations

import pytest

from benchmarks import optimizer, scheduling, scheduling_report
from benchmarks.scheduling_runs import LowestPriority, read
from transfer_engine.simulation.scenario import parse


def row(scenario="s", policy="ours", **more):
    good = {"lowest": 1.0, "mean": 1.0, "n": 1, "worst": ""}
    return {
        "scenario": scenario,
        "policy": policy,
        "faults": False,
        "files": 10,
        "failed": 0,
        "makespan_s": 100.0,
        "bound_s": 100.0,
        "due_to": "in c",
        "over_bound": 1.0,
        "bytes": 10,
        "links": {"site01 > site02": 5, "site03 > site02": 5},
        "vos": good,
        "activities": good,
        "deviation": 0.0,
        "deviation_allowed": 5,
        "overshoot": 0,
        "low_priority": None,
        "cpu_s": 1.0,
    } | more


def results(*rows, **more):
    runs = {f"{r['scenario']} / {r['policy']}": r for r in rows}
    return {"runs": runs, "optimizer": {}, "decisions": []} | more


def test_nothing_is_missed_by_a_good_run():
    found = results(row(), row(policy="fifo"), row(policy="fts3", makespan_s=130.0, over_bound=1.3))
    assert scheduling_report.missed(found) == []
    assert "| s " in scheduling_report.text(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"over_bound": 1.06, "makespan_s": 106.0}, "1.060 times the bound, more than 1.05"),
        ({"over_bound": 1.16, "makespan_s": 116.0, "faults": True}, "more than 1.15"),
        ({"over_bound": 1.02, "makespan_s": 102.0}, "worse than fifo"),
        ({"vos": {"lowest": 0.98, "n": 1, "worst": "c"}}, "Jain of vos"),
        ({"overshoot": 1}, "exceeded by 1"),
        ({"deviation": 5.1}, "off the share"),
        ({"low_priority": {"longest_s": 10.0, "never": 3}}, "3 never began"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_each_target_is_watched(change, words):
    found = scheduling_report.missed(results(row(**change), row(policy="fifo")))
    assert any(words in line for line in found), found


def test_others_of_a_dead_storage_are_compared_without_it():
    dead = row("dead-destination", links={"site01 > site02": 0, "site03 > site02": 4})
    found = results(dead, row("dead-destination-alive"))
    assert scheduling_report.others_part(found, "ours") == pytest.approx(0.8)
    assert any("others keep 80" in line for line in scheduling_report.missed(found))


def test_tables_are_written_between_their_markers(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"before\n{scheduling_report.BEGIN}\nold\n{scheduling_report.END}\nafter\n")
    scheduling._replace_table(path, "new\n")
    assert path.read_text() == f"before\n{scheduling_report.BEGIN}\n\nnew\n\n{scheduling_report.END}\nafter\n"
    path.write_text("no markers")
    with pytest.raises(SystemExit):
        scheduling._replace_table(path, "new\n")


def points(*values):
    return [(5.0 * (n + 1), value) for n, value in enumerate(values)]


def test_time_to_ninety_percent_needs_fifteen_seconds():
    rows = points(10, 90, 10, 95, 95, 95, 100)
    assert optimizer.time_to(rows, 100.0, 0.0, 35.0) == 30.0
    assert optimizer.time_to(rows, 100.0, 15.0, 35.0) == 15.0
    assert optimizer.time_to(rows, 200.0, 0.0, 35.0) is None


def test_phases_follow_the_changes_of_capacity():
    assert optimizer.phases("capacity-drop") == [(0.0, 600.0), (600.0, 900.0), (900.0, 1200.0)]
    assert optimizer.phases("disk-4") == [(0.0, 1200.0)]


def test_optimizer_figures():
    n = 240
    fixed = {4: points(*[100.0] * n), 8: points(*[50.0] * n)}
    found = optimizer.figures("disk-4", fixed, points(*[50.0] * 4, *[98.0] * (n - 4)))
    assert found["best_limits"] == [4]
    assert found["time_to_90_s"] == 35.0
    assert found["steady"] == pytest.approx(0.98)
    assert found["held"] == []


def test_waits_of_the_lowest_priority_are_followed():
    waits = LowestPriority(parse(read("priorities")))
    assert waits.streams == {"low": (300, 100)}
    for number in range(99):
        waits.see(f"{400 + number}.000000 copy sim://b/a/low/{number}.200000000\n")
    waits.see("5000.000000 copy sim://b/a/low/0.200000000\n")
    assert waits.figures(1000.0) == {"longest_s": 700.0, "never": 1}
