"""Which adapter speaks to a URL."""

from __future__ import annotations

import asyncio

import pytest

from protocols.errors import Unsupported
from protocols.file import FileAdapter
from protocols.http import HttpAdapter
from protocols.registry import Registry, load_plugins
from protocols.scripted import ScriptedAdapter


def test_by_scheme_in_any_case():
    http, local, scripted = HttpAdapter(), FileAdapter(), ScriptedAdapter(schemes=("sim", "mock"))
    registry = Registry([http, local, scripted])
    assert registry.adapter_for("DAVS://h/x") is registry.adapter_for("http://h/x") is http
    assert registry.adapter_for("file:///x") is local
    assert registry.adapter_for("mock://h/x") is scripted
    assert registry.schemes == {"http", "https", "dav", "davs", "file", "sim", "mock"}


@pytest.mark.parametrize("url", ["gsiftp://h/x", "h/x", "", "file:x"])
def test_an_unknown_scheme_names_the_known_ones(url):
    with pytest.raises(Unsupported, match="known: file, sim"):
        Registry([FileAdapter(), ScriptedAdapter()]).adapter_for(url)


def test_a_scheme_has_one_adapter():
    with pytest.raises(ValueError, match="'sim'"):
        Registry([ScriptedAdapter(), ScriptedAdapter()])


def test_a_plug_in_that_is_not_installed():
    with pytest.raises(LookupError, match="'srm'"):
        load_plugins(["srm"])
    assert load_plugins([]) == []


def test_closing_closes_all_of_them():
    closed: list[str] = []

    class Closing(ScriptedAdapter):
        async def aclose(self) -> None:
            closed.append(min(self.schemes))
            if "bad" in self.schemes:
                raise OSError("stuck")

    async def main() -> None:
        async with Registry([Closing(schemes=("bad",)), Closing(schemes=("good",))]):
            pass

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    assert closed == ["bad", "good"]
