"""`cp`: an engine for one command, nothing left afterwards."""

from __future__ import annotations

from typing import Any, Final

from protocols import checksum as checksums
from protocols.registry import Registry
from transfer_engine.cli.copyrun import CopyRun
from transfer_engine.cli.dryrun import show_plan
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import stop
from transfer_engine.cli.plan import CopyOptions, Planner, check, pairs_of
from transfer_engine.config import Settings, load
from transfer_engine.wiring import TransferEngine, credential_source, storages

PATIENCE: Final[dict[str, dict[str, float]]] = {"retry": {"delay_s": 2.0}, "transfer": {"probe_max_s": 120.0}}
"""A person waits for this command: defaults that are shorter than the service's, by section."""


def settings_of(options: CopyOptions) -> Settings:
    """Settings from file, environment and these options."""
    tls: dict[str, Any] = {}
    if options.ca is not None:
        tls["ca"] = options.ca
    if options.token_file is not None:
        tls["token_file"] = options.token_file
    if options.insecure:
        tls["verify"] = False
    n = options.parallel
    limits = {"node": n, "link": n, "endpoint_inbound": n, "endpoint_outbound": n, "streamed": n}
    # So many at a time as the user has said, from the first moment on.
    flags = {"tls": tls, "limits": limits, "optimizer": {"enabled": False}, "database": "sqlite://"}
    settings = load(options.config, flags)
    update: dict[str, Any] = {}
    for name, defaults in PATIENCE.items():
        section = getattr(settings, name)
        unset = {key: value for key, value in defaults.items() if key not in section.model_fields_set}
        update[name] = section.model_copy(update=unset)
    if options.checksum and not options.expected_checksum:
        try:
            algorithm = checksums.algorithm_name(options.checksum)
        except ValueError as error:
            stop(f"--checksum: {error}", Exit.USAGE)
        update["transfer"] = update["transfer"].model_copy(update={"checksum": algorithm, "require_checksum": True})
    return settings.model_copy(update=update)


async def copy(source: str | None, destination: str | None, options: CopyOptions) -> Exit:
    """Run the command."""
    check(source, destination, options)
    settings = settings_of(options)
    adapters = storages(settings, local=True)
    registry = Registry(adapters)
    planner = Planner(registry.adapter_for, credential_source(settings.tls))
    if options.dry_run:
        async with registry:
            found = [pair async for pair in pairs_of(planner, source, destination, options)]
            if not found:
                stop("nothing to copy", Exit.NOT_FOUND)
            return await show_plan(planner, found, overwrite=options.overwrite, as_json=options.as_json)
    async with TransferEngine(settings=settings, adapters=adapters) as engine:
        run = CopyRun(engine, pairs_of(planner, source, destination, options), options, settings.transfer.quarantine_s)
        return await run.to_end()
