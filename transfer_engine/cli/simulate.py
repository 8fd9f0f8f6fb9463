"""`simulate`: run a scenario and tell what came out."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import Stop, put, say, size
from transfer_engine.simulation import scenario as scenarios
from transfer_engine.simulation.run import Build, OnSample, real_engine, simulate

if TYPE_CHECKING:
    from transfer_engine.simulation.fairness import Index
    from transfer_engine.simulation.result import Result


BASELINES: Final = {name: f"benchmarks.baselines:{name}" for name in ("fifo", "fts3", "fts3_forgetful")}
"""Short names of schedulers to compare with; they come with the source only."""


def run(
    path: Path,
    *,
    policy: str,
    seed: int | None,
    json_path: Path | None,
    plot_path: Path | None,
    trace_path: Path | None,
) -> Exit:
    """Run the scenario in a file and print its figures.

    Args: policy: `fair` (the engine), `fifo`, `fts3`, or `MODULE:NAME` of a `simulation.run.Build`.
    Returns: OK; SOME_FAILED when transfers failed; TIMED_OUT when work was left at its end.
    Raises: Stop, Invalid: the scenario has mistakes, or a file cannot be written.
    """
    scenario, build = scenarios.load(path), policy_named(policy)
    if plot_path is not None:
        _need_matplotlib()
    for target in (json_path, plot_path, trace_path):
        if target is not None and not target.absolute().parent.is_dir():
            raise Stop(f"{target}: its directory does not exist", Exit.USAGE)
    for hint in scenario.hints():
        say(hint)
    if trace_path:
        result = _traced(scenario, seed, build, trace_path)
    else:
        result = simulate(scenario, seed=seed, build=build, on_sample=_progress())
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[K")
    _show(result)
    if json_path is not None:
        _write(json_path, json.dumps(result.as_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    if plot_path is not None:
        from transfer_engine.simulation.plot import plot

        plot(result, plot_path)
    if not result.complete:
        return Exit.TIMED_OUT
    return Exit.SOME_FAILED if result.n_failed else Exit.OK


def policy_named(name: str) -> Build:
    """The scheduler of that name. Raises: Stop: there is none."""
    if name == "fair":
        return real_engine
    module_name, colon, attribute = BASELINES.get(name, name).partition(":")
    if not colon:
        known = ", ".join(("fair", *BASELINES))
        raise Stop(f"--policy {name}: expected {known}, or MODULE:NAME", Exit.USAGE)
    # As `python -m` does: what lies in the current directory can be named.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        build = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        why = f"--policy {name}: there is no module {error.name}"
        if name in BASELINES:
            why += "; it comes with the source: run this where `benchmarks/` is"
        raise Stop(why, Exit.USAGE) from error
    except AttributeError as error:
        raise Stop(f"--policy {name}: {error}", Exit.USAGE) from error
    if not callable(build):
        raise Stop(f"--policy {name}: it cannot be called; expected a function that makes a scheduler", Exit.USAGE)
    return cast("Build", build)


def _need_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise Stop("--plot needs matplotlib: pip install 'transfer-engine[plot]'", Exit.USAGE)


def _progress() -> OnSample | None:
    """Shows how far a run is, on a terminal."""
    if not sys.stderr.isatty():
        return None

    def show(now: float, n_files: int, n_finished: int) -> None:
        sys.stderr.write(f"\r\x1b[K{_span(now)}, {n_finished} of {n_files} files\r")
        sys.stderr.flush()

    return show


def _traced(scenario: scenarios.Scenario, seed: int | None, build: Build, path: Path) -> Result:
    try:
        with path.open("w", encoding="utf-8") as file:
            return simulate(
                scenario,
                seed=seed,
                build=build,
                on_trace=lambda line: print(line, end="", file=file),
                on_sample=_progress(),
            )
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}") from error


def _show(result: Result) -> None:
    """The figures, one a line; then waits and links."""
    oracle, fairness, over = result.oracle, result.fairness, result.over_bound
    rows = [
        ("scenario", f"{result.scenario}, seed {result.seed}"),
        ("transfers", f"{result.n_files} in {result.n_jobs} jobs, {size(result.n_bytes)}"),
        ("finished", f"{result.n_finished}, {result.n_failed} failed" + ("" if result.complete else ", work is left")),
        ("simulated", f"{_span(result.ended_s)} in {result.cpu_s:.1f} s of CPU, {result.n_files / result.cpu_s:.0f}/s"),
        ("makespan", _span(result.makespan_s) + ("" if over is None else f", {over:.3f} times the bound")),
        ("lower bound", f"{_span(result.bound_s)}, by {result.bound.due_to}"),
        ("goodput", f"{size(sum(oracle.link_bytes.values()) / max(result.makespan_s, 1e-9))}/s"),
        ("limits exceeded by", str(max(oracle.overshoot, 0))),
        ("fairness of VOs", _index(fairness.vos)),
        ("of activities", _index(fairness.activities)),
        ("of VOs in bytes", _index(fairness.vo_bytes)),
        ("off the share", f"{fairness.deviation:.1f} transfers at most"),
        ("trace", oracle.hash()),
    ]
    for name, text in rows:
        put(f"{name:<19} {text}")
    put("")
    put(f"{'VO / activity':<40} {'files':>9} {'wait p50':>10} {'p95':>10} {'longest':>10}")
    for name, waits in result.waits.items():
        spans = (_span(waits.percentile(0.5)), _span(waits.percentile(0.95)), _span(waits.longest_s))
        put(f"{name[:40]:<40} {waits.n:>9} {spans[0]:>10} {spans[1]:>10} {spans[2]:>10}")
    put("")
    put(f"{'capacity':<40} {'used':>9}")
    for name, part in sorted(result.utilisation.items(), key=lambda row: (-row[1], row[0]))[:12]:
        put(f"{name[:40]:<40} {part:>9.1%}")


def _index(index: Index) -> str:
    if not index.n_windows:
        return "nobody competed for a whole window"
    text = f"Jain {index.lowest:.4f} at the lowest, {index.mean:.4f} on average, {index.n_windows} windows"
    return text + (f" (lowest: {index.worst})" if index.worst else "")


def _span(seconds: float) -> str:
    if seconds < 100:  # noqa: PLR2004 - two digits before the point
        return f"{seconds:.2f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02} h" if hours else f"{rest // 60}:{rest % 60:02} min"
