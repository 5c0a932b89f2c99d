"""How states, times, spans of time and money read: always text with an icon and a tone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from interlock.domain import switch
from interlock.domain.clock import from_us
from interlock.runtime.outside.session import END_TOPIC

Tone = Literal["ok", "run", "wait", "bad", "idle", "undo"]


@dataclass(frozen=True, slots=True)
class Status:
    """A state as it is shown; `icon` is a name of `icons.html`."""

    text: str
    icon: str
    tone: Tone


# Of runs, steps, effects, decisions and approvals; one word means one thing everywhere.
_STATUS: Final[Mapping[str, Status]] = {
    "queued": Status("Queued", "clock", "idle"),
    "running": Status("Running", "play", "run"),
    "waiting": Status("Waiting", "pause", "wait"),
    "compensating": Status("Undoing", "undo", "undo"),
    "paused": Status("Paused", "pause", "idle"),
    "dead_lettered": Status("Dead-lettered", "cross", "bad"),
    "succeeded": Status("Succeeded", "check", "ok"),
    "failed": Status("Failed", "cross", "bad"),
    "cancelled": Status("Cancelled", "slash", "idle"),
    "done": Status("Done", "check", "ok"),
    "skipped": Status("Skipped", "slash", "idle"),
    "to_come": Status("To come", "circle", "idle"),
    "not_reached": Status("Not reached", "slash", "idle"),
    "open": Status("Open", "play", "run"),
    "ok": Status("Done", "check", "ok"),
    "error": Status("Failed", "cross", "bad"),
    "proposed": Status("Proposed", "circle", "idle"),
    "authorized": Status("Authorized", "play", "run"),
    "denied": Status("Denied", "shield", "bad"),
    "drafted": Status("Draft only", "draft", "idle"),
    "intent": Status("In flight", "play", "run"),
    "failed_definite": Status("Failed, nothing done", "cross", "bad"),
    "ambiguous": Status("Outcome unknown", "question", "wait"),
    "probing": Status("Looking it up", "question", "wait"),
    "parked": Status("Parked for a person", "question", "bad"),
    "confirmed_done": Status("Confirmed done", "check", "ok"),
    "confirmed_absent": Status("Confirmed absent", "slash", "idle"),
    "abandoned": Status("Abandoned", "slash", "idle"),
    "compensated": Status("Undone", "undo", "undo"),
    "undone": Status("Undone", "undo", "undo"),
    "planned": Status("Planned", "circle", "idle"),
    "not_made": Status("Not made", "slash", "idle"),
    "refused": Status("Refused", "shield", "bad"),
    "asked": Status("Awaiting answer", "person", "wait"),
    "ended": Status("Ended", "check", "idle"),
    "when_known": Status("Decided when known", "clock", "idle"),
    "allow": Status("Allowed", "check", "ok"),
    "needs_approval": Status("Needs approval", "person", "wait"),
    "draft": Status("Draft only", "draft", "idle"),
    "deny": Status("Denied", "shield", "bad"),
    "pending": Status("Awaiting answer", "person", "wait"),
    "approved": Status("Approved", "check", "ok"),
    "rejected": Status("Rejected", "cross", "bad"),
    "expired": Status("Expired", "clock", "bad"),
    "void": Status("Void", "slash", "idle"),
}

_SECOND_US = 1_000_000
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_RISKS: Final = ("no risk", "low risk", "medium risk", "high risk")


def status(state: str) -> Status:
    """Return how a state is shown; an unknown word is shown as it is."""
    return _STATUS.get(state) or Status(state.replace("_", " "), "circle", "idle")


def risk(level: int) -> str:
    """Return a tool's risk in words."""
    return _RISKS[max(0, min(level, len(_RISKS) - 1))]


