"""The tables of `benchmarks.scheduling`, and which targets are missed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

BEGIN: Final = "<!-- tables: python -m benchmarks.scheduling -->"
END: Final = "<!-- end of tables -->"
HEALTHY_MAX: Final = 1.05
FAULTY_MAX: Final = 1.15
JAIN_MIN: Final = 0.99
OTHERS_MIN: Final = 0.98
OPTIMIZER_S: Final = 60.0
STEADY_MIN: Final = 0.97
WAIT_MAX_S: Final = 3600.0
"""Longest that the lowest priority may wait under constant load of the highest."""
NEARLY: Final = 1.005
"""Makespans that differ by less count as equal: the last file decides by chance."""
DECISIONS_MIN: Final = 20_000
DEAD: Final = ("dead-destination", "dead-destination-alive", "site01")

Row = dict[str, Any]
Results = dict[str, Any]


def text(results: Results) -> str:
    """All tables as Markdown, which reads well on a terminal too."""
    parts = [_makespans(results), _fairness(results), _single(results), _optimizer(results), _decisions(results)]
    return "\n".join(part for part in parts if part)


def of(results: Results, name: str, policy: str = "ours") -> Row | None:
    """One run, if it is there."""
    return results["runs"].get(f"{name} / {policy}")


def names(results: Results) -> list[str]:
    """Scenarios that ran."""
    return sorted({row["scenario"] for row in results["runs"].values()}, key=_natural)


def _natural(name: str) -> tuple[str, int]:
    head, _, tail = name.rpartition("-")
    return (head, int(tail)) if tail.isdigit() and head == "random" else (name, 0)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = "| " + " | ".join("-" * max(w, 3) for w in widths) + " |"
    return "\n".join([shown[0], rule, *shown[1:]]) + "\n"


def _makespans(results: Results) -> str:
    rows = []
    for name in names(results):
        ours = of(results, name)
        if ours is None:
            continue
        cells = [name + (" (faults)" if ours["faults"] else "")]
        cells += [_makespan(of(results, name, policy)) for policy in ("ours", "fifo", "fts3")]
        cells += [f"{ours['bound_s']:.0f} s, {ours['due_to']}"]
        cells += [_overshoots(results, name), f"{ours['files'] / max(ours['cpu_s'], 0.01):.0f}"]
        rows.append(cells)
    header = (
        "scenario", "makespan / bound: ours", "FIFO", "FTS3", "bound, due to", "overshoot: ours, FIFO, FTS3", "files/s",
    )  # fmt: skip
    return "### Makespan and limits\n\n" + _table(header, rows)


def _makespan(row: Row | None) -> str:
    if row is None:
        return "-"
    over = row["over_bound"]
    shown = f"{row['bytes'] / 1e12:.2f} TB" if over is None else f"{over:.3f}"
    return shown + (f", {row['failed']} failed" if row["failed"] else "")


def _overshoots(results: Results, name: str) -> str:
    rows = [of(results, name, policy) for policy in ("ours", "fifo", "fts3")]
    return ", ".join("-" if row is None else str(row["overshoot"]) for row in rows)


def _fairness(results: Results) -> str:
    rows = []
    for name in names(results):
        found = [of(results, name, policy) for policy in ("ours", "fifo", "fts3")]
        ours = found[0]
        if ours is None or not (ours["vos"]["n"] or ours["activities"]["n"]):
            continue
        cells = [name]
        cells += [_jain(row, "vos") for row in found]
        cells += [_jain(row, "activities") for row in found]
        cells += [", ".join("-" if r is None else f"{r['deviation']:g}" for r in found), str(ours["deviation_allowed"])]
        rows.append(cells)
    header = (
        "scenario", "Jain of VOs: ours", "FIFO", "FTS3", "of activities: ours", "FIFO", "FTS3",
        "deviation: ours, FIFO, FTS3", "allowed",
    )  # fmt: skip
    return "### Shares: the lowest window\n\n" + _table(header, rows) if rows else ""


def _jain(row: Row | None, kind: str) -> str:
    return "-" if row is None or not row[kind]["n"] else f"{row[kind]['lowest']:.4f}"


def _single(results: Results) -> str:
    rows = []
    parts = [others_part(results, policy) for policy in ("ours", "fifo", "fts3")]
    if parts[0] is not None:
        cells = ["-" if part is None else f"{part:.1%}" for part in parts]
        rows.append(["throughput of the others while 1 of 13 storages is dead", *cells])
    for name in names(results):
        found = [of(results, name, policy) for policy in ("ours", "fifo", "fts3")]
        if found[0] is not None and found[0]["low_priority"]:
            rows.append([f"longest wait of the lowest priority ({name})", *(_low(row) for row in found)])
    return "### One figure each\n\n" + _table(("figure", "ours", "FIFO", "FTS3"), rows) if rows else ""


def _low(row: Row | None) -> str:
    if row is None or not row["low_priority"]:
        return "-"
    low = row["low_priority"]
    return f"{low['longest_s']:.0f} s" + (f", {low['never']} never began" if low["never"] else "")


def others_part(results: Results, policy: str) -> float | None:
    """Bytes on links without the dead storage, over what they had while it was alive."""
    moved = []
    for name in DEAD[:2]:
        row = of(results, name, policy)
        if row is None:
            return None
        moved.append(sum(n for link, n in row["links"].items() if DEAD[2] not in link.split(" > ")))
    return moved[0] / moved[1]


def _optimizer(results: Results) -> str:
    rows = []
    for name, row in results["optimizer"].items():
        recovered = ", ".join(_seconds(value) for value in row["recovered_s"])
        held = ", ".join(f"{value:.1%}" for value in row["held"])
        limits = ", ".join(map(str, row["best_limits"]))
        cells = [name, limits, f"{row['best_bytes_s'][0] / 1e6:.0f} MB/s", _seconds(row["time_to_90_s"])]
        rows.append([*cells, f"{row['steady']:.1%}", recovered or "-", held or "-"])
    header = (
        "scenario",
        "best fixed limit, by phase",
        "its goodput",
        "time to 90 %",
        "steady",
        "after changes",
        "then held",
    )
    return "### Optimizer against the best fixed limit\n\n" + _table(header, rows) if rows else ""


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} s"


def _decisions(results: Results) -> str:
    """Started transfers per second of one core, of the slowest case, and by what binds."""
    rows = []
    for row in results["decisions"]:
        cases = ", ".join(f"{name} {case['us']:.0f}" for name, case in row["cases"].items())
        rows.append([f"{row['n_queued']:,}", f"{row['n_links']:,}", f"{row['per_s']:,.0f}", cases])
    header = ("queued", "links", "decisions/s, slowest case", "microseconds per decision, by what binds")
    return "### Pure scheduler\n\n" + _table(header, rows) if rows else ""


def missed(results: Results) -> list[str]:
    """One line for each target that is not met."""
    found: list[str] = []
    for name in names(results):
        row = of(results, name)
        if row is not None:
            found += (f"{name}: {why}" for why in _missed_by(results, row))
    part = others_part(results, "ours")
    if part is not None and part < OTHERS_MIN:
        found.append(f"others keep {part:.1%} while one storage is dead, less than {OTHERS_MIN:.0%}")
    for name, row in results["optimizer"].items():
        found += (f"{name}: {why}" for why in _missed_by_optimizer(row))
    found += [
        f"{row['per_s']:.0f} decisions/s with {row['n_queued']} queued"
        for row in results["decisions"]
        if row["per_s"] < DECISIONS_MIN
    ]
    return found


def _missed_by(results: Results, row: Row) -> Iterable[str]:
    limit = FAULTY_MAX if row["faults"] else HEALTHY_MAX
    if row["over_bound"] is not None and row["over_bound"] > limit:
        yield f"makespan {row['over_bound']:.3f} times the bound, more than {limit}"
    for policy in ("fifo", "fts3"):
        other = of(results, row["scenario"], policy)
        if other is not None and _is_worse(row, other):
            yield f"worse than {policy}: {_makespan(row)} against {_makespan(other)}"
    for kind in ("vos", "activities"):
        if row[kind]["lowest"] < JAIN_MIN:
            yield f"Jain of {kind} {row[kind]['lowest']:.4f} at {row[kind]['worst']}"
    if row["deviation_allowed"] is not None and row["deviation"] > row["deviation_allowed"]:
        yield f"off the share by {row['deviation']:.1f} transfers, more than {row['deviation_allowed']}"
    if row["overshoot"]:
        yield f"a limit was exceeded by {row['overshoot']}"
    low = row["low_priority"]
    if low and (low["never"] or low["longest_s"] > WAIT_MAX_S):
        yield f"the lowest priority waited {_low(row)}"


def _is_worse(row: Row, other: Row) -> bool:
    """Slower, or for runs that are cut: less moved; only where both did the same work."""
    if row["over_bound"] is None or other["over_bound"] is None:
        return bool(row["bytes"] * NEARLY < other["bytes"])
    return bool(row["failed"] == other["failed"] and row["makespan_s"] > other["makespan_s"] * NEARLY)


def _missed_by_optimizer(row: Row) -> Iterable[str]:
    for what, value in (("90 %", row["time_to_90_s"]), *(("recovery", value) for value in row["recovered_s"])):
        if value is None or value > OPTIMIZER_S:
            yield f"{what} after {_seconds(value)}"
    if row["steady"] < STEADY_MIN:
        yield f"steady goodput {row['steady']:.1%} of the best fixed limit's"
    for value in row["held"]:
        if value < STEADY_MIN:
            yield f"goodput a minute after a change and later {value:.1%} of the best fixed limit's"
