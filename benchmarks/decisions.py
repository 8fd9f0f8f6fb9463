"""Decisions per second of the pure scheduler."""

from __future__ import annotations

from typing import Any


def decisions(*, quick: bool = False) -> list[dict[str, Any]]:
    """Rows of `links`, `queued`, `decisions_s`; no rows until there is a scheduler that can be measured apart.

    Args: quick: few links and a short queue only.
    """
    del quick
    return []
