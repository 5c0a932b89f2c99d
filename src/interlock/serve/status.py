"""Which HTTP status an error has, for REST and pages alike."""

from __future__ import annotations

from typing import Final

from interlock.domain.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    IntakeFullError,
    InterlockError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)

_STATUS: Final[tuple[tuple[type[InterlockError], int], ...]] = (
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (InputError, 400),
    (IntakeFullError, 429),
    (UnavailableError, 503),
)


def status_of(error: InterlockError) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
