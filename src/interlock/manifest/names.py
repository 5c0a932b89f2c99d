"""The names that a project declares, for references that must lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from interlock.domain.errors import Problem, did_you_mean
from interlock.manifest.files import Document, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Declared names by kind (`Tool`, `team`, `label` ...), those of broken files included.

    So one broken file does not make every reference to it look broken too.
    """

    known: Mapping[str, AbstractSet[str]]

    def missing(self, document: Document, place: Place, kind: str, name: str) -> Iterator[Problem]:
        """Yield the problem that nothing of this kind and name exists, if so."""
        if name not in self.known[kind]:
            message = f"there is no {kind.lower()} `{name}`"
            yield document.problem(place, message, self.near(kind, name))

    def near(self, kind: str, name: str) -> str | None:
        """Return the fix that offers the nearest name; without any, the first few there are."""
        known = sorted(self.known[kind])
        fallback = f"known are {', '.join(known[:8])}" if known else f"declare a {kind.lower()}"
        return did_you_mean(name, known) or fallback
