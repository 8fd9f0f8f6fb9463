"""Scenarios: what is accepted, what is refused and in which words, and what arrives when."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.errors import Invalid
from transfer_engine.simulation import faults, namespace
from transfer_engine.simulation.arrivals import arrivals
from transfer_engine.simulation.bound import Demand, Integral
from transfer_engine.simulation.faults import Dead, Slow, Stall
from transfer_engine.simulation.plant import Plant, Varying
from transfer_engine.simulation.scenario import load, parse

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "benchmarks" / "scenarios").glob("*.json"))

GOOD = {
    "name": "two storages",
    "endpoints": {
        "a": {"in_bytes_s": 1e8, "out_bytes_s": 1e8},
        "b": {"in_bytes_s": 1e8, "out_bytes_s": 1e8, "overhead_s": 1.0, "latency_s": 0.0},
    },
    "links": [{"source": "a", "destination": "b", "bytes_s": 5e7}],
    "pipes": {"p": {"bytes_s": 1e9, "outside": [{"from_s": 5, "bytes_s": 5e8}]}},
    "limits": {"endpoints": {"b": {"inbound": 3}}, "links": [{"source": "a", "destination": "b", "active": 2}]},
    "shares": {"vos": {"x": 2}},
    "streams": [
        {
            "name": "s",
            "vo": "x",
            "arrivals": {"kind": "at-once", "files": 10},
            "size": {"kind": "fixed", "bytes": 1000},
            "route": {"sources": ["a"], "destinations": ["b"]},
        }
    ],
}


def changed(path: str, value: object) -> dict:
    """GOOD with one value replaced; None removes it."""
    data = copy.deepcopy(GOOD)
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = data
    for part in above:
        at = at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return data


def test_a_scenario_becomes_settings_of_the_engine():
    settings = parse(GOOD).engine_settings()
    assert settings.limits.endpoints["sim://b"].inbound == 3
    assert (settings.limits.links[0].source, settings.limits.links[0].destination) == ("sim://a", "sim://b")
    assert settings.shares.vos == {"x": 2}


def test_the_environment_has_no_say(monkeypatch):
    monkeypatch.setenv("TRANSFER_ENGINE_LIMITS__NODE", "1")
    assert parse(GOOD).engine_settings().limits.node != 1


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("endpoints.a.speed", 3, "endpoints.a.speed: unknown key"),
        ("endpoints.a.in_bytes_s", None, "endpoints.a.in_bytes_s: Field required"),
        ("endpoints.a.in_bytes_s", -1, "endpoints.a.in_bytes_s: Input should be greater than 0"),
        ("endpoints.a.pipes", ["q"], "endpoints.a.pipes: no pipe 'q', there are p"),
        ("endpoints.a.faults", [{"kind": "ill"}], "endpoints.a.faults.0"),
        ("endpoints.a.faults", [{"kind": "dead", "from_s": 5, "to_s": 5}], "to_s must be after from_s (5)"),
        ("endpoints.a.faults", [{"kind": "dead", "every_s": 5}], "every_s and for_s go together"),
        (
            "endpoints.a.faults",
            [{"kind": "slow", "factor": 0}],
            "endpoints.a.faults.0.factor: Input should be greater than 0",
        ),
        ("links.0.destination", "c", "links.0.destination: no endpoint 'c', there are a, b"),
        ("streams.0.route.sources", ["c"], "streams.0.route.sources.0: no endpoint 'c'"),
        ("streams.0.route.sources", ["b"], "no source differs from its destination"),
        ("streams.0.route.sources", [], "expected sources and destinations, or pairs"),
        ("streams.0.size", {"kind": "fixed"}, "streams.0.size.bytes: Field required"),
        ("streams.0.arrivals.files", 0, "streams.0.arrivals.files: Input should be greater"),
        ("streams.0.priority", 6, "streams.0.priority"),
        ("streams", [], "streams: expected at least 1, got 0"),
        ("streams", {}, "streams: expected a list"),
        ("endpoints", 5, "endpoints: expected an object"),
        ("endpoints.A b", {"in_bytes_s": 1, "out_bytes_s": 1}, "endpoints.A b: String should match"),
        ("endpoints.a.in_bytes_s", "1e8", 'endpoints.a.in_bytes_s: expected a number, got "1e8"'),
        ("endpoints.a.heads", True, "endpoints.a.heads: expected a number, got true"),
        ("links", [{"source": "a", "destination": "a"}], "links.0: source and destination are both 'a'"),
        ("streams.0.route", {"pairs": [{"source": "b", "destination": "b"}]}, "pairs.0: source and destination are"),
        ("limits.endpoints", {"z": {}}, "limits.endpoints.z: no endpoint 'z'"),
        ("limits.nodes", 5, "limits.nodes: unknown key"),
        ("limits.node", "many", "limits.node: "),
        ("limits.node", "5", 'limits.node: expected a number, got "5"'),
        ("limits.endpoints", 5, "limits.endpoints: expected an object"),
        ("limits.endpoints", {"b": {"inbound": -1}}, "limits.endpoints.b.inbound: Input should be greater"),
        ("limits.links", 5, "limits.links: expected a list"),
        ("limits.links", [{"source": "a", "destination": "b"}] * 2, "limits.links.1: a → b is there already"),
        ("limits.vos", [{"endpoint": "z", "vo": "x"}], "limits.vos.0.endpoint: no endpoint 'z'"),
        ("shares.links", [{"destination": "z", "vos": {"x": 1}}], "shares.links.0.destination: no endpoint 'z'"),
        ("shares.links", [{"vos": {"x": 1}}] * 2, "shares.links.1: * → * is there already"),
        ("optimizer", {"enabled": "yes"}, 'optimizer.enabled: expected true or false, got "yes"'),
        ("breaker", {"failures": 0}, "breaker.failures: Input should be greater"),
        ("settings", {"optimizer": {"speed": 1}}, "settings.optimizer.speed: unknown key"),
        ("settings", {"limits": {}}, "settings.limits: is there twice"),
        ("settings", {"wishes": {}}, "settings.wishes"),
    ],
)
def test_mistakes_are_named(path, value, said):
    with pytest.raises(Invalid) as caught:
        parse(changed(path, value), "lake.json")
    assert said in str(caught.value)
    assert str(caught.value).startswith("lake.json: ")


def test_a_row_with_a_mistake_is_not_said_to_be_missing_as_well():
    with pytest.raises(Invalid) as caught:
        parse(changed("streams.0.priority", 6), "lake.json")
    assert str(caught.value) == "lake.json: streams.0.priority: Input should be less than or equal to 5"


@pytest.mark.parametrize("inside", [False, True])
def test_optimizer_and_breaker_are_sections_beside_or_below_settings(inside):
    sections = {"optimizer": {"enabled": False}, "breaker": {"failures": 3}}
    settings = parse({**GOOD, **({"settings": sections} if inside else sections)}).engine_settings()
    assert (settings.optimizer.enabled, settings.breaker.failures) == (False, 3)


def test_vos_and_activities_that_nobody_is_of_are_hinted_at():
    shares = {"vos": {"x": 1, "y": 1, "public": 2}, "activities": {"x": {"Raw": 2, "default": 1}}}
    assert list(parse({**GOOD, "shares": shares}).hints()) == [
        "shares.vos: no stream is of VO 'y'",
        "shares.activities.x: no stream of x is of activity 'Raw'",
    ]
    assert not list(parse(GOOD).hints())


def test_files_that_are_no_scenarios_are_said_to_be_none(tmp_path):
    with pytest.raises(Invalid, match="cannot be read"):
        load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(Invalid, match="is not good JSON"):
        load(tmp_path / "bad.json")
    (tmp_path / "twice.json").write_text('{"name": "a", "name": "b"}')
    with pytest.raises(Invalid, match="'name' is there twice"):
        load(tmp_path / "twice.json")
    (tmp_path / "large.json").write_text('{"seed": 1e400}')
    with pytest.raises(Invalid, match="1e400 is no number"):
        load(tmp_path / "large.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(Invalid):
        load(tmp_path / "list.json")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_committed_scenario_is_valid(path):
    load(path)


def test_the_example_of_the_documentation_is_valid():
    text = (ROOT / "docs" / "scenarios.md").read_text()
    example = text.partition("```json\n")[2].partition("```")[0]
    assert parse(json.loads(example)).streams[1].priority == 4


def test_committed_scenarios_are_what_the_script_writes(tmp_path):
    from benchmarks import make_scenarios

    make_scenarios.main(tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("*.json"))] == [path.name for path in SCENARIOS]
    for path in SCENARIOS:
        assert json.loads(path.read_text()) == json.loads((tmp_path / path.name).read_text())


def test_the_rehearsal_has_the_totals_of_the_talk():
    scenario = load(ROOT / "benchmarks" / "scenarios" / "fdr.json")
    streams = [stream for stream in scenario.streams if stream.name != "noise"]
    assert sum(stream.arrivals.files for stream in streams) == 659_832
    assert sum(stream.arrivals.files * stream.size.bytes for stream in streams) == 8_051_556_160_000


ARRIVALS = [
    {"kind": "at-once", "files": 450, "at_s": 7},
    {"kind": "rate", "files": 450, "from_s": 10, "to_s": 50, "batch": 7},
    {"kind": "rate", "files": 450, "from_s": 10, "to_s": 50, "spread": "poisson"},
    {"kind": "bursts", "files": 45, "count": 10, "every_s": 60},
]


@pytest.mark.parametrize("kind", ARRIVALS, ids=lambda row: f"{row['kind']} {row.get('spread', '')}")
@pytest.mark.parametrize(
    "size",
    [
        {"kind": "lognormal", "mean_bytes": 1e6, "sigma": 1},
        {"kind": "choice", "of": [{"bytes": 1}, {"bytes": 5, "weight": 3}]},
    ],
    ids=lambda row: row["kind"],
)
def test_all_files_arrive_in_order_and_the_same_each_time(kind, size):
    data = changed("streams.0.arrivals", kind)
    data["streams"][0]["size"] = size
    stream = parse(data).streams[0]
    found = list(arrivals(stream, 0, seed=3, files_max=200))
    assert found == list(arrivals(stream, 0, seed=3, files_max=200))
    assert sum(len(a.files) for a in found) == 450
    assert max(len(a.files) for a in found) <= 200
    assert [a.at_s for a in found] == sorted(a.at_s for a in found)
    first = 0
    for arrival in found:
        assert arrival.first == first
        first += len(arrival.files)


@given(st.floats(0, 100), st.floats(0.1, 1000), st.sampled_from([None, (10.0, 3.0), (7.3, 7.2)]), st.floats(0, 1200))
def test_windows_change_when_they_say(start, length, turn, now):
    every, lasts = turn or (None, None)
    window = Dead(kind="dead", from_s=start, to_s=start + length, every_s=every, for_s=lasts)
    at = window.next_change(now)
    assert at > now
    if at < float("inf"):
        assert not window.holds(at) or not window.holds(now)
    else:
        assert now >= window.end_s
        assert not window.holds(now)


def test_faults_take_capacity_away():
    troubles = (Slow(kind="slow", factor=0.5), Stall(kind="stall", from_s=10, to_s=20))
    assert [faults.factor(troubles, now) for now in (0, 10, 15, 20)] == [0.5, 0.0, 0.0, 0.5]


def test_the_integral_of_a_capacity():
    window = Stall(kind="stall", from_s=10, to_s=20)
    integral = Integral.of(Varying((window,), lambda now: 0.0 if window.holds(now) else 2.0))
    assert [integral.until(t) for t in (0, 5, 10, 15, 20, 30)] == [0, 10, 20, 20, 20, 40]
    assert [integral.inverse(n) for n in (10, 22, 40)] == [5, 21, 30]


def test_the_bound_knows_release_times_slots_and_single_files():
    scenario = parse(GOOD)
    limits = limits_of(scenario)
    demand = Demand(scenario, Plant(scenario))
    demand.add(0.0, "a", "b", 500_000_000)
    assert demand.bound(limits).end_s == pytest.approx(11.02)  # a's answer, 1 s of overhead, then 50 MB/s
    demand.add(100.0, "a", "b", 1_000_000_000)
    assert demand.bound(limits).end_s == pytest.approx(121.02)
    for _ in range(1000):
        demand.add(0.0, "a", "b", 0)
    found = demand.bound(limits)
    assert found.end_s == pytest.approx((1002 * 1.02 + 10 + 20) / 2)  # two slots on the link
    assert found.due_to == "slots a > b"


def limits_of(scenario):
    from transfer_engine.limits import LimitTable

    return LimitTable.of(scenario.engine_settings().limits)


def test_files_are_where_they_were_put():
    presence = namespace.Presence()
    for number in (0, 7, 8, 100_000):
        text = namespace.url("b", "a", "s", number, 50)
        path = namespace.parse(text)
        original = namespace.url("a", "a", "s", number, 50)
        assert presence.size(original, namespace.parse(original)) == 50
        assert presence.size(text, path) is None
        presence.put_part(text, 20)
        assert presence.size(text, path) == 20
        presence.put(text, path)
        assert presence.size(text, path) == 50
        assert presence.remove(text, path)
        assert not presence.remove(text, path)
        assert presence.size(text, path) is None
        assert presence.remove(original, namespace.parse(original))
        assert presence.size(original, namespace.parse(original)) is None
        assert namespace.checksum(path, "adler32") == namespace.checksum(namespace.parse(original), "adler32")
        assert namespace.checksum(path, "sha512") != namespace.checksum(path, "sha512", corrupt=True)
    assert namespace.parse("sim://a/x") is None
    assert namespace.checksum(path, "none") is None
