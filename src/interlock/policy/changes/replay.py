"""Decides recorded questions again, by the policies of now and by others, and tells what flips.

A decision is a function of its question, and the question is recorded with all its facts: so what
other policies would have said to it is known, not guessed. What would have come after is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from interlock.domain.decision import Decision, Outcome, PolicyRequest
from interlock.domain.tool import Environment
from interlock.policy.changes.rights import is_as_lenient
from interlock.policy.engine import World
from interlock.policy.reach import Way

EXAMPLES = 3
"""How many calls are named for each flip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A recorded question with its answer; `call` names the call, or the request to a model."""

    request: PolicyRequest
    decision: Decision
    run: str
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Calls that would be answered in another way for the same reason.

    `by` are the policies that make it stricter, or that no longer do; the code of the reason where
    no policy does. `examples` are calls.
    """

    before: Way
    after: Way
    by: tuple[str, ...]
    is_widening: bool
    decisions: int
    calls: int
    runs: int
    tools: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of all questions, flips to a more lenient answer first.

    `unchanged` are answered as now. `beside_policy` were answered before any policy was asked: a
    switch, a contract, a tool that was not bound. `moved` are those that the policies of now no
    longer answer as they were answered then; what flips is told against now.
    """

    unchanged: int
    beside_policy: int
    moved: int
    flips: tuple[Flip, ...]


@dataclass(slots=True)
class _Found:
    decisions: int = 0
    calls: dict[str, None] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    tools: set[str] = field(default_factory=set)


_Kind = tuple[Way, Way, tuple[str, ...]]


class Replay:
    """Takes questions one by one; both sides are the worlds of a release by environment."""

    def __init__(
        self, before: Mapping[Environment, World], after: Mapping[Environment, World]
    ) -> None:
        self._before, self._after = before, after
        self._alike: dict[tuple[object, ...], bool] = {}
        self._found: dict[_Kind, _Found] = {}
        self._unchanged = self._beside = self._moved = 0

    def take(self, asked: Asked) -> None:
        """Decide a question on both sides, unless nothing differs that could decide it."""
        if not asked.decision.policy_version:
            self._beside += 1
            return
        if self._is_alike(asked.request):
            self._unchanged += 1
            return
        before = _decided(self._before, asked.request)
        after = _decided(self._after, asked.request)
        self._moved += _way(before) != _way(asked.decision)
        if _way(before) == _way(after):
            self._unchanged += 1
            return
        kind = _way(before), _way(after), _by(before, after)
        found = self._found.setdefault(kind, _Found())
        found.decisions += 1
        found.calls[asked.call] = None
        found.runs.add(asked.run)
        found.tools.add(asked.request.tool or f"model {asked.request.model}")

    def replayed(self) -> Replayed:
        """Return what came of the questions so far."""
        flips = [
            Flip(
                before=before,
                after=after,
                by=by,
                is_widening=not is_as_lenient(before, after),
                decisions=found.decisions,
                calls=len(found.calls),
                runs=len(found.runs),
                tools=tuple(sorted(found.tools)),
                examples=tuple(found.calls)[:EXAMPLES],
            )
            for (before, after, by), found in self._found.items()
        ]
        flips.sort(key=lambda flip: (not flip.is_widening, -flip.calls, flip.by))
        return Replayed(
            unchanged=self._unchanged,
            beside_policy=self._beside,
            moved=self._moved,
            flips=tuple(flips),
        )

    def _is_alike(self, request: PolicyRequest) -> bool:
        key = (
            request.environment,
            request.tool,
            request.model,
            request.tool_version,
            request.seats,
        )
        if key not in self._alike:
            sides = [side.get(request.environment) for side in (self._before, self._after)]
            was, now = [side and side.fingerprint(request) for side in sides]
            self._alike[key] = was == now
        return self._alike[key]


def _decided(worlds: Mapping[Environment, World], request: PolicyRequest) -> Decision:
    world = worlds.get(request.environment)
    return Decision(outcome=Outcome.DENY, reasons=()) if world is None else world.decide(request)


def _way(decision: Decision) -> Way:
    return Way(outcome=decision.outcome, groups=decision.groups)


def _by(before: Decision, after: Decision) -> tuple[str, ...]:
    """Return who makes the difference: whoever is strict on the stricter side, else who grants."""
    is_milder = not is_as_lenient(_way(before), _way(after))
    strict, mild = (before, after) if is_milder else (after, before)
    new = tuple(name for name in strict.policy_ids if name not in mild.policy_ids)
    codes = tuple(sorted({reason.code for reason in strict.reasons}))
    return new or strict.policy_ids or (mild.policy_ids if is_milder else codes)
