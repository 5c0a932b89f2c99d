"""What seats may do at all, and what a change of the project would let them do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from interlock.domain.approval import in_words
from interlock.domain.canonical import Json, JsonObject, canonical_text
from interlock.domain.decision import Facts, Outcome
from interlock.domain.errors import ContractError
from interlock.domain.pointer import escaped
from interlock.domain.record import object_to_json
from interlock.domain.release import Release
from interlock.domain.tool import ToolVersion
from interlock.policy.changes.rights import IsAsked, RightChange, Worlds, rights_changed
from interlock.policy.reach import CAN_BE_EXACT, Example, Way
from interlock.store import registry
from interlock.store.engine import Database
from interlock.store.registry import AppliedRelease
from interlock.tools.contract import Contract

ONE_AT_A_TIME = Lock()
"""The solver keeps one state for the process."""

_PATIENCE_S = 20.0
"""How long a comparison may search for calls; what is left then is told without them."""
_MOST_LINES = 40
_NOTHING = object_to_json(Facts())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What changes for seats, wider rights first."""

    changes: tuple[RightChange, ...]

    @property
    def is_wider(self) -> bool:
        """Whether a seat may do more than before, or nobody can tell that it may not."""
        return any(change.is_widening for change in self.changes)

    @property
    def is_wider_in_prod(self) -> bool:
        """Whether that is so in `prod`."""
        return any(change.is_widening and change.environment == "prod" for change in self.changes)

    def to_json(self) -> list[Json]:
        """Render for REST and programs."""
        return [
            object_to_json(change)
            | {
                "seat": str(change.seat),
                "is_exact": change.is_exact,
                "example": shown_example(change.example),
            }
            for change in self.changes
        ]

    def to_text(self) -> str:
        """Render for people, one change a line with its call below."""
        lines: list[str] = []
        for title, is_widening in (("Seats may do more", True), ("Seats may do less", False)):
            chosen = [change for change in self.changes if change.is_widening == is_widening]
            lines += ["", title] if chosen else []
            lines += [line for change in chosen[:_MOST_LINES] for line in _told(change)]
            if len(chosen) > _MOST_LINES:
                lines.append(f"  and {len(chosen) - _MOST_LINES} more; `--json` has them all")
        if any(not change.is_exact for change in self.changes):
            lines += ["", _WHY_PERHAPS if CAN_BE_EXACT else _WHY_NOT_EXACT]
        return "\n".join(lines)


_WHY_PERHAPS = "perhaps: no call was found that shows it, and none was ruled out"
_WHY_NOT_EXACT = "perhaps: install `interlock[verify]` for exact answers"


def compared(before: Worlds, after: Worlds) -> Rights:
    """Compare what seats may do by the policies of two releases."""
    until_s = time.monotonic() + _PATIENCE_S
    with ONE_AT_A_TIME:
        return _rights(before, after, until_s, lambda _world, _seat, _tool: True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastChange:
    """A release that changed what was asked about, and how."""

    release: AppliedRelease
    rights: Rights


def history(
    db: Database,
    worlds_of: Callable[[Release], Worlds],
    *,
    since_us: int,
    is_asked: IsAsked,
) -> list[PastChange]:
    """Return the releases since a moment that changed what is asked about, oldest first.

    Policies are read as they would be now: with the models of today's settings. The first release
    of all is not among them, since nothing was there before.
    """
    until_s = time.monotonic() + _PATIENCE_S
    with db.reading() as tx:
        applied = registry.list_releases(tx)
        recent = [release for release in applied if release.applied_us >= since_us]
        numbers = sorted({each.number for each in recent} | {each.number - 1 for each in recent})
        releases = {number: registry.get_release(tx, number) for number in numbers if number}
    found: list[PastChange] = []
    worlds = {number: worlds_of(release) for number, release in releases.items()}
    with ONE_AT_A_TIME:
        for each in reversed(recent):
            before = worlds.get(each.number - 1)
            if before is not None:
                rights = _rights(before, worlds[each.number], until_s, is_asked)
                if rights.changes:
                    found.append(PastChange(release=each, rights=rights))
    return found


def _rights(before: Worlds, after: Worlds, until_s: float, is_asked: IsAsked) -> Rights:
    found = rights_changed(
        before,
        after,
        fits=fits,
        may_search=lambda: time.monotonic() < until_s,
        is_asked=is_asked,
    )
    return Rights(changes=tuple(sorted(found, key=lambda change: not change.is_widening)))


def fits(tool: ToolVersion, arguments: JsonObject, open_: frozenset[str]) -> bool:
    """Return whether arguments meet a tool's contract, whatever the open ones are."""
    unknown = {f"/{escaped(name)}" for name in open_}
    try:
        filled = {**arguments, **dict.fromkeys(open_)}
        Contract.of(tool.input_schema).check_known(filled, "arguments", unknown=unknown)
    except ContractError:
        return False
    return True


def shown_example(example: Example | None) -> Json:
    """Render what policies read of a call: its arguments, and the facts that are not the usual."""
    if example is None:
        return None
    facts = object_to_json(example.facts)
    return {
        "arguments": example.arguments,
        "facts": {name: value for name, value in facts.items() if value != _NOTHING[name]},
    }


def _told(change: RightChange) -> Iterator[str]:
    what = change.tool or f"model {change.model}"
    perhaps = "" if change.is_exact else "perhaps "
    sign = "+" if change.is_widening else "-"
    yield (
        f"  {sign} {change.seat}  {what}  {change.environment}: {perhaps}"
        f"{_words(change.before)} -> {_words(change.after)}"
    )
    shown = shown_example(change.example)
    if isinstance(shown, dict):
        said = [
            f"{word} {canonical_text(shown[part])}"
            for word, part in (("with", "arguments"), ("while", "facts"))
            if shown[part]
        ]
        if said:
            yield f"      for instance {' '.join(said)}"


def _words(way: Way) -> str:
    if way.outcome is Outcome.NEEDS_APPROVAL:
        return f"approved by {_and([in_words(group) for group in way.groups])}"
    return {"allow": "unattended", "draft": "as a draft", "deny": "never"}[way.outcome]


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
