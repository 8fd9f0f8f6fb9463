"""What can go wrong between a user and the engine. Each has one HTTP status in the job service."""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Anything that the engine refuses or cannot do; `status` is its HTTP status."""

    status: ClassVar[int] = 500


class Invalid(EngineError):
    """The request is wrong; `field` says where and the message what was expected."""

    status = 400

    def __init__(self, message: str, *, field: str | None = None) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}" if field else message)


class Forbidden(EngineError):
    """Not allowed for this caller."""

    status = 403


class Banned(Forbidden):
    """An operator has banned the storage or the user; the message says who, since when and why."""


class NotFound(EngineError):
    """No such job or transfer."""

    status = 404


class Conflict(EngineError):
    """It clashes with what is there already (an id that was used before)."""

    status = 409


class StoreUnavailable(EngineError):
    """The store cannot answer now: nothing was changed, ask again later."""

    status = 503


class IssuerUnavailable(EngineError):
    """The keys of a token issuer cannot be had now, so its tokens can be neither believed nor refused."""

    status = 503

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class StoreLocked(EngineError):
    """Another engine owns this database."""

    status = 503


class IllegalTransition(EngineError):
    """A state change that the table does not know: a bug in the engine, never a user's fault."""

    def __init__(self, state: str, event: str) -> None:
        self.state = state
        self.event = event
        super().__init__(f"no transition from {state} on {event}")
