"""Which messages an event is worth, and where they go. Pure.

A start and a completion for each transfer that has its turn, and for every change of a state one that
says so. An attempt that will be repeated has no completion: receivers take its `Error` for the end.
VERIFYING is no change to whoever receives, and a cancellation is one when it is ordered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from transfer_engine.config_service import MessageSettings
from transfer_engine.messages import documents
from transfer_engine.messages.documents import Author, Story
from transfer_engine.states import FileState, JobState

BODY_MAX: Final = 1024 * 1024
"""Longest message, in bytes: brokers close the connection at longer ones, again and again."""
EOT: Final = " "
"""FTS3 ends each message with it; receivers strip it."""

_OVER: Final = frozenset({FileState.FINISHED, FileState.FAILED, FileState.CANCELED})


class TooLongError(Exception):
    """A message that no broker would take; its user attached too much."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to be sent."""

    destination: str
    body: bytes
    vo: str


class Letters:
    """Makes the messages of events."""

    def __init__(self, *, settings: MessageSettings, author: Author) -> None:
        self._to = settings
        self._author = author

    def of_change(self, story: Story) -> list[Letter]:
        """The messages of a transfer's change, in order. Raises: TooLongError."""
        return [letter for letter in self._of_change(story) if letter.destination]

    def of_acceptance(self, story: Story) -> list[Letter]:
        """The messages of a transfer that was accepted with its job. Raises: TooLongError."""
        letter = self._letter(self._to.state, story, documents.first_state(story, self._author))
        return [letter] if letter.destination else []

    def _of_change(self, story: Story) -> Iterator[Letter]:
        author, detail, state = self._author, story.event.detail, story.state
        if state is FileState.VERIFYING:
            return
        if state is FileState.ACTIVE:
            yield self._letter(self._to.start, story, documents.start(story, author))
        if not detail.shown:
            document = documents.state(story, author, job_state=_job_state(story))
            yield self._letter(self._to.state, story, document)
        if state in _OVER and not detail.unused:
            yield self._letter(self._to.complete, story, documents.completion(story, author))

    @staticmethod
    def _letter(destination: str, story: Story, document: dict[str, Any]) -> Letter:
        body = (json.dumps(document, separators=(",", ":"), ensure_ascii=False) + EOT).encode("utf-8", "replace")
        if len(body) > BODY_MAX:
            msg = f"{len(body)} bytes are more than {BODY_MAX}"
            raise TooLongError(msg)
        return Letter(destination, body, story.job.vo)


def _job_state(story: Story) -> str:
    """The job's state with the change: it is over when its last transfer is, and not sooner."""
    if story.event.detail.job is not None:
        return story.event.detail.job
    return (JobState.SUBMITTED if story.job.state is JobState.SUBMITTED else JobState.ACTIVE).value
