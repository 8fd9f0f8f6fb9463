"""The circuit breaker of one place: closed, open, probing, recovering. Pure.

    CLOSED ──a streak of failures that bad luck does not explain──► OPEN ──time──► PROBING
      ▲                                                           ▲  ◄─it fails──┘ │
      └── successes double the number, up to no bound ── RECOVERING ◄──it succeeds─┘

Only what fails (nearly) always is closed: the streak of failures that opens a circuit is as long as
chance needs to make it improbable at the rate of failures that is usual in the place. A storage that
loses every second copy still copies, and leaving it alone would only cost what it does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from transfer_engine.config import BreakerSettings
from transfer_engine.health.blame import Blame, Trouble
from transfer_engine.model import Failure

MEMORY: Final = 200.0
"""Attempts after which what was usual counts half."""
PRIOR_WEIGHT: Final = 4.0
"""Attempts that the first assumption counts for."""
PRIOR: Final = {Trouble.UNREACHABLE: 0.05, Trouble.FAILING: 0.5, Trouble.FULL: 0.0, Trouble.DENIED: 0.5}
"""How often a place fails of which nothing is known. Connections hardly ever fail by chance; copies may."""
STREAK_MAX: Final = 100
"""Longest streak that is waited for: who fails more than about nine times in ten counts as down."""
REOPEN_PART: Final = 3.0
"""A place that fails for T seconds is tried every T/3: its return is noticed within a third of its absence."""
JITTER: Final = 0.1
CODES_MAX: Final = 8
"""Different codes that are counted by name."""


class State(StrEnum):
    """Of one circuit."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"
    RECOVERING = "recovering"


@dataclass(slots=True)
class Streak:
    """Failures of one kind since the last success."""

    since: float
    partner: str
    n: int = 0
    several: bool = False
    """They come from more than one link."""
    codes: dict[str, int] = field(default_factory=dict)
    message: str = ""

    def add(self, failure: Failure, partner: str) -> None:
        """One more."""
        self.n += 1
        self.several = self.several or partner != self.partner
        self.message = failure.message
        code = failure.code if failure.code in self.codes or len(self.codes) < CODES_MAX else "OTHER"
        self.codes[code] = self.codes.get(code, 0) + 1