def duration(length_us: int) -> str:
    """Return a span of time with the two units that matter.

    >>> [duration(us) for us in (0, 450, 12_000, 3_240_000, 34_000_000)]
    ['0 s', '< 1 ms', '12 ms', '3.2 s', '34 s']
    >>> [duration(us) for us in (245_000_000, 8_100_000_000)]
    ['4 min 05 s', '2 h 15 min']
    """
    if length_us == 0:
        return "0 s"
    if length_us < _SECOND_US:
        return f"{length_us // 1000} ms" if length_us >= 1000 else "< 1 ms"  # noqa: PLR2004  # us
    seconds = length_us // _SECOND_US
    if seconds < _MINUTE_S:
        return f"{length_us / _SECOND_US:.1f} s" if seconds < 10 else f"{seconds} s"  # noqa: PLR2004
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S} min {seconds % _MINUTE_S:02} s"
    if seconds < _DAY_S:
        return f"{seconds // _HOUR_S} h {seconds % _HOUR_S // _MINUTE_S:02} min"
    return f"{seconds // _DAY_S} d {seconds % _DAY_S // _HOUR_S} h"


def about(length_us: int) -> str:
    """Return a span of time with its largest unit, for "... ago" and "... left".

    >>> [about(us) for us in (900_000, 59_000_000, 5_400_000_000, 200_000_000_000)]
    ['1 s', '59 s', '90 min', '2 d']
    """
    seconds = max(1, round(length_us / _SECOND_US))
    for unit, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= 2 * unit:
            return f"{round(seconds / unit)} {name}"
    return f"{seconds} s"


def awaited(topic: str) -> str:
    """Return what a run waits for, for people.

    >>> awaited("session/end"), awaited("refund/answer")
    ('its agent, until the session ends', 'refund/answer')
    >>> awaited("kill/01a2")
    'an operator to lift a kill switch'
    """
    if topic == END_TOPIC:
        return "its agent, until the session ends"
    return "an operator to lift a kill switch" if topic.startswith(switch.TOPIC) else topic


def tick(length_us: int) -> str:
    """Return a time on an axis, without parts that are nought.

    >>> [tick(us) for us in (0, 200_000, 1_500_000, 120_000_000, 757_000_000)]
    ['0', '200 ms', '1.5 s', '2 min', '12:37']
    """
    seconds, rest_us = divmod(length_us, _SECOND_US)
    if length_us == 0:
        return "0"
    if seconds < _MINUTE_S:
        return f"{length_us / _SECOND_US:g} s" if seconds else f"{length_us / 1000:g} ms"
    if rest_us == 0 and seconds % _HOUR_S == 0:
        return f"{seconds // _HOUR_S} h"
    if rest_us == 0 and seconds % _MINUTE_S == 0:
        return f"{seconds // _MINUTE_S} min"
    hours, minutes = divmod(seconds // _MINUTE_S, 60)
    clock = f"{minutes:02}:{seconds % _MINUTE_S:02}"
    return f"{hours}:{clock}" if hours else clock.removeprefix("0")


def moment(at_us: int) -> str:
    """Return a time to the second, in UTC.

    >>> moment(0)
    '1970-01-01 00:00:00 UTC'
    """
    return f"{from_us(at_us):%Y-%m-%d %H:%M:%S} UTC"


def money(micro_usd: int) -> str:
    """Return an amount of micro-USD in dollars, never rounded to nothing.

    >>> [money(amount) for amount in (0, 12, 4_250, 1_500_000)]
    ['$0', '$0.000012', '$0.0043', '$1.50']
    """
    if micro_usd == 0:
        return "$0"
    dollars = micro_usd / 1_000_000
    if dollars < 0.001:  # noqa: PLR2004  # below, four decimals would show almost nothing
        return f"${dollars:.6f}"
    return f"${dollars:.4f}" if dollars < 1 else f"${dollars:,.2f}"


def short(text: str) -> str:
    """Return the end of an id, which tells ids of one moment apart; the whole is in its title.

    >>> short("018f2c5e-0000-7000-8000-00000000abcd")
    '0000abcd'
    """
    return text[-8:]
