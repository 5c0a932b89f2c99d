"""Circuit breakers: when a server that fails is called no more, for how long, and what closes them.

Closed: calls are sent. Open: they wait. Half-open: the time is over, and one call probes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interlock.domain.effect import Reply, Transport
from interlock.domain.ids import EffectId
from interlock.domain.tool import Server

FAILURES_IN_A_ROW = 5
LAST_CALLS = 20
"""Half of so many last calls that failed open a breaker too."""

LONGEST = 10
"""How many times as long as at first a breaker is open at most."""

TOPIC = "breaker/"

_TOO_MANY = 429
_SERVER_ERRORS = range(500, 600)

State = Literal["open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A breaker that is not closed: since when, until when, how often in a row, why, by whom.

    `probe` is the one call that may be sent, and counts as lost from `probe_until_us` on. Times are
    microseconds by database time.
    """

    server: str
    opened_us: int
    until_us: int
    openings: int
    reason: str
    by: str
    probe: EffectId | None = None
    probe_until_us: int | None = None

    def state_at(self, now_us: int) -> State:
        """Return whether calls wait for the time to pass, or for what one call finds."""
        return "open" if now_us < self.until_us else "half_open"

    def held_until_us(self, now_us: int) -> int | None:
        """Return until when no call may be sent; None if the next one may, as the probe."""
        if now_us < self.until_us:
            return self.until_us
        is_probing = self.probe is not None and now_us < (self.probe_until_us or 0)
        return self.probe_until_us if is_probing else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How the last calls of a server went, oldest first; True is a failure."""

    last: tuple[bool, ...] = ()

    def add(self, *, is_failure: bool) -> Tally:
        """Return the tally with one more call."""
        return Tally(last=(*self.last, is_failure)[-LAST_CALLS:])

    @property
    def is_bad(self) -> bool:
        """Whether the breaker is to open.

        >>> Tally(last=(True,) * 5).is_bad, Tally(last=(True,) * 4).is_bad
        (True, False)
        >>> Tally(last=(True, False) * 10).is_bad, Tally(last=(True, False) * 9).is_bad
        (True, False)
        """
        row = self.last[-FAILURES_IN_A_ROW:]
        is_row = len(row) == FAILURES_IN_A_ROW and all(row)
        return is_row or sum(self.last) * 2 >= LAST_CALLS


def topic_of(server: str) -> str:
    """Return what a run waits for that waits for a server; it is the reason of the run too."""
    return f"{TOPIC}{server}"


def is_failure(reply: Reply) -> bool | None:
    """Return whether a reply speaks against its server; None if the server was not asked.

    A server that cannot be reached, does not answer, answers 5xx or asks to be left alone (429)
    failed. One that answers anything else works, also if it refuses the call or breaks a contract.
    """
    match reply.transport:
        case Transport.NOT_SENT:
            return True if reply.is_unreachable else None
        case Transport.UNKNOWN:
            return True
        case Transport.REPLY:
            return reply.status == _TOO_MANY or reply.status in _SERVER_ERRORS


def why(reply: Reply) -> str:
    """Say how a call failed, in no words of the outside."""
    if reply.transport is Transport.REPLY:
        return f"it answered {reply.status}"
    return "it could not be reached" if reply.is_unreachable else "it did not answer"


def open_us(server: Server, openings: int, *, retry_after_s: float | None) -> int:
    """Return how long a breaker stays open the n-th time in a row, at least the upstream's hint.

    >>> desk = Server(name="desk-dev", system="desk", environment="dev", kind="python")
    >>> [open_us(desk, n, retry_after_s=None) // 1_000_000 for n in (1, 2, 3, 4, 5, 9)]
    [30, 60, 120, 240, 300, 300]
    >>> open_us(desk, 1, retry_after_s=90.0) // 1_000_000
    90
    """
    times = min(1 << min(openings - 1, LONGEST), LONGEST)
    return round(max(server.breaker_open_s * times, retry_after_s or 0.0) * 1_000_000)
