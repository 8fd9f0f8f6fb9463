"""Every settings file in the documentation is one that is taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from transfer_engine.config import load

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [(page.name, text) for page in PAGES for text in BLOCK.findall(page.read_text("utf-8"))]


def test_there_are_some():
    assert {"README.md", "access.md"} <= {name for name, _ in BLOCKS}


@pytest.mark.parametrize(("page", "text"), BLOCKS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(BLOCKS)])
def test_it_is_taken(page: str, text: str, tmp_path: Path):
    (tmp_path / "te.toml").write_text(text)
    load(tmp_path / "te.toml")
