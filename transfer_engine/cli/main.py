"""The commands and their options; the work is imported by the command that does it."""

from __future__ import annotations

import enum
import io
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from transfer_engine.cli import token
from transfer_engine.cli.exits import Exit, epilog
from transfer_engine.cli.output import Stop, say

app = typer.Typer(
    help="Move files between storages: HTTP third-party copies, verified, with retries.",
    epilog=epilog(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(token.app, name="token")

SERVICE_DEFAULT = "http://127.0.0.1:8446"


class Mode(enum.StrEnum):
    """How the bytes travel."""

    AUTO = "auto"
    PULL = "pull"
    PUSH = "push"
    STREAM = "stream"


ServiceUrl = Annotated[
    str, typer.Option("--service", envvar="TRANSFER_ENGINE_SERVICE_URL", help="URL of the job service.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML); `init` writes one.")]
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Storage, scheme://host without a port.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Job ids.")]


def run(work: Coroutine[Any, Any, Exit]) -> None:
    """Run a command's coroutine on uvloop and leave with its exit code."""
    import uvloop

    raise typer.Exit(uvloop.run(work))


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"transfer-engine {version('transfer-engine')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""


@app.command()
def cp(
    source: Annotated[str | None, typer.Argument(metavar="SRC", help="URL or local path.")] = None,
    destination: Annotated[
        str | None, typer.Argument(metavar="DST", help="URL or local path; a directory gets the name of SRC.")
    ] = None,
    from_file: Annotated[
        str | None, typer.Option("--from-file", help="List with one SRC DST pair a line; - for standard input.")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="SRC is a directory: copy all below it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace destinations that exist.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    checksum: Annotated[
        str | None, typer.Option("--checksum", help="ALGORITHM:HEX of the source, or ALGORITHM to compare.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option("--mode", help="How bytes travel; auto: pull, else push, else stream.")
    ] = Mode.AUTO,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=1000, help="Files at a time.")] = 20,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=1, help="Longest time for one copy, seconds.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option("--retries", min=0, max=1000, help="Attempts beyond the first.")
    ] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="Trusted CAs: bundle file or hashed directory.")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with a bearer token.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept any server certificate.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing unless something fails.")] = False,
    config: Config = None,
) -> None:
    """Copy files between storages, or between a storage and this machine. No server is needed."""
    from transfer_engine.cli import copy
    from transfer_engine.cli.plan import CopyOptions

    options = CopyOptions(
        overwrite=overwrite,
        recursive=recursive,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        checksum=checksum,
        mode=mode.value,
        parallel=parallel,
        timeout_s=timeout,
        retries=retries,
        from_file=from_file,
        config=config,
        ca=ca,
        token_file=token_file,
        insecure=insecure,
    )
    run(copy.copy(source, destination, options))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port; 0: any free one.")] = None,
    database: Annotated[str | None, typer.Option("--database", help="sqlite:///PATH")] = None,
    config: Config = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="On loopback only: whoever is on this machine may do everything.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log more.")] = False,
) -> None:
    """Run the job service (FTS3 REST dialect)."""
    from transfer_engine.cli import serve as serving

    service = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    flags: dict[str, Any] = {"service": service} if service else {}
    if no_auth:
        flags["auth"] = {"loopback": "admin"}
    if database is not None:
        flags["database"] = database
    run(serving.serve(config, flags, verbose=verbose))


