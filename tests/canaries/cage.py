"""Canaries: secrets that are used once, and are found wherever they come out again, in whatever form."""

from __future__ import annotations

import base64
import html
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus

PART_MIN: Final = 24
"""So many characters of a secret are as good as found."""

FORMS: Final[dict[str, Callable[[str], Iterable[str]]]] = {
    "plain": lambda text: [text],
    "lines": lambda text: [line for line in text.splitlines() if len(line) >= PART_MIN and "-----" not in line],
    "url": lambda text: [quote(text), quote(text, safe=""), quote_plus(text)],
    "json": lambda text: [json.dumps(text)[1:-1], json.dumps(json.dumps(text)[1:-1])[1:-1]],
    "html": lambda text: [html.escape(text)],
    "hex": lambda text: [text.encode().hex(), text.encode().hex().upper()],
    # Wherever it begins in what was encoded; the first and the last characters depend on what is beside it.
    "base64": lambda text: [
        encode(b"\0" * shift + text.encode()).decode()[4 if shift else 0 :].rstrip("=")[:-1]
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
        for shift in range(3)
    ],
    "repr": lambda text: [repr(text)[1:-1]],
}
_BEGUN: Final = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.")


def spellings(text: str) -> Iterator[tuple[str, bytes]]:
    """(form, bytes) of everything that stands for a secret; of a long one, its beginning, middle and end as well."""
    for form, spelt in FORMS.items():
        for whole in spelt(text):
            yield form, whole.encode()
    if "\n" in text:
        return
    body = text
    if match := _BEGUN.match(text):
        # Tokens begin with what is in all of them: how they are signed, and by whom.
        yield "claims", match[1].encode()
        body = text[match.end() :]
    if len(body) >= 2 * PART_MIN:
        middle = len(body) // 2
        for part in (body[:PART_MIN], body[middle : middle + PART_MIN], body[-PART_MIN:]):
            yield "part", part.encode()


@dataclass(frozen=True)
class Sighting:
    """A canary where it must not be."""

    name: str
    form: str
    place: str
    around: str


@dataclass
class Cage:
    """The canaries of a test. `known`: name → value; `exempt`: name → places in which it may be."""

    known: dict[str, str] = field(default_factory=dict)
    exempt: dict[str, frozenset[str]] = field(default_factory=dict)

    def keep(self, name: str, value: str, *, but: Iterable[str] = ()) -> str:
        """A secret that was made elsewhere. Args: but: places where it is meant to be."""
        if value not in self.known.values():
            if name in self.known:
                name = f"{name} {len(self.known)}"
            self.known[name] = value
            self.exempt[name] = frozenset(but)
        return value

    def lay(self, name: str, *, but: Iterable[str] = ()) -> str:
        """A new secret."""
        return self.keep(name, f"canary-{secrets.token_hex(16)}", but=but)

    def search(self, place: str, content: bytes | str) -> list[Sighting]:
        """Every canary in it that must not be there."""
        raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
        found = []
        for name, value in self.known.items():
            if place in self.exempt[name]:
                continue
            for form, spelt in spellings(value):
                at = raw.find(spelt)
                if at >= 0:
                    around = raw[max(at - 120, 0) : at + len(spelt[:40])].decode("utf-8", "replace")
                    found.append(Sighting(name, form, place, around))
                    break
        return found
