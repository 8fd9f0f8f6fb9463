"""Ids that clients compute for themselves."""

from __future__ import annotations

import uuid
from typing import Final

BASE_ID: Final = uuid.UUID("01874efb-4735-4595-bc9c-591aef8240c9")
"""Namespace of FTS3's ids for VOs and deterministic jobs."""


def vo_id(vo: str) -> uuid.UUID:
    """FTS3's id of a VO, the namespace of its deterministic job ids."""
    return uuid.uuid5(BASE_ID, vo)
