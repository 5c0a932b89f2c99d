"""What a seat can do with a tool at all: unattended, by whose approval, as a draft, or never.

Asked of policies, not of past calls: every fact and argument is unknown. With the extra `verify` a
solver names a call for each way, and the policies themselves then decide that call: the way is
exact if they say the same. Without it, or where it cannot tell, the answer may name too much, never
too little.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from cedarpy import pst

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Facts, Outcome, PolicyRequest
from interlock.domain.ids import ToolName
from interlock.domain.pointer import escaped
from interlock.domain.principal import Seat
from interlock.domain.tool import Environment, ToolVersion
from interlock.policy.engine import Slice, World
from interlock.policy.load import DRAFT, Policy, policy_set
from interlock.policy.partial import conditions_of, paths_of, reads

Fits = Callable[[ToolVersion, JsonObject, frozenset[str]], bool]
"""Says whether arguments meet a tool's contract, whatever the named ones are."""

CAN_BE_EXACT = find_spec("z3") is not None
_CONTEXT = frozenset[tuple[str, ...]]({()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A call that policies answer in one way, whatever arguments it has that none of them reads."""

    arguments: JsonObject
    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way in which calls can be answered.

    `groups` are the teams asked and `by` the policies that can ask them. `example` is a call that
    the policies answer so; with it the way is exact.
    """

    outcome: Outcome
    groups: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    example: Example | None = None

    @property
    def is_exact(self) -> bool:
        """Whether a call was found that is answered in this way."""
        return self.example is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A policy on which it depends whether a call is allowed, and what of it is still open."""

    policy_id: str
    why: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What one seat can do with one tool of one environment.

    No `ways` means never. `granted` are the permits, `unless` the guardrails that may still refuse.
    """

    seat: Seat
    tool: ToolName
    environment: Environment
    ways: tuple[Way, ...]
    granted: tuple[Condition, ...] = ()
    unless: tuple[Condition, ...] = ()


def capability(world: World, seat: Seat, tool: ToolVersion, *, fits: Fits) -> Capability:
    """Return what a seat can do with a tool that is bound in a world's environment.

    One at a time in a process, as the solver wants it.
    """
    part = world.slice_of(tool.name)
    never = Capability(seat=seat, tool=tool.name, environment=world.environment, ways=())
    if part is None:
        return never
    ways = ways_of(world, seat, part, tool, fits=fits, is_searched=CAN_BE_EXACT)
    if not ways:
        return never
    standing = _Standing.of(world, seat, part)
    return dataclasses.replace(
        never,
        ways=ways,
        granted=tuple(_condition(policy) for policy in standing.permits),
        unless=tuple(_condition(policy) for policy in standing.guardrails),
    )


def ways_of(
    world: World,
    seat: Seat,
    part: Slice,
    tool: ToolVersion | None,
    *,
    fits: Fits,
    is_searched: bool,
) -> tuple[Way, ...]:
    """Return how calls of a tool, or requests to a model if it is none, can be answered.

    If not `is_searched` they are the ways that nothing rules out, without a call for any.
    """
    standing = _Standing.of(world, seat, part)
    if not standing.permits or standing.is_refused:
        return ()
    ways = _searched(world, seat, part, tool, fits) if is_searched else None
    return _least(standing.ways() if ways is None else ways)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """What is sure without facts and arguments, policy by policy.

    `sure` and `open_` are the liftable forbids that certainly, and perhaps, hold.
    """

    permits: Sequence[Policy]
    guardrails: Sequence[Policy]
    is_refused: bool
    sure: Sequence[Policy]
    open_: Sequence[Policy]
    teams: dict[str, str]

    @classmethod
    def of(cls, world: World, seat: Seat, part: Slice) -> _Standing:
        teams = world.teams(seat, part)
        permits: list[Policy] = []
        guardrails: list[Policy] = []
        sure: list[Policy] = []
        perhaps: list[Policy] = []
        is_refused = False
        for policy in part.policies.values():
            known, open_ = _split(policy)
            if not world.matches(seat, part, dataclasses.replace(policy.rule, clauses=known)):
                continue
            is_sure = not open_
            if policy.rule.effect == "permit":
                permits.append(policy)
            elif policy.is_liftable(teams):
                (sure if is_sure else perhaps).append(policy)
            elif is_sure:
                is_refused = True
            else:
                guardrails.append(policy)
        return cls(
            permits=permits,
            guardrails=guardrails,
            is_refused=is_refused,
            sure=sure,
            open_=perhaps,
            teams=teams,
        )

    def ways(self) -> list[Way]:
        """Return the ways that nothing rules out, without a call for any of them."""
        found = [_way(self.teams, self.sure)]
        found.extend(_way(self.teams, [*self.sure, each]) for each in self.open_)
        return found


def _searched(
    world: World, seat: Seat, part: Slice, tool: ToolVersion | None, fits: Fits
) -> list[Way] | None:
    """Return the ways that a solver finds; None if it cannot tell."""
    from interlock.policy import solve  # noqa: PLC0415  # it needs the extra `verify`

    teams = world.teams(seat, part)
    ways: list[Way] = []
    try:
        everything = solve.search(world, seat, part, tool)
    except solve.UndecidedError:
        return None
    for found in everything:
        holding = [part.policies[policy_id] for policy_id in found.holding]
        way = _way(teams, holding)
        ways.append(_confirmed(world, part, way, found.request, tool=tool, fits=fits))
    return ways


def _confirmed(
    world: World,
    part: Slice,
    way: Way,
    request: PolicyRequest,
    *,
    tool: ToolVersion | None,
    fits: Fits,
) -> Way:
    """Return a way with its example if the policies, and the tool's contract, take it so."""
    decision = world.decide(request)
    if (decision.outcome, decision.groups) != (way.outcome, way.groups):
        return way
    return dataclasses.replace(way, example=example_of([part], tool, request, fits))


def example_of(
    parts: Sequence[Slice],
    tool: ToolVersion | None,
    request: PolicyRequest,
    fits: Fits,
    *,
    read: frozenset[str] = frozenset(),
) -> Example | None:
    """Return what any of these policies read of a call, None if it breaks the tool's contract.

    `read` are arguments that count as read although no policy does.
    """
    unread = frozenset.intersection(*map(_unread, parts)) - read
    if tool is not None and not fits(tool, request.arguments, unread):
        return None
    told = {name: value for name, value in request.arguments.items() if name not in unread}
    return Example(arguments=told, facts=request.facts)


def _unread(part: Slice) -> frozenset[str]:
    """Return the arguments that policies cannot see, or that none of these reads."""
    if part.action is None:
        return frozenset()
    shape, derived = part.action.arguments, part.action.derived
    conditions = [each for policy in part.policies.values() for each in policy.conditions]
    read = {
        name
        for name in shape.fields
        if any(reads(each, paths_of([f"/{escaped(name)}"], derived)) for each in conditions)
    }
    return (frozenset(shape.fields) - read) | shape.hidden


def _way(teams: Mapping[str, str], holding: Iterable[Policy]) -> Way:
    groups = {group for policy in holding for group in policy.groups}
    asked = tuple(sorted(policy.policy_id for policy in holding if policy.groups))
    if not groups:
        return Way(outcome=Outcome.ALLOW)
    if DRAFT in groups:
        return Way(outcome=Outcome.DRAFT, by=asked)
    named = tuple(sorted({teams.get(group, group) for group in groups}))
    return Way(outcome=Outcome.NEEDS_APPROVAL, groups=named, by=asked)


def _least(ways: Sequence[Way]) -> tuple[Way, ...]:
    """Return each way once, and no approval that asks more teams than another one needs.

    A team may stand behind several groups: the policies of all of them can ask it.
    """
    alike: dict[tuple[Outcome, tuple[str, ...]], list[Way]] = {}
    for way in sorted(ways, key=lambda way: (not way.is_exact, len(way.by), way.by)):
        alike.setdefault((way.outcome, way.groups), []).append(way)
    best = [
        dataclasses.replace(first, by=_together(first, each))
        for first, *each in (alike[key] for key in alike)
    ]
    return tuple(
        way
        for way in sorted(best, key=lambda way: (_ORDER.index(way.outcome), way.groups))
        if not any(
            other.outcome is way.outcome and set(other.groups) < set(way.groups) for other in best
        )
    )


def _together(first: Way, others: Iterable[Way]) -> tuple[str, ...]:
    """Return the policies of ways that are as certain as the first."""
    known = [first, *(way for way in others if way.is_exact == first.is_exact)]
    return tuple(sorted({policy_id for way in known for policy_id in way.by}))


_ORDER = (Outcome.ALLOW, Outcome.NEEDS_APPROVAL, Outcome.DRAFT)


def _condition(policy: Policy) -> Condition:
    return Condition(
        policy_id=policy.policy_id, why=policy.why, text=_text(policy, _split(policy)[1])
    )


def _text(policy: Policy, clauses: tuple[pst.Clause, ...]) -> str:
    """Return conditions as Cedar writes them, without the scope that they are in."""
    if not clauses:
        return ""
    anywhere = dataclasses.replace(
        policy.rule,
        principal=pst.ScopeAny(),
        action=pst.ScopeAny(),
        resource=pst.ScopeAny(),
        clauses=clauses,
        annotations={},
    )
    text = str(policy_set([dataclasses.replace(policy, rule=anywhere)]))
    return " ".join(text.partition(")")[2].strip().rstrip(";").split())


def _split(policy: Policy) -> tuple[tuple[pst.Clause, ...], tuple[pst.Clause, ...]]:
    """Return a policy's conditions that read no fact and no argument, and those that do."""
    conditions = tuple(conditions_of(policy))
    known = tuple(each for each in conditions if not reads(each, _CONTEXT))
    return known, tuple(each for each in conditions if each not in known)
