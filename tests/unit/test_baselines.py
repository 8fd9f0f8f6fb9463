"""The schedulers to compare with do what they are said to do, and can be named on the command line."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks import baselines
from benchmarks.baselines.driver import File, Job
from benchmarks.baselines.fts3 import CYCLE_S, RETRY_S, is_recoverable
from benchmarks.baselines.fts3_optimizer import Ended, LinkOptimizer, Seen, decide
from benchmarks.baselines.fts3_queue import VoQueue
from benchmarks.random_scenarios import random_scenario
from protocols.errors import (
    AlreadyExists,
    ChecksumMismatch,
    Missing,
    NoSpace,
    Overloaded,
    Scope,
    TimedOut,
    Unavailable,
)
from transfer_engine.cli.output import Stop
from transfer_engine.cli.simulate import policy_named
from transfer_engine.model import Failure
from transfer_engine.places import Link
from transfer_engine.simulation.run import real_engine, simulate
from transfer_engine.simulation.scenario import parse

A, B = Link("sim://a", "sim://c"), Link("sim://b", "sim://c")


def file(number, *, priority=3, activity="default", link=A):
    job = Job(job_id="j", vo="x", priority=priority, submitted_at=0.0, transfers="s d 1", n_files=1, ended=None)
    return File(number, job, 0, link, activity)


def numbers(files):
    return [row.number for row in files]


def scenario(**parts):
    """60 files of 10 s each on one slot's worth of stream."""
    return {
        "name": "small",
        "endpoints": {
            name: {"in_bytes_s": 1e9, "out_bytes_s": 1e9, "stream_bytes_s": 1e7, "latency_s": 0.01} for name in "abc"
        },
        "limits": {"endpoint_inbound": 4, "endpoint_outbound": 4},
        "streams": [
            {
                "name": source,
                "vo": "x",
                "arrivals": {"kind": "at-once", "files": 30},
                "size": {"kind": "fixed", "bytes": 100_000_000},
                "route": {"sources": [source], "destinations": ["c"]},
            }
            for source in "ab"
        ],
    } | parts


def begun(data, build):
    """Streams in the order in which their first copies began, and the run."""
    order = []

    def see(line):
        _, what, url = line.split()
        if what == "copy":
            order.append(url.split("/")[4])

    return order, simulate(parse(data), build=build, on_trace=see)


# FIFO


def test_fifo_keeps_the_order_of_submission():
    order, result = begun(scenario(), baselines.fifo)
    assert order == ["a"] * 30 + ["b"] * 30
    assert result.n_finished == 60
    assert result.oracle.overshoot <= 0
    assert result.oracle.most["in c"] == 4


def test_fifo_passes_over_a_full_link_only():
    data = scenario(limits={"endpoint_inbound": 4, "links": [{"source": "a", "destination": "c", "active": 1}]})
    order, result = begun(data, baselines.fifo)
    assert order[:4] == ["a", "b", "b", "b"]
    assert result.oracle.overshoot <= 0