class Circuit:
    """One place's breaker. Instants are given; it knows no clock."""

    __slots__ = (
        "_answered", "_bad", "_expected", "_fresh_at", "_ok", "_settings", "n_tries", "n_well", "opened_at", "probes",
        "probing_at", "recovered_at", "state", "streaks", "trouble", "until", "window",
    )  # fmt: skip

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self.state = State.CLOSED
        self.trouble: Trouble | None = None
        """What it is, or was last, open for."""
        self.streaks: dict[Trouble, Streak] = {}
        self.opened_at = -math.inf
        self.until = math.inf
        """When it is tried again, while open."""
        self.probing_at = math.inf
        self.recovered_at = -math.inf
        self.n_tries = 0
        """Tries that failed since it opened."""
        self.window = 0
        """How many may run beside what was running before, while probing and recovering."""
        self.probes = 0
        """How many of them do run."""
        self._fresh_at = -math.inf
        """Attempts that began earlier say nothing about the place as it is now."""
        self._expected = 0
        self.n_well = 0
        """Successes while it was open, of attempts that began before."""
        self._ok = 0.0
        self._answered = 0.0
        """Answers beside `_ok`: they count for being reached alone."""
        self._bad: dict[Trouble, float] = {}

    @property
    def streak(self) -> Streak | None:
        """The failures that it is open for."""
        return self.streaks.get(self.trouble) if self.trouble is not None else None

    def is_probe(self, began_at: float) -> bool:
        """Whether an attempt that began then is one of those that try the place."""
        return (self.state is State.PROBING or self.state is State.RECOVERING) and began_at >= self.probing_at

    def limit(self, n_active: int) -> int | None:
        """How many attempts may be active; None: any number.

        What was under way when trouble began still holds its slots, and must not keep the probe out.
        """
        match self.state:
            case State.CLOSED:
                return None
            case State.OPEN:
                return 0
            case _:
                return max(0, n_active - self.probes) + self.window

    # Evidence

    def fail(self, blame: Blame, failure: Failure, now: float, *, began_at: float, alone: bool, luck: float) -> None:
        """A failure that is put down to this place.

        Args: alone: failures of a single link are enough. luck: 0 to 1, the same for all places that one failure is
            put down to: what closed together is tried together, or nobody would get through to any of them.
        """
        if began_at < self._fresh_at:
            return
        streak = self.streaks.get(blame.trouble)
        if streak is None:
            streak = self.streaks[blame.trouble] = Streak(now, blame.partner)
        streak.add(failure, blame.partner)
        match self.state:
            case State.OPEN:
                return
            case State.PROBING:
                if began_at >= self.probing_at:
                    self.trouble = blame.trouble
                    self.n_tries += 1
                    self._wait(now, began_at, luck)
            case State.CLOSED | State.RECOVERING:
                if streak.n >= self.needed(blame.trouble) and (alone or streak.several):
                    self.open(blame.trouble, now, luck)

    def open(self, trouble: Trouble, now: float, luck: float) -> None:
        """Close the place: nothing more is begun."""
        self.trouble = trouble
        self._expected = self.needed(trouble)
        self.opened_at = now
        self.n_tries = self.n_well = 0
        self._wait(now, now, luck)

    def succeed(self, now: float, *, began_at: float) -> None:
        """An attempt that used this place succeeded."""
        if self.state is State.CLOSED:
            self._remember()
            return
        match self.state:
            case State.OPEN:
                self.n_well += 1
                # What began before may still end well, as when new connections alone are refused: worth an early try.
                if self.trouble in {Trouble.UNREACHABLE, Trouble.FAILING}:
                    self.until = min(self.until, now + self._settings.open_s / REOPEN_PART)
            case State.PROBING:
                if began_at >= self.probing_at or self.trouble in {Trouble.UNREACHABLE, Trouble.FAILING}:
                    self._recover(now)
            case State.RECOVERING:
                self._remember()
                self._widen()

    def answer(self, now: float, *, began_at: float) -> None:
        """The endpoint answered: it is not unreachable, whatever else may be wrong."""
        if self.state is not State.CLOSED and self.trouble is Trouble.UNREACHABLE:
            self.succeed(now, began_at=began_at)
            return
        self._answered += 1
        streak = self.streaks.pop(Trouble.UNREACHABLE, None) if self.streaks else None
        if streak is not None:
            self._bad[Trouble.UNREACHABLE] = self._bad.get(Trouble.UNREACHABLE, 0.0) + streak.n
        self._fade()

    def move(self, now: float) -> None:
        """Bytes of a try move: enough where nothing more was in doubt than being let in."""
        if self.trouble in {Trouble.UNREACHABLE, Trouble.DENIED}:
            if self.state is State.PROBING:
                self._recover(now)
            elif self.state is State.RECOVERING:
                self._widen()

    def open_until(self, until: float, trouble: Trouble, now: float, luck: float) -> None:
        """Closed along with another place, and not tried before `until`."""
        if self.state in {State.CLOSED, State.RECOVERING}:
            self.open(trouble, now, luck)
        if self.state is State.OPEN:
            self.until = max(self.until, until)

    def resume(self, trouble: Trouble, *, opened_at: float, until: float, n_tries: int) -> None:
        """Open, as it was before a restart."""
        self.state, self.trouble = State.OPEN, trouble
        self.opened_at, self.until, self.n_tries = opened_at, until, n_tries

    def due(self, now: float) -> None:
        """The time to try again has come."""
        if self.state is State.OPEN:
            self.state = State.PROBING
            self.probing_at = now
            self.window, self.probes, self.until = 1, 0, math.inf

    # Rules

    def needed(self, trouble: Trouble) -> int:
        """How many failures in a row chance does not explain here."""
        settings = self._settings
        fewest = {Trouble.FULL: 1, Trouble.DENIED: settings.denied}.get(trouble, settings.failures)
        bad = self._bad.get(trouble, 0.0)
        good = self._ok + (self._answered if trouble is Trouble.UNREACHABLE else 0.0)
        usual = (bad + PRIOR[trouble] * PRIOR_WEIGHT) / (good + bad + PRIOR_WEIGHT)
        if usual <= 0.0:
            return fewest
        improbable = math.ceil(math.log(settings.chance) / math.log(usual))
        return max(fewest, min(improbable, STREAK_MAX))

    def _wait(self, now: float, began_at: float, luck: float) -> None:
        """Open until the next try, which is as long after the last one as the trouble is old."""
        settings = self._settings
        shortest = settings.late_s if self.trouble in {Trouble.FULL, Trouble.DENIED} else settings.open_s
        wait = max(shortest, (now - self.opened_at) / REOPEN_PART)
        wait = min(wait * (1 + JITTER * (2 * luck - 1)), settings.open_max_s)
        self.state = State.OPEN
        # A try that takes long to fail was a wait of its own.
        self.until = max(began_at + wait, now + wait / REOPEN_PART)
        self.window = self.probes = 0

    def _recover(self, now: float) -> None:
        if self.trouble is not None and self._was_luck():
            # Perhaps nothing was wrong: a longer streak is asked for next time.
            self._bad[self.trouble] = self._bad.get(self.trouble, 0.0) + self._expected
        self._fresh_at = self.probing_at
        self.state = State.RECOVERING
        self.recovered_at = now
        self.streaks.clear()
        self._ok += 1
        self.window = 1
        self._widen()

    def _widen(self) -> None:
        self.window *= 2
        if self.window >= self._settings.recovered:
            self._close()

    def _was_luck(self) -> bool:
        """Whether it worked at the first try; where somebody has to act, whether most worked all the time."""
        if self.trouble in {Trouble.FULL, Trouble.DENIED}:
            streak = self.streak
            return streak is not None and self.n_well > streak.n
        return self.n_tries == 0

    def _close(self) -> None:
        self.state = State.CLOSED
        self.until = self.probing_at = math.inf
        self.window = self.probes = self.n_tries = 0

    def _remember(self) -> None:
        """A success ends all streaks: what they counted was chance."""
        self._ok += 1
        if self.streaks:
            for trouble, streak in self.streaks.items():
                self._bad[trouble] = self._bad.get(trouble, 0.0) + streak.n
            self.streaks.clear()
        self._fade()

    def _fade(self) -> None:
        seen = self._ok + self._answered
        if self._bad:
            seen += sum(self._bad.values())
        if seen > MEMORY:
            self._ok /= 2
            self._answered /= 2
            self._bad = {trouble: n / 2 for trouble, n in self._bad.items()}
