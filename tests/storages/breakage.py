"""What a fault proxy can do to a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """Close both connections after so many bytes of the body (of a PUT's upload, else of the answer)."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Stop relaying the body after so many bytes and keep the connection, until `FaultProxy.release`."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Flip every bit of the body's byte at `offset`."""

    offset: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Do not ask the storage, answer this; `Busy` is the usual one."""

    status: int
    reason: str = "Injected"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"injected fault\n"


def Busy(retry_after_s: int | None = None, status: int = 503) -> Answer:  # noqa: N802 - reads like the other faults
    """An overloaded storage, with `Retry-After` when given."""
    after = () if retry_after_s is None else (("Retry-After", str(retry_after_s)),)
    return Answer(status, "Busy", after)


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait before anything is relayed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Take the request and never answer, without asking the storage."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Redirect to the very same URL."""

    status: int = 307


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Let the storage do everything, then close without a word of its answer.

    `keep_head` relays status line and headers first.
    """

    keep_head: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the connection instead of answering, without asking the storage."""


Fault = Cut | Stall | Corrupt | Answer | Delay | Hang | Loop | LoseAnswer | Reset