def test_fifo_retries_as_the_engine_does():
    data = scenario(retry={"retries_max": 20, "delay_s": 1})
    data["endpoints"]["c"]["faults"] = [
        {"kind": "errors", "chance": 0.2},
        {"kind": "errors", "chance": 0.1, "error": "lost"},
    ]
    result = simulate(parse(data), build=baselines.fifo)
    assert result.complete
    assert result.n_finished == 60
    assert result.oracle.counts["failed COPY_FAILED"] > 0
    assert result.oracle.counts["failed OUTCOME_UNKNOWN"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fifo", "fts3", "fts3_forgetful"])
def test_equal_seeds_give_equal_runs(name):
    build = getattr(baselines, name)
    data = random_scenario(104, faults=True)
    for row in data["streams"]:
        row["arrivals"]["files"] = min(row["arrivals"]["files"], 40)
    first, second = (simulate(parse(data), build=build) for _ in range(2))
    assert first.summary() == second.summary()
    assert first.complete


# FTS3's queue


def test_one_file_in_its_delay_stops_lower_priorities():
    queue = VoQueue(None)
    queue.add(file(1, priority=3))
    queue.delay(file(2, priority=5), until=120.0)
    assert queue.due(0.0) == []
    assert queue.pick(10, random.Random(0)) == []
    assert numbers(queue.due(120.0)) == [2]
    assert numbers(queue.pick(10, random.Random(0))) == [2]
    assert numbers(queue.pick(10, random.Random(0))) == [1]
    assert len(queue) == 0


def test_without_activity_shares_file_ids_decide():
    queue = VoQueue(None)
    for number, activity in ((3, "p"), (1, "q"), (2, "p"), (4, "q")):
        queue.add(file(number, activity=activity))
    assert numbers(queue.pick(3, random.Random(0))) == [1, 2, 3]


def test_a_slot_for_an_activity_without_files_at_the_top_priority_stays_empty():
    queue = VoQueue({"p": 1.0, "q": 1.0, "default": 1.0})
    for number in range(1, 101):
        queue.add(file(number, activity="p", priority=5))
        queue.add(file(number + 200, activity="q", priority=1))
    found = queue.pick(40, random.Random(1))
    assert 10 < len(found) < 30
    assert {row.activity for row in found} == {"p"}


def test_activities_that_are_not_named_each_have_the_default_weight():
    """It is once in the sum: the first in the alphabet takes all that is left of the die."""
    queue = VoQueue({"default": 1.0})
    for number in range(1, 51):
        queue.add(file(number, activity="a"))
        queue.add(file(number + 100, activity="b"))
    assert Counter(row.activity for row in queue.pick(40, random.Random(0))) == {"a": 40}


# FTS3's optimizer


def optimizer(**more):
    return LinkOptimizer(**({"low": 2, "high": 60, "specific": False} | more))


def test_first_values():
    for specific, value in ((False, 31), (True, 60)):
        found = optimizer(specific=specific)
        found.run(60.0, 100, [])
        assert found.value == value


def test_it_climbs_by_one_a_minute_while_throughput_grows():
    found = optimizer()
    for minute in range(1, 6):
        now = 60.0 * minute
        found.run(now, 1000, [(now - 60, minute * 10**9)])
    assert found.value == 35


def test_it_stays_in_its_range():
    found = optimizer(high=3)
    for minute in range(1, 10):
        found.run(60.0 * minute, 1000, [(0.0, minute * 10**9)])
    assert found.value == 3


def test_failures_take_one_a_minute():
    found = optimizer()
    for minute in range(1, 5):
        found.ended(Ended(0.0, 60.0 * minute, 10, finished=minute < 2, retried=minute >= 2))
        found.run(60.0 * minute, 1000, [])
    assert found.value == 28


@pytest.mark.parametrize(
    ("seen", "before", "queued", "value"),
    [
        (Seen(96.5, 5.0, 1.0, 0), Seen(95.0, 5.0, 1.0, 0), 99, 10),
        (Seen(96.5, 5.0, 1.0, 4), Seen(95.0, 5.0, 1.0, 1), 99, 9),
        (Seen(95.0, 5.0, 1.0, 0), Seen(95.0, 5.0, 1.0, 0), 99, 9),
        (Seen(100.0, 0.0), Seen(), 99, 10),
        (Seen(100.0, 5.0), Seen(100.0, 4.0), 9, 10),
        (Seen(100.0, 5.0), Seen(100.0, 4.0), 99, 11),
        (Seen(100.0, 5.0), Seen(100.0, 5.0), 99, 11),
        (Seen(100.0, 4.9), Seen(100.0, 5.0), 99, 10),
        (Seen(100.0, 5e6, 1e9), Seen(100.0, 5e8, 1e9), 99, 9),
        (Seen(100.0, 5e6, 1e6), Seen(100.0, 5e8, 1e9), 99, 11),
    ],
)
def test_the_decision_table(seen, before, queued, value):
    assert decide(10, seen, before, queued)[0] == value


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Unavailable("down"), True),
        (Overloaded("busy", retry_after_s=30), True),
        (TimedOut("no answer", scope=Scope.SOURCE), True),
        (NoSpace("full", scope=Scope.DESTINATION), True),
        (Missing("gone", scope=Scope.SOURCE), False),
        (ChecksumMismatch("differs"), False),
        (AlreadyExists("there", scope=Scope.DESTINATION), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_fts3_tries_again(error, again):
    assert is_recoverable(Failure.of(error)) is again


# FTS3 as a whole


def test_fts3_draws_one_vo_per_link_and_cycle():
    data = scenario(shares={"vos": {"x": 1, "y": 1}})
    data["streams"][1] |= {"vo": "y", "route": {"sources": ["a"], "destinations": ["c"]}}
    times = {}
    simulate(parse(data), build=baselines.fts3, on_trace=lambda line: note(line, times))
    first = min(times.items())
    assert len(first[1]) == 1, "one cycle, one VO"


def note(line, times):
    at, what, url = line.split()
    if what == "copy":
        times.setdefault(int(float(at) / CYCLE_S), set()).add(url.split("/")[4])


def test_fts3_exceeds_limits_of_storages_with_links_of_other_vos():
    """Actives of the VO that lost the draw are not subtracted."""
    data = scenario(shares={"vos": {"x": 1, "y": 1}}, limits={"endpoint_inbound": 6, "endpoint_outbound": 20})
    data["streams"][1] |= {"vo": "y"}
    result = simulate(parse(data), build=baselines.fts3)
    assert result.complete
    assert result.oracle.overshoot > 0


def test_fts3_waits_two_minutes_before_each_retry():
    data = scenario(retry={"retries_max": 3})
    data["endpoints"]["c"]["faults"] = [{"kind": "errors", "chance": 1, "to_s": 30, "error": "unavailable"}]
    result = simulate(parse(data), build=baselines.fts3)
    assert result.n_finished == 60
    assert result.oracle.last_end_s > RETRY_S


# The command line


def test_policies_by_name():
    assert policy_named("fair") is real_engine
    assert policy_named("fts3") is baselines.fts3
    assert policy_named("benchmarks.baselines:fifo") is baselines.fifo


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", "fair, fifo, fts3"),
        ("no_such_module:x", "no module no_such_module"),
        ("benchmarks.baselines:nobody", "nobody"),
        ("json:__doc__", "cannot be called"),
    ],
)
def test_policies_that_are_none(name, words):
    with pytest.raises(Stop, match=words):
        policy_named(name)
