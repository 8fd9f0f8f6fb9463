"""The scheduler's and the settling's own tests as functions, quickest first, to be run against planted bugs."""

from __future__ import annotations

import functools
import inspect
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from protocols.errors import Again, Scope
from tests.unit import (
    test_board,
    test_health,
    test_health_pause,
    test_limits,
    test_optimizer,
    test_pacing,
    test_retry,
    test_rooms,
    test_saturation,
    test_seeking,
    test_selection,
    test_settle,
    test_shares,
    test_turns,
)
from tests.unit.schedule_model import World, places, queues_of
from transfer_engine.config import EndpointLimits, Limits, LinkLimits, LinkShares, Shares, VoLimits
from transfer_engine.states import JobType

Check = tuple[str, Callable[[], object]]
STEPS = (
    "ready", "cancel", "decide", "decide", "end", "end", "end", "hold", "cap", "uncap", "unblock", "tidy", "wait",
    "settle",
)  # fmt: skip
QUICK = settings(
    max_examples=12,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def noticed(suite: list[Check]) -> str | None:
    """The first check that fails; None: nothing is wrong. A check that cannot even be made has noticed something."""
    for name, check in suite:
        try:
            check()
        except Exception:  # noqa: BLE001 - whatever a planted bug breaks is a finding
            return name
    return None


def checks_of(module: ModuleType, **fixtures: Callable[[], object]) -> Iterator[Check]:
    """The tests of a module that are not slow, with all their parameters. Args: fixtures: made anew for each test."""
    for name, test in vars(module).items():
        if not name.startswith("test_") or not inspect.isfunction(test):
            continue
        marks = getattr(test, "pytestmark", [])
        if any(mark.name == "slow" for mark in marks):
            continue
        given = hasattr(test, "hypothesis")
        cases = list(_cases(marks))
        if given:
            yield name, _derandomized(test)
            continue
        wanted = set(inspect.signature(test).parameters) - set(cases[0] if cases else {})
        if wanted <= fixtures.keys():
            made = {key: fixtures[key] for key in wanted}
            for case in cases or [{}]:
                yield name, functools.partial(_with_fixtures, test, made, case)


def _with_fixtures(test: Any, fixtures: Mapping[str, Callable[[], object]], case: Mapping[str, object]) -> object:
    return test(**case, **{key: make() for key, make in fixtures.items()})


def _derandomized(test: Any) -> Callable[[], object]:
    def check() -> object:
        usual = test._hypothesis_internal_use_settings
        test._hypothesis_internal_use_settings = QUICK
        try:
            return test()
        finally:
            test._hypothesis_internal_use_settings = usual

    return check


def _cases(marks: list[pytest.Mark]) -> Iterator[dict[str, object]]:
    columns = []
    for mark in marks:
        if mark.name == "parametrize":
            names, rows = mark.args
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
            columns.append([dict(zip(names, row if len(names) > 1 else [row], strict=True)) for row in rows])
    for parts in itertools.product(*columns):
        yield {name: value for part in parts for name, value in part.items()}


def walks(seeds: range) -> None:
    """Random histories of a small world; every figure is compared after each step."""
    for seed in seeds:
        _walk(random.Random(seed))


def _walk(rng: random.Random, n_steps: int = 100) -> None:
    world = _world(rng)
    queues = list(world.queues.values())
    all_places = sorted({place for queue in queues for place in places(queue)})
    for _ in range(n_steps):
        _step(world, rng, rng.choice(queues), rng.choice(all_places))
        world.check()
    world.settle()
    world.check()


def _world(rng: random.Random) -> World:
    sources, destinations = [f"s{n}" for n in range(rng.randint(1, 3))], [f"d{n}" for n in range(rng.randint(1, 3))]

    def few() -> int:
        return rng.choice([0, 1, 1, 2, 3, 5])

    def rate() -> float | None:
        return rng.choice([None, None, 0.3, 3.0, 25.0])

    endpoint = rng.choice(sources + destinations)
    limits = Limits(
        endpoint_inbound=rng.choice([1, 2, 5]),
        endpoint_outbound=rng.choice([1, 2, 6]),
        link=rng.choice([1, 3, 5]),
        node=rng.choice([3, 20, 100]),
        endpoints={
            endpoint: EndpointLimits(inbound=few(), outbound=few(), inbound_bytes_s=rate(), outbound_bytes_s=rate())
        },
        links=(LinkLimits(source=sources[0], destination=destinations[0], active=few(), bytes_s=rate()),),
        vos=(
            VoLimits(endpoint=destinations[0], vo="a", inbound=few()),
            VoLimits(endpoint=sources[0], vo="b", outbound=few()),
        ),
    )
    links = (LinkShares(source=sources[0], vos={"public": 3.0, "a": 9.0}),) if rng.random() < 0.3 else ()
    queues = queues_of(sources, destinations, ("a", "b"), ("x", "y"))
    return World(queues, limits, Shares(vos={"a": 3.0, "b": 0.5}, links=links))


def _step(world: World, rng: random.Random, queue: Any, place: Any) -> None:
    match rng.choice(STEPS):
        case "ready":
            world.ready(queue, rng.choice([1, 3, 5]), rng.randint(1, 6))
        case "cancel" if +world.store:
            queue_id, priority = rng.choice(sorted(+world.store))
            n = rng.randint(1, world.store[queue_id, priority])
            world.ready(world.queues[queue_id], priority, -n)
        case "decide":
            world.claimed(rng) if world.claim else world.decide(rng.choice([1, 3, 1000]))
        case "end" if running := world.claimed_running():
            run = rng.choice(running)
            world.learn(run.queue, world.now - run.since + 0.1, rng.choice([0.0, 0.1, 2.7]))
            world.release(run)
        case "hold":
            world.hold(queue, 3)
        case "cap":
            world.cap(place, rng.choice("mn"), rng.randint(0, 4))
        case "uncap" if world.caps:
            world.cap(*rng.choice(sorted(world.caps)), None)
        case "unblock" if world.blocked:
            world.unblock(rng.choice(sorted(world.blocked)))
        case "tidy":
            world.scheduler.tidy()
        case "wait":
            world.now += 10 * rng.random()
        case "settle":
            world.settle(rng.choice([1, 2, 1000]))
        case _:
            """There is nothing to cancel, to end, to lift or to unblock."""


def _board_histories() -> None:
    run_state_machine_as_test(test_board.BoardMachine, settings=QUICK)


def _a_passing_trouble_spends_no_replica() -> None:
    order = replace(test_settle.ORDER, follows=True, job_type=JobType.REPLICAS)
    for again, scope in itertools.product((Again.SOON, Again.LATE), Scope):
        change = test_settle.decide(test_settle.failed(again, scope), order)
        assert change.activate_next == (scope is not Scope.DESTINATION)
    assert test_settle.decide(test_settle.failed(Again.NEVER, Scope.DESTINATION), order).activate_next


SETTLING: list[Check] = [
    *checks_of(test_settle),
    *checks_of(test_retry),
    ("replicas and passing troubles", _a_passing_trouble_spends_no_replica),
]
GOVERNING: list[Check] = [
    *checks_of(test_pacing),
    *checks_of(test_saturation),
    *checks_of(test_seeking),
    *checks_of(test_selection),
    *checks_of(test_health, bench=test_health.Bench),
    *checks_of(test_health_pause, health=lambda: test_health.Bench().health),
    *checks_of(test_optimizer),
]
SCHEDULING: list[Check] = [
    ("random histories", lambda: walks(range(12))),
    *checks_of(test_turns),
    *checks_of(test_rooms),
    *checks_of(test_limits),
    *checks_of(test_board),
    *checks_of(test_shares),
    ("a board and a store", _board_histories),
    ("shares of activities", lambda: test_shares.test_activities_share_what_their_vo_gets(4)),
    ("full at both ends", lambda: test_turns.test_no_link_starves_where_all_sources_and_destinations_are_full(5)),
    ("more random histories", lambda: walks(range(100, 120))),
]
