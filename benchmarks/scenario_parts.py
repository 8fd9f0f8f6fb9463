"""What scenarios are written with."""

from __future__ import annotations

from typing import Any

GB = 1_000_000_000
MB = 1_000_000
HOUR = 3600


def storage(bytes_s: int, **more: Any) -> dict[str, Any]:
    """An endpoint as fast in as out."""
    return {"in_bytes_s": bytes_s, "out_bytes_s": bytes_s, "latency_s": 0.02, "overhead_s": 0.2, **more}


def work(name: str, arrivals: dict[str, Any], n_bytes: int, sources: list[str], destinations: list[str], **more: Any):
    """A stream; its VO has its name unless another one is given."""
    return {
        "name": name,
        "vo": more.pop("vo", name),
        **more,
        "arrivals": arrivals,
        "size": more.pop("size", None) or {"kind": "fixed", "bytes": n_bytes},
        "route": {"sources": sources, "destinations": destinations},
    }


def at_once(files: int, at_s: float = 0) -> dict[str, Any]:
    """All of them at one instant."""
    return {"kind": "at-once", "files": files, "at_s": at_s}


def rate(files: int, start_h: float, window_h: float, batch: int = 1, spread: str = "even") -> dict[str, Any]:
    """So many files spread over a window."""
    span = {"from_s": start_h * HOUR, "to_s": (start_h + window_h) * HOUR}
    return {"kind": "rate", "files": files, **span, "batch": batch, "spread": spread}


def scenario(name: str, description: str, **parts: Any) -> dict[str, Any]:
    """All of it constructed."""
    return {"name": name, "description": description, "provenance": {"all": "constructed"}, "seed": 1, **parts}
