"""A picture of a run; needs matplotlib (the extra `plot`)."""

from __future__ import annotations

from pathlib import Path

from transfer_engine.simulation.result import Result

LINES_MAX = 12
"""Figures drawn by name in one panel, the largest; the rest is added up."""


def plot(result: Result, path: Path) -> None:
    """Draw goodput, running, waiting and shares over time into a file; its suffix says the format."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra: everything else here does without it
    from matplotlib.figure import Figure  # noqa: PLC0415

    series, hours = result.series, [at / 3600 for at in result.series.at_s]
    panels = (
        ("goodput by destination, GB/s", _goodput(result), 1e-9),
        ("running, by destination", {n: series.values("active_in", n) for n in series.names("active_in")}, 1.0),
        ("waiting, by VO / activity", {n: series.values("waiting", n) for n in series.names("waiting")}, 1.0),
        (
            "slots held, by VO / activity",
            {n: series.rates("service_slots", n) for n in series.names("service_slots")},
            1.0,
        ),
    )
    # Equal runs give equal files: no date, no version.
    with mpl.rc_context({"svg.hashsalt": "transfer-engine"}):
        figure = Figure(figsize=(11, 12), layout="constrained")
        for axes, (title, rows, scale) in zip(figure.subplots(len(panels), 1, sharex=True), panels, strict=True):
            names, values = _largest(rows)
            if names:
                axes.stackplot(hours, [[v * scale for v in row] for row in values], labels=names, linewidth=0)
                axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False)
            axes.set_title(title, loc="left", fontsize="medium")
            axes.set_ylim(bottom=0)
        axes.set_xlabel("hours")
        over = "" if result.over_bound is None else f", makespan {result.over_bound:.3f} times the bound"
        figure.suptitle(f"{result.scenario}, seed {result.seed}{over}")
        figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None)


def _goodput(result: Result) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for link in result.series.names("goodput_bytes_s"):
        rates = result.series.rates("goodput_bytes_s", link)
        destination = link.partition(" > ")[2]
        before = found.get(destination)
        found[destination] = rates if before is None else [a + b for a, b in zip(before, rates, strict=True)]
    return found


def _largest(rows: dict[str, list[float]]) -> tuple[list[str], list[list[float]]]:
    names = sorted(rows, key=lambda name: (-sum(rows[name]), name))
    shown, rest = names[:LINES_MAX], names[LINES_MAX:]
    values = [rows[name] for name in shown]
    if rest:
        shown = [*shown, f"{len(rest)} others"]
        values.append([sum(column) for column in zip(*(rows[name] for name in rest), strict=True)])
    return shown, values
