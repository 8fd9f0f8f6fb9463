"""Pictures for docs/scheduling.md; needs matplotlib (the extra `plot`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from benchmarks.scheduling_report import names, of

POLICIES: Final = {"ours": "transfer-engine", "fifo": "first come, first served", "fts3": "FTS3"}
COLOURS: Final = {"ours": "#1b7837", "fifo": "#9970ab", "fts3": "#e08214"}
OVER_MAX: Final = 2.0
"""Bars end there; their number is written beside them."""
SHARED: Final = ("greedy-vo", "many-vos", "elephants-mice")
DEAD: Final = "dead-destination"


def draw(results: dict[str, Any], directory: Path) -> None:
    """Draw whatever the results have figures for."""
    _save(directory / "makespan.png", _makespans(results))
    _save(directory / "shares.png", _shares(results))
    _save(directory / "dead.png", _dead(results))
    _save(directory / "optimizer.png", _optimizer(results))


def _figure(rows: int, columns: int, width: float, height: float, **more: Any) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra: the tables do without it

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **more).flat)


def _save(path: Path, figure: Any) -> None:
    if figure is not None:
        # No version in it: equal results give equal files.
        figure.savefig(path, dpi=110, metadata={"Software": None})


def _makespans(results: dict[str, Any]) -> Any:
    shown = [name for name in names(results) if (of(results, name) or {}).get("over_bound")]
    if not shown:
        return None
    figure, (axes,) = _figure(1, 1, 9, 1.2 + 0.42 * len(shown))
    for offset, (policy, label) in zip((-0.27, 0.0, 0.27), POLICIES.items(), strict=True):
        values = [(of(results, name, policy) or {}).get("over_bound") or 0 for name in shown]
        places = [index + offset for index in range(len(shown))]
        axes.barh(places, [min(v, OVER_MAX) for v in values], 0.25, color=COLOURS[policy], label=label)
        for place, value in zip(places, values, strict=True):
            if value > OVER_MAX:
                axes.text(OVER_MAX, place, f" {value:.2f}", va="center", fontsize="x-small")
    axes.set_yticks(range(len(shown)), shown)
    axes.set_xlim(0.95, OVER_MAX + 0.1)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.axvline(1.05, color="black", linewidth=0.5, linestyle=":")
    axes.set_xlabel("makespan over its lower bound (dotted: 1.05)")
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.legend(fontsize="small", loc="upper right")
    return figure


def _shares(results: dict[str, Any]) -> Any:
    shown = [name for name in SHARED if of(results, name)]
    if not shown:
        return None
    figure, every = _figure(len(shown), len(POLICIES), 12, 2.6 * len(shown), sharey="row")
    for index, axes in enumerate(every):
        name, policy = shown[index // len(POLICIES)], list(POLICIES)[index % len(POLICIES)]
        row = of(results, name, policy)
        if row is None:
            continue
        series = row["series"]
        slots = {vo: values for vo, values in series["slots"].items() if any(values)}
        n = min((len(values) for values in slots.values()), default=0)
        hours = [at / 3600 for at in series["at_s"][:n]]
        totals = [max(sum(column), 1e-9) for column in zip(*(values[:n] for values in slots.values()), strict=True)]
        parts = [[v / t for v, t in zip(values, totals, strict=False)] for values in slots.values()]
        axes.stackplot(hours, parts, labels=list(slots), linewidth=0)
        axes.set_ylim(0, 1)
        axes.set_title(f"{name}: {POLICIES[policy]}", fontsize="small", loc="left")
        axes.set_xlabel("hours", fontsize="small")
        if index % len(POLICIES) == 0:
            axes.set_ylabel("part of the slots held")
            axes.legend(fontsize="xx-small", ncols=2, loc="lower left")
    return figure


def _dead(results: dict[str, Any]) -> Any:
    rows = {policy: of(results, DEAD, policy) for policy in POLICIES}
    alive = of(results, f"{DEAD}-alive")
    if alive is None or not all(rows.values()):
        return None
    figure, (axes,) = _figure(1, 1, 9, 3.2)
    _lines(axes, alive["series"], label="nothing dead", color="black", linestyle=":")
    for policy, row in rows.items():
        assert row is not None
        _lines(axes, row["series"], label=POLICIES[policy], color=COLOURS[policy])
    axes.axvline(5, color="black", linewidth=0.5)
    axes.set_title("one of 13 storages dies at minute 5", fontsize="small", loc="left")
    axes.set_xlabel("minutes")
    axes.set_ylabel("goodput in all, GB/s")
    axes.legend(frameon=False, fontsize="small")
    return figure


def _lines(axes: Any, series: dict[str, Any], **more: Any) -> None:
    goodput = series["goodput_bytes_s"]
    axes.plot([at / 60 for at in series["at_s"][: len(goodput)]], [value / 1e9 for value in goodput], **more)


def _optimizer(results: dict[str, Any]) -> Any:
    shown = list(results["optimizer"].items())
    if not shown:
        return None
    rows = (len(shown) + 1) // 2
    figure, every = _figure(rows, 2, 11, 2.4 * rows)
    for axes in every[len(shown) :]:
        axes.set_visible(False)
    for axes, (name, row) in zip(every, shown, strict=False):
        _points(axes, row["best_points"], label=f"fixed at {row['best_limits'][0]}", color="black", linewidth=0.8)
        _points(axes, row["points"], label=POLICIES["ours"], color=COLOURS["ours"])
        axes.set_title(name, fontsize="small", loc="left")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize="x-small", loc="lower right")
        axes.set_xlabel("minutes", fontsize="small")
        axes.set_ylabel("MB/s", fontsize="small")
    return figure


def _points(axes: Any, points: Iterable[tuple[float, float]], **more: Any) -> None:
    rows = list(points)
    axes.plot([at / 60 for at, _ in rows], [value / 1e6 for _, value in rows], **more)
