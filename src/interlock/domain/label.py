"""Labels: what the data that a run has read obliges it to; they are only ever raised."""

from __future__ import annotations

from dataclasses import dataclass

UNDECLARED = "undeclared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Marks of a run: sensitivity names, tenants whose data it read, whether any was untrusted."""

    names: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    is_untrusted: bool = False

    def join(self, other: Labels) -> Labels:
        """Return the union; nothing is ever lowered.

        >>> Labels(names=frozenset({"pii"})).join(Labels(is_untrusted=True)).is_untrusted
        True
        """
        return Labels(
            names=self.names | other.names,
            tenants=self.tenants | other.tenants,
            is_untrusted=self.is_untrusted or other.is_untrusted,
        )
