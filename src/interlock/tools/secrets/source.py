"""Where the credentials of an installation are kept: the port that each such place implements."""

from __future__ import annotations

from typing import Protocol


class SecretSource(Protocol):
    """Gives a secret to whoever is about to use it; never called inside a transaction.

    Both methods raise `InputError` for what is no reference, or none that can be kept there, and
    `UnavailableError` if there is no such secret or it cannot be read now.
    """

    @property
    def place(self) -> str:
        """Say where they are kept, as in "credentials are kept in ..."."""
        ...

    def resolve(self, reference: str) -> str:
        """Return a secret as it is now."""
        ...

    def accepted(self, reference: str) -> tuple[str, ...]:
        """Return a secret, and the one before while that still counts: for what others signed."""
        ...
