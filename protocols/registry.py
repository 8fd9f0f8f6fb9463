"""Which adapter speaks to a URL: an explicit table from scheme to adapter.

Nothing registers itself on import. Plug-ins of other packages are loaded by name, on request only,
from the entry-point group `transfer_engine.adapters`; each entry point is a callable without
arguments that returns an `Adapter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Final, Self

from protocols.api import Adapter
from protocols.errors import Phase, Scope, Unsupported

ENTRY_POINT_GROUP: Final = "transfer_engine.adapters"


def load_plugins(names: Iterable[str], group: str = ENTRY_POINT_GROUP) -> list[Adapter]:
    """One adapter per entry point named in `names`; LookupError names what is installed instead."""
    installed = {point.name: point for point in entry_points(group=group)}
    adapters: list[Adapter] = []
    for name in names:
        if name not in installed:
            msg = f"no adapter plug-in {name!r}; installed: {', '.join(sorted(installed)) or 'none'}"
            raise LookupError(msg)
        factory: Callable[[], Adapter] = installed[name].load()
        adapters.append(factory())
    return adapters


class Registry:
    """A fixed table scheme → adapter; it owns the adapters and closes them."""

    def __init__(self, adapters: Iterable[Adapter]) -> None:
        """ValueError when two adapters claim one scheme."""
        self._adapters = tuple(adapters)
        self._by_scheme: dict[str, Adapter] = {}
        for adapter in self._adapters:
            for scheme in adapter.schemes:
                if scheme in self._by_scheme:
                    msg = f"two adapters claim the scheme {scheme!r}"
                    raise ValueError(msg)
                self._by_scheme[scheme] = adapter

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """All of them, in the order given."""
        return self._adapters

    @property
    def schemes(self) -> frozenset[str]:
        """Every scheme that some adapter takes."""
        return frozenset(self._by_scheme)

    def adapter_for(self, url: str) -> Adapter:
        """The adapter for the scheme of `url`; Unsupported names the known schemes."""
        scheme, separator, _ = url.partition("://")
        adapter = self._by_scheme.get(scheme.lower()) if separator else None
        if adapter is None:
            named = f"scheme {scheme.lower()!r}" if separator else "URL without a scheme"
            raise Unsupported(
                f"{named} is not supported, known: {', '.join(sorted(self._by_scheme))}",
                scope=Scope.AGENT,
                phase=Phase.PREPARATION,
                hint="use a URL with one of these schemes, or install a plug-in for it",
            )
        return adapter

    async def aclose(self) -> None:
        """Close every adapter, also when one of them fails to."""
        failures: list[Exception] = []
        for adapter in self._adapters:
            try:
                await adapter.aclose()
            except (OSError, RuntimeError) as failure:
                failures.append(failure)
        if failures:
            msg = "closing adapters"
            raise ExceptionGroup(msg, failures)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
