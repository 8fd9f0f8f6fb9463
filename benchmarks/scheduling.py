"""How well the scheduler schedules: the engine, first come first served, and FTS3, on every scenario.

    python -m benchmarks.scheduling [--quick] [--only NAME ...] [--json OUT] [--markdown OUT] [--plots DIRECTORY]

Without `--only` all scenarios but the huge ones (`HUGE`) run, with `--all` those too; `--quick` takes those
that are done in about two minutes altogether. `--from FILE` takes what is in an earlier `--json` and runs only
what is missing there, so that a long report can be made in pieces: `--markdown` and `--plots` then show all of
it. The table of `docs/scheduling.md` is written by

    python -m benchmarks.scheduling --all --json RESULTS.json --markdown docs/scheduling.md --plots docs/scheduling

Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final

from benchmarks import optimizer, scheduling_plots, scheduling_report
from benchmarks.decisions import QUEUED, decisions
from benchmarks.scheduling_runs import SCENARIOS, run
from benchmarks.storage_scenarios import SCENARIOS as OPTIMIZED

POLICIES: Final = ("ours", "fifo", "fts3")
HUGE: Final = ("fdr-10", "lhc-day", "whole-stock")
BY_NAME: Final = ("fdr-100",)
"""66 million files: with `--only` alone."""
LONG: Final = ("fdr",)
QUICK: Final = (
    "healthy", "greedy-vo", "elephants-mice", "shared-pipe", "flapping-link", "dead-destination",
    "dead-destination-alive", "weights-100-1", "priorities", "narrow-source", "full-storage", "random-1", "random-4",
    "random-101",
)  # fmt: skip
OPTIMIZED_QUICK: Final = ("disk-4", "capacity-drop", "busy")

Results = dict[str, Any]


def main() -> int:
    """Run and report."""
    options = _options()
    results: Results = {"runs": {}, "static": {}, "optimizer": {}, "decisions": []}
    if options.earlier is not None:
        results |= json.loads(options.earlier.read_text("utf-8"))
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        _run_all(pool, results, _scenarios(options), lambda: _keep(options.json, results))
        _optimize_all(pool, results, _optimized(options), quick=options.quick)
    if not options.only:
        counts = QUEUED[:1] + QUEUED[3:4] if options.quick else QUEUED
        results["decisions"] = [decisions(n, seconds=0.5 if options.quick else 2.0) for n in counts]
    _keep(options.json, results)
    text = scheduling_report.text(results)
    print(text)
    if options.markdown is not None:
        _replace_table(options.markdown, text)
    if options.plots is not None:
        options.plots.mkdir(parents=True, exist_ok=True)
        scheduling_plots.draw(results, options.plots)
    missed = scheduling_report.missed(results)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scheduling", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the small ones, in about two minutes")
    parser.add_argument("--all", action="store_true", help="the huge ones as well")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="scenarios by name, or files")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the tables there, between its markers")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw there; needs matplotlib")
    parser.add_argument("--from", dest="earlier", type=Path, metavar="FILE", help="an earlier --json")
    return parser.parse_args()


def _scenarios(options: argparse.Namespace) -> list[str]:
    if options.only:
        return [name for name in options.only if name not in OPTIMIZED]
    if options.quick:
        return list(QUICK)
    names = [path.stem for path in sorted(SCENARIOS.glob("*.json")) if path.stem not in OPTIMIZED]
    longest = [name for name in (*HUGE, *LONG) if options.all or name not in HUGE]
    return longest + [name for name in names if name not in (*HUGE, *BY_NAME, *longest)]


def _optimized(options: argparse.Namespace) -> list[str]:
    if options.only:
        return [name for name in options.only if name in OPTIMIZED]
    return list(OPTIMIZED_QUICK if options.quick else OPTIMIZED)


def _run_all(pool: ProcessPoolExecutor, results: Results, names: Iterable[str], keep: Callable[[], None]) -> None:
    """Every scenario by every policy."""
    waiting: dict[Future[Any], str] = {}
    for name in names:
        for policy in POLICIES:
            key = f"{name} / {policy}"
            if key not in results["runs"]:
                waiting[pool.submit(run, name, policy)] = key
    for future in as_completed(waiting):
        row = results["runs"][waiting[future]] = future.result()
        _say(f"{waiting[future]}: {row['cpu_s']:.0f} s of CPU")
        keep()


def _optimize_all(pool: ProcessPoolExecutor, results: Results, names: list[str], *, quick: bool) -> None:
    """The engine and every fixed limit on the optimizer's scenarios."""
    names = [name for name in names if name not in results["optimizer"]]
    limits = optimizer.STATIC_QUICK if quick else optimizer.STATIC
    fixed = {(name, n): pool.submit(optimizer.static, name, n) for name in names for n in limits}
    found = {name: pool.submit(optimizer.ours, name) for name in names}
    for name in names:
        by_limit = {n: fixed[name, n].result() for n in limits}
        results["optimizer"][name] = optimizer.figures(name, by_limit, found[name].result())
        _say(f"{name}: {len(limits)} fixed limits")


def _keep(path: Path | None, results: Results) -> None:
    if path is not None:
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")


def _replace_table(path: Path, text: str) -> None:
    """Between the markers of an existing file, or a new file."""
    before, after = "", ""
    if path.exists():
        before, begin, rest = path.read_text("utf-8").partition(scheduling_report.BEGIN)
        _, end, after = rest.partition(scheduling_report.END)
        if not begin or not end:
            raise SystemExit(f"{path}: expected {scheduling_report.BEGIN} and {scheduling_report.END}")
    path.write_text(f"{before}{scheduling_report.BEGIN}\n\n{text}\n{scheduling_report.END}{after or chr(10)}", "utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
