"""The checks that every connector passes: `CHECKS`, each with a name, a sentence and a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from interlock.testing.connectors import calls, faults
from interlock.testing.connectors.outside import Outside

_NO_WIRE = "its server is not reached by an `http` URL: nothing can be put in between"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise of a connector. `is_of_wire` if it needs a wire that can be made to fail."""

    name: str
    sentence: str
    function: Callable[[Outside], Awaitable[None]]
    is_of_wire: bool

    def __str__(self) -> str:
        return self.name

    async def run(self, outside: Outside) -> str | None:
        """Raise `AssertionError` if the promise is broken; return why it cannot apply, or None."""
        reason = outside.cannot.get(self.name)
        is_http = (outside.server.url or "").startswith("http")
        if reason is None and self.is_of_wire and not is_http:
            reason = _NO_WIRE
        if reason is None:
            await self.function(outside)
        return reason


def _check(function: Callable[[Outside], Awaitable[None]], *, is_of_wire: bool) -> Check:
    # INVARIANT: every check has a docstring; it is the sentence that is shown.
    assert function.__doc__ is not None
    return Check(
        name=function.__name__.replace("_", "-"),
        sentence=function.__doc__.splitlines()[0],
        function=function,
        is_of_wire=is_of_wire,
    )


CHECKS: tuple[Check, ...] = (
    *(_check(function, is_of_wire=False) for function in calls.CHECKS),
    *(_check(function, is_of_wire=True) for function in faults.CHECKS),
)
"""All checks, in the order in which they are best read."""