@app.command()
def submit(
    source: Annotated[str | None, typer.Argument(metavar="SRC")] = None,
    destination: Annotated[str | None, typer.Argument(metavar="DST")] = None,
    service: ServiceUrl = SERVICE_DEFAULT,
    from_file: Annotated[
        str | None, typer.Option("--from-file", help="List with one SRC DST pair a line; - for standard input.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace destinations that exist.")] = False,
    checksum: Annotated[str | None, typer.Option("--checksum", help="ALGORITHM:HEX of the source (one file).")] = None,
    priority: Annotated[int | None, typer.Option("--priority", min=1, max=5, help="1 (last) to 5 (first).")] = None,
    activity: Annotated[
        str | None, typer.Option("--activity", help="What it is for; shares are between these.")
    ] = None,
    retry: Annotated[int | None, typer.Option("--retry", min=0, max=1000, help="Attempts beyond the first.")] = None,
    metadata: Annotated[str | None, typer.Option("--metadata", help="JSON value kept with the job.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the jobs have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit transfers to a job service; prints the job ids, one a line."""
    from transfer_engine.cli import client, lists

    if (source is None) != (destination is None) or (source is None) == (from_file is None):
        raise Stop("expected SRC DST, or --from-file LIST", Exit.USAGE)
    if checksum is not None and from_file is not None:
        raise Stop("--checksum is for one file, not for a list", Exit.USAGE)
    pairs = lists.one_pair(source or "", destination or "") if from_file is None else lists.read_pairs(from_file)
    options = client.SubmitOptions(
        overwrite=overwrite,
        checksum=checksum,
        priority=priority,
        activity=activity,
        retry=retry,
        metadata=metadata,
    )
    run(client.submit(service, pairs, options, as_json=as_json, wait=wait))


@app.command()
def status(ids: Ids, service: ServiceUrl = SERVICE_DEFAULT, as_json: AsJson = False) -> None:
    """Show jobs, and why their transfers failed or wait."""
    from transfer_engine.cli import client

    run(client.status(service, ids, as_json=as_json))


@app.command(name="list")
def list_(
    service: ServiceUrl = SERVICE_DEFAULT,
    state: Annotated[str | None, typer.Option("--state", help="Only jobs in these states, comma-separated.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, max=500, help="The newest N, also ended ones.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the unfinished jobs of a service."""
    from transfer_engine.cli import client

    run(client.list_jobs(service, states=state, limit=limit, as_json=as_json))


@app.command()
def wait(
    ids: Ids,
    service: ServiceUrl = SERVICE_DEFAULT,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="Longest wait, seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until jobs have ended; the exit code says how."""
    from transfer_engine.cli import client

    run(client.wait_for(service, ids, timeout_s=timeout, as_json=as_json))


@app.command()
def cancel(ids: Ids, service: ServiceUrl = SERVICE_DEFAULT, as_json: AsJson = False) -> None:
    """Cancel jobs; what they left half-written is removed."""
    from transfer_engine.cli import client

    run(client.cancel(service, ids, as_json=as_json))


@app.command()
def explain(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="ID|LINK|ENDPOINT",
            help="Job id, file id, JOB/FILE; a link as SRC DST or SRC,DST; a storage, scheme://host.",
        ),
    ],
    service: ServiceUrl = SERVICE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say why something does not move, where it stands and when it will."""
    from transfer_engine.cli import explain as explaining

    run(explaining.explain(service, what, as_json=as_json))


@app.command()
def ban(
    endpoint: Endpoint,
    service: ServiceUrl = SERVICE_DEFAULT,
    vo: Annotated[str | None, typer.Option("--vo", help="Only for this VO; else for everybody.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel what waits and runs there; else it waits.")] = False,
    allow_submit: Annotated[
        bool, typer.Option("--allow-submit", help="Take new transfers, which wait; else they are refused.")
    ] = False,
    for_: Annotated[str | None, typer.Option("--for", metavar="TIME", help="Ends by itself: 30m, 2h, 1d.")] = None,
    message: Annotated[str, typer.Option("--message", help="Why; whoever asks is told.")] = "",
    as_json: AsJson = False,
) -> None:
    """Ban a storage: nothing more is started that reads from it or writes to it."""
    from transfer_engine.cli import control

    options = control.BanOptions(vo=vo, cancel=cancel, allow_submit=allow_submit, lasts=for_, message=message)
    run(control.ban(service, endpoint, options, as_json=as_json))


@app.command()
def unban(
    endpoint: Endpoint,
    service: ServiceUrl = SERVICE_DEFAULT,
    vo: Annotated[str | None, typer.Option("--vo", help="The ban of this VO; else the one for everybody.")] = None,
) -> None:
    """Lift the ban of a storage."""
    from transfer_engine.cli import control

    run(control.unban(service, endpoint, vo=vo))


@app.command()
def bans(service: ServiceUrl = SERVICE_DEFAULT, as_json: AsJson = False) -> None:
    """List what is banned, by whom, since when and why."""
    from transfer_engine.cli import control

    run(control.bans(service, as_json=as_json))


@app.command()
def hold(ids: Ids, service: ServiceUrl = SERVICE_DEFAULT, as_json: AsJson = False) -> None:
    """Put jobs on hold: what waits of them waits until `resume`; what runs goes on."""
    from transfer_engine.cli import control

    run(control.hold(service, ids, held=True, as_json=as_json))


@app.command()
def resume(ids: Ids, service: ServiceUrl = SERVICE_DEFAULT, as_json: AsJson = False) -> None:
    """Let jobs go on that are on hold."""
    from transfer_engine.cli import control

    run(control.hold(service, ids, held=False, as_json=as_json))


@app.command()
def drain(
    service: ServiceUrl = SERVICE_DEFAULT,
    off: Annotated[bool, typer.Option("--off", help="Work again.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing runs any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let the service start nothing new, before maintenance; it stays so over a restart."""
    from transfer_engine.cli import control

    run(control.drain(service, on=not off, wait=wait, as_json=as_json))


@app.command()
def demo(
    seconds: Annotated[float | None, typer.Option("--seconds", min=1, help="Keep going for this long.")] = None,
    files: Annotated[int, typer.Option("--files", min=1, help="How many files to move.")] = 300,
    seed: Annotated[int, typer.Option("--seed", help="Another number is another run.")] = 1,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live table.")] = False,
) -> None:
    """Watch it work: model storages, the engine and the service on this machine, with some faults."""
    from transfer_engine.cli import demo as showing

    raise typer.Exit(showing.demo(seconds=seconds, files=files, seed=seed, plain=plain))


@app.command()
def simulate(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO.json", help="docs/scenarios.md explains the format.")],
    policy: Annotated[
        str, typer.Option("--policy", help="Who schedules: fair (the engine), fifo, fts3, or MODULE:NAME of your own.")
    ] = "fair",
    seed: Annotated[int | None, typer.Option("--seed", help="Another number is another run; else the file's.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write figures and time series there.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the run (.png, .svg, .pdf).")] = None,
    trace: Annotated[Path | None, typer.Option("--trace", help="Write a line for each event at the storages.")] = None,
) -> None:
    """See what would happen: the real engine on modelled storages and networks, in virtual time."""
    from transfer_engine.cli import simulate as simulating

    raise typer.Exit(
        simulating.run(scenario, policy=policy, seed=seed, json_path=json_out, plot_path=plot, trace_path=trace)
    )


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE")] = Path("transfer-engine.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented settings file."""
    from transfer_engine.cli import init as writing

    raise typer.Exit(writing.write(path, force=force))


def main() -> None:
    """Run the command line; what a user can mend is said in one line."""
    from transfer_engine.errors import EngineError, Invalid, StoreLocked, StoreUnavailable

    # A file's name is shown as well as the terminal can, never a reason to stop.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except Stop as error:
        say(error.message)
        sys.exit(error.code)
    except Invalid as error:
        say(str(error))
        sys.exit(Exit.USAGE)
    except (StoreLocked, StoreUnavailable) as error:
        say(str(error))
        sys.exit(Exit.TEMPORARY)
    except EngineError as error:
        say(str(error))
        sys.exit(Exit.ERROR)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
