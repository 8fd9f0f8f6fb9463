"""How many copies one place runs best: a search along its goodput, one level at a time. Pure.

A place ramps: it doubles until more copies do harm, for those that bring nothing take nothing either. When goodput
falls it goes back one level and checks whether the number was why; if so it seeks (small steps around the best level),
and in the end it holds, looking at the neighbours ever more rarely, or not at all where all that may run does. A fall
of goodput that it did not cause makes it descend, an overload makes it retreat. A level counts only what ran at it:
judging waits until the number active has come to it. A link begins at its limit and has to be in trouble to leave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from transfer_engine import tuning
from transfer_engine.config import OptimizerSettings
from transfer_engine.evidence import (
    MIXED,
    SEVERAL,
    SPAN_MAX_S,
    Ceiling,
    Levels,
    Seen,
    SizeClass,
    Window,
    bottleneck,
    rate_text,
    size_text,
    taken_from,
    went,
)
from transfer_engine.guarding import Guard
from transfer_engine.metering import Sample
from transfer_engine.places import Place
from transfer_engine.seeking import SAME, Search
from transfer_engine.tuning import Adjustment, Phase

__all__ = ["Adjustment", "Climber", "Phase"]


class Climber:
    """The search of one place."""

    def __init__(self, place: Place, settings: OptimizerSettings) -> None:
        self.place = place
        self.settings = settings
        self.target = self.base = settings.initial
        self.phase = Phase.RAMP
        self.highest: int | None = None
        """The configured limit, when it was last heard of."""
        self.reference: Seen | None = None
        """What was seen at `base`."""
        self.size = SizeClass()
        self.levels = Levels(settings.memory_s)
        self.ceiling = Ceiling()
        self.guard = Guard()
        self.probe_at, self.probe_wait_s = 0.0, settings.probe_s
        self._patience_s = 0.0
        """How rarely it looked before a look gained something, which may not last."""
        self.window = Window()
        self._drained = Window()
        """What moved in a descent while there were still more copies than the target."""
        self._doubtful = False
        """The reference may have been measured, in part, before goodput fell."""
        self._flushed = False
        self._first = True
        """No level below `base` was measured in this ramp."""
        self._path: dict[int, float] = {}
        """Levels of this ramp, and their goodput."""
        self._search = Search(self.base, 0.0, 0)
        self._harmed: Seen | None = None
        """What was seen at the level that seemed to do harm; None: a descent from a doubtful level brought nothing."""
        self._tried = 0
        """That level."""
        self._search_base = self.base
        self._search_at = self._search_rate = 0.0
        self._lost_s = 0.0
        """What the trials of this search cost, in seconds of all the goodput."""
        self._look_down = False
        """Larger files have come: descend as soon as the present level is measured."""
        self._odd = 0
        """Windows in a row that were unusual: positive higher, negative lower."""
        self._usual: int | None = None
        """The level from before a fall that it did not cause."""

    @property
    def is_free(self) -> bool:
        """A link that has not been in trouble: nothing but its configured limit bounds it."""
        return self.place.kind == "link" and self.highest is not None and self.target >= self.highest

    def is_settled(self, sample: Sample) -> bool:
        """Whether the present level is what held transfers back, and has been reached."""
        if sample.active > self.target + 0.5:
            self.restart()
            if self.phase is Phase.DESCEND:
                self._drained.add(sample, ())
            return False
        return sample.peak >= self.target and sample.active >= tuning.NEARLY * self.target

    def retreat(self, sample: Sample, now: float, words: str) -> Adjustment | None:
        """The place is overloaded: fewer at once, and not so many again for a while."""
        outage = not sample.moved_bytes and not sample.n_finished
        running = min(self.target, max(1, round(sample.active)))
        after = max(sample.lowest, self.target // 2 if outage else min(int(tuning.RETREAT * running), self.target - 1))
        level = min(self.target, max(sample.peak, 1))
        if not outage and level > sample.lowest:
            # With nothing moving at all the storage is down, which says nothing of how many it can bear.
            self.ceiling.hit(level, now, self.settings)
        before, seen = self.target, Seen(0.0, sample.active)
        self.begin(Phase.RAMP, before)
        self.base = after
        return self._go(after, now, f"{words}: {after} instead of {before}", seen)

    def remix(self, sample: Sample, now: float, before: int) -> Adjustment | None:
        """Files of another order of magnitude run now than those of `before`: look again."""
        decade = self.size.decade or 0
        words = f"the mean size went from about {size_text(before)} to {size_text(decade)}"
        best = self.levels.best(decade, now)
        self._look_down = best is None and decade > before + 1 and self.place.kind != "link"
        if self._look_down:
            self.begin(Phase.HOLD, self.target)
            return None
        good = best if best is not None and self.levels.is_peak(decade, best, now) else max(self.target, best or 1)
        good = max(sample.lowest, min(good, self.ceiling.cap(sample.highest, now)))
        if best == good or good >= sample.highest:
            words = f"{words}, for which {good} is good"
        if good >= sample.highest or self.levels.is_peak(decade, good, now):
            self.begin(Phase.HOLD, self.target)
            return self._hold(now, good, None, words)
        # That fewer were good does not say that more are bad.
        self.begin(Phase.RAMP, self.target)
        self.base = good
        return self._go(good, now, words, None)

    def judge(self, sample: Sample, now: float) -> Adjustment | None:
        """Decide on the window so far."""
        window = self.window
        if self.phase is Phase.HOLD and window.span_s < tuning.HOLD_S:
            return None
        if window.generations < 1 or window.n_reports < min(tuning.REPORTS_MIN, self.target):
            return None
        spread = max(window.spread, self.reference.spread if self.reference is not None else 0.0)
        if spread > MIXED and not window.is_covered:
            return None
        match self.phase:
            case Phase.RAMP:
                return self._judge_ramp(sample, now)
            case Phase.DESCEND:
                return self._judge_descent(sample, now)
            case Phase.CHECK:
                return self._judge_check(sample, now)
            case Phase.SEEK:
                return self._judge_trial(sample, now)
            case Phase.HOLD:
                return self._judge_hold(sample, now) if self._is_clean(2, tuning.HOLD_S) else None

    def bound(self, lowest: int, highest: int) -> None:
        """Respect the configured bounds, which may have changed; who was kept back by them alone may go on."""
        before, self.highest = self.highest, highest
        if self.place.kind == "link" and (before is None or self.target >= before):
            self.begin(Phase.HOLD, max(1, highest))
        elif before is not None and before <= self.target < highest and self.phase is Phase.HOLD:
            self.begin(Phase.RAMP, self.target)
        within = max(1, lowest, min(self.target, highest))
        if within != self.target:
            self.begin(self.phase if self.phase is Phase.RAMP else Phase.HOLD, within)

    def restart(self) -> None:
        """Begin to measure anew."""
        if self.window.span_s or self._flushed:
            self.window, self._flushed = Window(), False

    def begin(self, phase: Phase, target: int) -> None:
        """Go to `target` and look from there, nothing being known."""
        self.phase, self.target, self.base, self._usual = phase, target, target, None
        self.reference, self._first, self._odd, self._path = None, True, 0, {}
        self.restart()

    def _is_clean(self, generations: float, span_s: float = 0.0) -> bool:
        """The window holds enough copies, or parts of them, and only such that began at this level."""
        window = self.window
        if not self._flushed:
            if generations <= 1 or window.is_whole:
                self._flushed, self.window = True, Window()
            return False
        if window.generations < 1 or window.span_s < span_s:
            return False
        if window.span_s >= SPAN_MAX_S:
            return True
        if generations <= 1:
            enough = window.n_reports >= min(tuning.REPORTS_MIN, 2 * self.target)
            return enough and (window.is_whole or window.generations > SEVERAL)
        return window.generations >= generations and window.n_reports >= 2 * tuning.REPORTS_MIN and window.is_whole

    def _remember(self, seen: Seen, now: float) -> None:
        self.levels.remember(self.size.decade or 0, self.target, seen.at_least, now)
        if self.phase is Phase.RAMP:
            self._path[self.target] = seen.at_least
        self.ceiling.passed(self.target)

    def _judge_ramp(self, sample: Sample, now: float) -> Adjustment | None:
        seen, before = self.window.seen(), self.reference
        if before is None:
            self._remember(seen, now)
            return self._rise(sample, now, f"goodput is {rate_text(seen.rate)} with {self.target}")
        ratio, slack = seen.ratio(before), seen.slack(before)
        best = max(self._path.values(), default=before.rate)
        harm = seen.rate * (1 + slack) < (1 - tuning.HARM) * best
        # At first those that began earlier also report for the time when each had more, and those that have just
        # begun for the time before their first byte: only a rise with the number is beyond doubt.
        gain = tuning.RISE * (self.target / self.base - 1)
        quick = ratio * (1 + slack) < 1 - SAME if harm and self._flushed else ratio * (1 - slack) > 1 + gain
        if not quick and not self._is_clean(1):
            return None
        if harm:
            return self._stop(now, seen, before)
        # Copies that bring nothing do no harm either, and small files among large ones want them.
        self._remember(seen, now)
        self._first = False
        taken = taken_from(before, seen)
        return self._rise(sample, now, f"{went(before, seen, self.base, self.target)}{taken}")

    def _rise(self, sample: Sample, now: float, words: str) -> Adjustment | None:
        seen, cap = self.window.seen(), self.ceiling.cap(sample.highest, now)
        if self.target >= cap:
            self.probe_wait_s = self.settings.probe_s
            return self._hold(now, min(self.target, cap), seen, f"{words}: {self._cap_words(sample, now)}")
        if not sample.waiting:
            self.window = Window()
            return None
        after = 2 * self.target
        if now < self.ceiling.until:
            after = min(after, (self.target + cap + 1) // 2)
        after = min(after, cap)
        self.base, self.reference = self.target, seen
        return self._go(after, now, f"{words}: try {after}", seen)

    def _cap_words(self, sample: Sample, now: float) -> str:
        if now < self.ceiling.until and self.ceiling.level is not None and self.ceiling.level <= sample.highest:
            return f"{self.ceiling.level} were too many, not tried again for {self.ceiling.until - now:.0f} s"
        return f"{sample.highest} is the configured limit"

    def _stop(self, now: float, seen: Seen, before: Seen) -> Adjustment | None:
        """The last step up did harm, or something else did: go back and see."""
        base = self.base
        best = max(self._path, key=lambda level: (self._path[level], level), default=base)
        if best != base and self._path[best] > before.rate:
            self.base, self.reference = best, replace(before, rate=self._path[best])
            before, base = self.reference, best
        self._remember(seen, now)
        words = went(before, seen, base, self.target)
        self.phase, self._harmed, self._tried = Phase.CHECK, seen, self.target
        return self._go(base, now, f"{words}: {base} again, to see whether that is why", seen)

    def _judge_check(self, sample: Sample, now: float) -> Adjustment | None:
        """Back at the level before the last one: is it as good as it was?"""
        seen, before, harmed = self.window.seen(), self.reference, self._harmed
        assert before is not None, "a check follows a step that was measured"
        if not self._is_clean(1):
            return None
        self._remember(seen, now)
        tried, base = self._tried, self.target
        if harmed is None:
            words, step = went(before, seen, tried, base), max(1, (base - tried) // 4)
            known = {tried: before.rate, base: seen.rate}
            if before.rate > (1 + SAME) * seen.rate:
                self.base = tried
            else:
                self.base, self.reference = base, seen
            return self._seek(sample, now, step, words, known)
        ratio = harmed.ratio(before)
        words = went(harmed, seen, tried, base)
        if seen.rate * (1 + seen.slack(before)) < harmed.rate + tuning.BACK * (before.rate - harmed.rate):
            self.phase, self.reference, self._path = Phase.RAMP, seen, {}
            return self._go(tried, now, f"{words}, which is not the number's doing: try {tried}", seen)
        self.base = base
        if ratio < 1 - tuning.FALL and self._first and base > sample.lowest:
            self.phase, self._doubtful = Phase.DESCEND, False
            after = max(base // 2, sample.lowest)
            return self._go(after, now, f"{words}: try {after}", seen)
        if ratio < tuning.FAR and base <= min(self._path, default=base) and self.place.kind != "link":
            # The place has changed, and what fewer do now was not measured.
            return self._seek(sample, now, max(1, base // 4), words, {tried: harmed.rate})
        if ratio < tuning.FAR and not self._first:
            return self._hold(now, base, before, f"{words}: back to {base}", probe_s=0.0)
        if ratio > 1 - SAME:
            self.base, self.reference = tried, seen
        return self._seek(sample, now, max(1, (tried - base) // 4), words, self._path)

    def _judge_descent(self, sample: Sample, now: float) -> Adjustment | None:
        seen, before = self.window.seen(), self.reference
        assert before is not None, "a descent starts from a level that was measured"
        if self._doubtful and self._drained.generations >= 1 and self._drained.rate < tuning.FALL_TWICE * before.rate:
            self.reference = before = self._drained.seen()
        better = seen.ratio(before) * (1 - seen.slack(before)) > 1 + SAME
        if not better and not self._is_clean(1):
            return None
        self._remember(seen, now)
        words, base = went(before, seen, self.base, self.target), self.base
        if not better and self._doubtful:
            # Perhaps it was as bad with the base by then.
            self.phase, self.reference, self._harmed, self._tried = Phase.CHECK, seen, None, self.target
            return self._go(base, now, f"{words}: {base} again, to see how it is by now", seen)
        if better:
            self.base, self.reference, self._doubtful = self.target, seen, False
            if self.target > sample.lowest:
                after = max(sample.lowest, self.target // 2)
                return self._go(after, now, f"{words}: try {after}", seen)
        step = max(1, abs(base - self.target) // 4)
        return self._seek(sample, now, step, words, {base: before.rate, self.target: seen.rate})

    def _seek(self, sample: Sample, now: float, step: int, words: str, known: Mapping[int, float]) -> Adjustment | None:
        """Look around the base in steps of `step`. Args: known: what has just been measured."""
        assert self.reference is not None, "a search starts from a level that was measured"
        self.phase, self._search_at, self._lost_s = Phase.SEEK, now, 0.0
        self._search_rate, self._search_base = self.reference.rate, self.base
        up_only = self.place.kind == "link"
        lower = self.levels.fresh(self.size.decade or 0, now).items()
        memory = {level: rate for level, rate in lower if level < tuning.LOWER * self.base}
        rate, way = self.reference.rate, -1 if max(known, default=0) > self.base else 1
        self._search = Search(
            self.base, rate, step, way, up_only=up_only, seen=dict(known), memory=memory, usual=self._usual
        )
        return self._next_trial(sample, now, self.reference, words)

    def _next_trial(self, sample: Sample, now: float, seen: Seen, words: str) -> Adjustment | None:
        cap = self.ceiling.cap(sample.highest, now) if sample.waiting else self.base
        level = self._search.next(sample.lowest, cap)
        if level is not None:
            return self._go(level, now, f"{words}: try {level}", seen)
        found = self._search
        gained = found.rate > (1 + tuning.GAIN) * self._search_rate or found.base > self._search_base
        if gained:
            self._patience_s, self.probe_wait_s = self.probe_wait_s, self.settings.probe_s
        else:
            wait_s = max(2 * self.probe_wait_s, self._lost_s / tuning.COST_SHARE)
            self.probe_wait_s = min(wait_s, self.settings.probe_max_s)
        soon = found.is_exhausted or found.rate > tuning.RISE_TWICE * self._search_rate
        wait_s = 0.0 if soon else self.probe_wait_s
        return self._hold(now, found.base, self.reference, f"{words}: {found.base} is best", probe_s=wait_s)

    def _judge_trial(self, sample: Sample, now: float) -> Adjustment | None:
        seen, before = self.window.seen(), self.reference
        assert before is not None, "a trial is compared with a level that was measured"
        against = seen.rate / self._search.wanted(self.target)
        # Earlier copies make a step up look better at first: when it looks bad nevertheless, it is.
        slack = seen.slack(before)
        at_most = against * (1 + slack)
        hopeless = self.target > self.base and at_most < (1.0 if self.window.is_whole else 1 - tuning.CLEAR)
        clear = hopeless or (abs(against - 1) > tuning.CLEAR + slack and self._is_clean(1, tuning.TRIAL_S))
        if not clear and not self._is_clean(2, tuning.TRIAL_S):
            return None
        self._remember(seen, now)
        words = went(before, seen, self.base, self.target)
        self._lost_s += max(0.0, 1 - seen.ratio(before)) * (now - self._search_at)
        self._search_at = now
        if self._search.is_strange(self.target, seen.rate, slack):
            words = f"{words}, which is not the number's doing: back to {self.base}"
            return self._hold(now, self.base, before, words, probe_s=self.settings.probe_s)
        if self._search.judge(self.target, seen.rate, slack):
            words += taken_from(before, seen)
            self.base, self.reference = self.target, seen
        return self._next_trial(sample, now, seen, words)

    def _hold(
        self, now: float, level: int, seen: Seen | None, words: str, *, probe_s: float | None = None
    ) -> Adjustment | None:
        self.phase, self.base, self.reference, self._odd = Phase.HOLD, level, seen, 0
        self.probe_at = now + (self.probe_wait_s if probe_s is None else probe_s)
        return self._go(level, now, words, seen, always=True)

    def _judge_hold(self, sample: Sample, now: float) -> Adjustment | None:
        seen, usual = self.window.seen(), self.reference
        self.window = Window()
        self._remember(seen, now)
        if self.target >= sample.highest and not self._look_down:
            # Nothing that can be won: all that is allowed runs and has done no harm.
            self.reference = seen
            return None
        if usual is None:
            self.reference = seen
            if self._look_down and self.target > sample.lowest:
                return self._descend(sample, now, seen, f"goodput is {rate_text(seen.rate)} with {self.target}")
            return None
        # Small files move fewer bytes in the same time, which is nobody's fault.
        ratio = seen.ratio(usual) / min(1.0, seen.size / usual.size if usual.size and seen.size else 1.0)
        slack = seen.slack(usual)
        ratio *= 1 + slack
        fell, rose = ratio < tuning.FALL_TWICE, seen.ratio(usual) * (1 - slack) > tuning.RISE_TWICE
        self._odd = min(self._odd, 0) - 1 if fell else max(self._odd, 0) + 1 if rose else 0
        if ratio < tuning.FALL_SURE or self._odd <= -tuning.ODD_MAX:
            return self._fallen(sample, now, seen, usual)
        if self._odd >= tuning.ODD_MAX:
            return self._risen(sample, now, seen, usual)
        if not self._odd:
            self.reference = usual.blend(seen, tuning.HOLD_SMOOTHING)
            if now >= self.probe_at:
                words = f"goodput is {rate_text(self.reference.rate)} with {self.base}, a look at its neighbours"
                return self._seek(sample, now, max(1, self.base // 16), words, {})
        return None

    def _fallen(self, sample: Sample, now: float, seen: Seen, usual: Seen) -> Adjustment | None:
        """Goodput is down and the number active is not."""
        self.levels.forget(self.size.decade or 0)
        self._usual = max(self.target, self._usual or 0)
        self.probe_wait_s, self._patience_s = max(self.probe_wait_s, self._patience_s), 0.0
        words = f"goodput fell from {rate_text(usual.rate)} to {rate_text(seen.rate)} with {self.target} all the time"
        if (elsewhere := bottleneck(usual, seen)) is not None or self.target <= sample.lowest:
            return self._hold(
                now, self.target, seen, f"{words}, {elsewhere or 'the least allowed'}: keep {self.target}"
            )
        return self._descend(sample, now, seen, words)

    def _descend(self, sample: Sample, now: float, seen: Seen, words: str) -> Adjustment | None:
        self.phase, self.base, self.reference, self._look_down = Phase.DESCEND, self.target, seen, False
        self._doubtful = True
        after = max(sample.lowest, self.target // 2)
        return self._go(after, now, f"{words}: try {after}", seen)

    def _risen(self, sample: Sample, now: float, seen: Seen, usual: Seen) -> Adjustment | None:
        """Goodput is up and the number active is not."""
        self.levels.forget(self.size.decade or 0)
        self.probe_wait_s, self._usual = self.settings.probe_s, None
        words = f"goodput rose from {rate_text(usual.rate)} to {rate_text(seen.rate)} with {self.target} all the time"
        self.phase, self._first, self._path = Phase.RAMP, False, {self.target: seen.rate}
        cap = self.ceiling.cap(sample.highest, now)
        if self.target >= cap or not sample.waiting:
            return self._hold(now, self.target, seen, f"{words}: {self._cap_words(sample, now)}")
        after = min(2 * self.target, cap)
        self.base, self.reference = self.target, seen
        return self._go(after, now, f"{words}: try {after}", seen)

    def _go(self, after: int, now: float, reason: str, seen: Seen | None, *, always: bool = False) -> Adjustment | None:
        before, self.target, self._drained = self.target, after, Window()
        self.restart()
        if after == before and not always:
            return None
        numbers = {"goodput_bytes_s": seen.rate, "active": seen.active} if seen is not None else {}
        return Adjustment(place=self.place, at=now, before=before, after=after, reason=reason, numbers=numbers)
