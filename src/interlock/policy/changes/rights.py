"""What seats may do after a change that they could not do before, and the other way round.

Only pairs of seat and tool are looked at whose policies, contract, seat or binding differ. With the
extra `verify` the answer is a call that both worlds decide, and differently; that there is none is
proved. Where a solver is missing, or cannot tell, what differs counts as wider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from interlock.domain.canonical import Json
from interlock.domain.decision import Outcome, PolicyRequest
from interlock.domain.ids import ToolName
from interlock.domain.principal import Seat
from interlock.domain.tool import ENVIRONMENTS, Environment, ToolVersion
from interlock.policy.engine import Slice, World
from interlock.policy.reach import (
    CAN_BE_EXACT,
    Example,
    Fits,
    Way,
    example_of,
    ways_of,
)
from interlock.policy.schema import seats_of
from interlock.policy.shape import Scalar

Worlds = Mapping[Environment, World]
IsAsked = Callable[[World, Seat, ToolVersion | None], bool]
"""Says whether a seat with a tool, or with a model if it is none, is asked about."""
_LISTS = frozenset({"const", "enum"})
LIMITS = frozenset({*_LISTS, "minimum", "maximum", "minLength", "maxLength"})
"""What of a contract is put to the solver, of texts, numbers and truth values."""
_NEVER = Way(outcome=Outcome.DENY)
_ORDER = (Outcome.ALLOW, Outcome.NEEDS_APPROVAL, Outcome.DRAFT, Outcome.DENY)


@dataclass(frozen=True, slots=True, kw_only=True)
class RightChange:
    """One way in which a seat may do more, or less; `before` and `after` are answers.

    It calls the `tool`, or asks the `model`. `example` is a call that is answered so on both sides;
    without one it is not known that there is such a call.
    """

    seat: Seat
    environment: Environment
    tool: ToolName | None = None
    model: str | None = None
    is_widening: bool
    before: Way
    after: Way
    example: Example | None = None

    @property
    def is_exact(self) -> bool:
        """Whether a call was found."""
        return self.example is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """A seat and a tool that it could call, or a model if it is none, in a world."""

    world: World
    seat: Seat
    part: Slice
    tool: ToolVersion | None

    def is_like(self, other: _Side) -> bool:
        """Whether all calls are decided alike, as far as the two are made of the same."""
        return self._parts() == other._parts()

    def ways(self, fits: Fits, *, is_searched: bool) -> tuple[Way, ...]:
        return ways_of(
            self.world, self.seat, self.part, self.tool, fits=fits, is_searched=is_searched
        )

    def answer(self, request: PolicyRequest) -> Way:
        """Return how policies answer a call."""
        decision = self.world.decide(request)
        by = decision.policy_ids if decision.outcome is not Outcome.ALLOW else ()
        return Way(outcome=decision.outcome, groups=decision.groups, by=by)

    def is_stricter_than(self, other: _Side) -> bool:
        """Whether it is plain to see that nothing is wider: only forbids were added."""
        rules, others = (
            {(policy.kind, policy.groups, policy.text) for policy in side.part.policies.values()}
            for side in (self, other)
        )
        return (
            self._known() == other._known()
            and all(kind != "grants" for kind, _, _ in rules - others)
            and all(kind == "grants" for kind, _, _ in others - rules)
        )

    def _known(self) -> tuple[object, ...]:
        """Return what policies can ask about beside facts and arguments, and the contract."""
        names = (("Agent", str(self.seat)), ("Workflow", str(self.seat.workflow)))
        entities = [self.world.entities.get(name) for name in (*names, self.part.target.resource)]
        teams = self.world.teams(self.seat, self.part)
        contract = None if self.tool is None else self.tool.input_schema
        return entities, teams, self.part.action, contract

    def _parts(self) -> tuple[object, ...]:
        return (self.part.version, *self._known())


def rights_changed(
    before: Worlds,
    after: Worlds,
    *,
    fits: Fits,
    may_search: Callable[[], bool],
    is_asked: IsAsked = lambda _world, _seat, _tool: True,
) -> Iterator[RightChange]:
    """Yield what changes between two releases, environment by environment.

    One at a time in a process, as the solver wants it. Once `may_search` says no, the rest is
    answered without the solver. Left out is what is not asked, on the newer side if it has it.
    """
    for environment in ENVIRONMENTS:
        was, now = _sides(before.get(environment)), _sides(after.get(environment))
        for key in sorted({*was, *now}, key=lambda pair: (str(pair[0]), pair[1])):
            old, new = was.get(key), now.get(key)
            side = new or old
            if side is None or not is_asked(side.world, side.seat, side.tool):
                continue
            if old is None or new is None or not old.is_like(new):
                is_searched = CAN_BE_EXACT and may_search()
                yield from _telling(_changed(old, new, fits, is_searched=is_searched))


def _telling(changes: Iterable[RightChange]) -> list[RightChange]:
    """Leave out what goes without saying: a call for which less changes than for another."""
    every = list(changes)
    return [
        each
        for each in every
        if not any(
            other.is_widening == each.is_widening
            and other.is_exact >= each.is_exact
            and (
                _is_same(other.before, each.before) and _is_milder(other.after, each.after)
                if each.is_widening
                else _is_same(other.after, each.after) and _is_milder(other.before, each.before)
            )
            for other in every
        )
    ]


def _sides(world: World | None) -> dict[tuple[Seat, str], _Side]:
    """Return what the seats of a world can call or ask, by seat and by what policies name it."""
    if world is None:
        return {}
    found: dict[tuple[Seat, str], _Side] = {}
    for workflow in world.release.workflows.values():
        for seat in seats_of(workflow):
            for name, tool in world.release.tools.items():
                part = world.slice_of(name)
                binding = world.release.bind(tool, world.environment, workflow.name)
                can_be_sent = binding is not None and not binding.lacks_credentials
                if part is not None and can_be_sent and not world.is_quarantined(name):
                    found[seat, f"Tool {name}"] = _Side(
                        world=world, seat=seat, part=part, tool=tool
                    )
            for model, part in world.slices_of_models.items():
                found[seat, f"Model {model}"] = _Side(world=world, seat=seat, part=part, tool=None)
    return found


def _changed(
    old: _Side | None, new: _Side | None, fits: Fits, *, is_searched: bool
) -> Iterator[RightChange]:
    if is_searched and old is not None and new is not None:
        found = _searched(old, new, fits)
        if found is not None:
            yield from found
            return
    change = _changing(old, new)
    was = () if old is None else old.ways(fits, is_searched=is_searched)
    now = () if new is None else new.ways(fits, is_searched=is_searched)
    wider = [way for way in now if not any(is_as_lenient(other, way) for other in was)]
    less = [way for way in was if not any(is_as_lenient(other, way) for other in now)]
    # The other side's call may be decided in several ways: only "never" needs no call there.
    yield from (change(_mildest(was), way, None if was else way.example) for way in wider)
    yield from (change(way, _mildest(now), None if now else way.example) for way in less)
    if old is not None and new is not None and now and not wider and not new.is_stricter_than(old):
        # The answers of before, but perhaps to other calls: whatever is not known is wider.
        yield replace(change(_mildest(was), _mildest(now), None), is_widening=True)


def _searched(old: _Side, new: _Side, fits: Fits) -> list[RightChange] | None:
    """Return all differences, each with a call; None if that cannot be told."""
    limited = _limited_anew(old, new)
    if limited is None:
        return None
    from interlock.policy.changes.compare import more_lenient  # noqa: PLC0415  # extra `verify`
    from interlock.policy.solve import Calls, UndecidedError  # noqa: PLC0415  # as above

    free: dict[str, object] = {}
    was = Calls(old.world, old.seat, old.part, old.tool, free=free)
    now = Calls(new.world, new.seat, new.part, new.tool, free=free)
    parts, change, found = [old.part, new.part], _changing(old, new), list[RightChange]()
    try:
        for stricter, milder in ((was, now), (now, was)):
            for request in more_lenient(stricter, milder):
                before, after = (
                    example_of(parts, tool, request, fits, read=limited)
                    for tool in (old.tool, new.tool)
                )
                told = change(
                    _NEVER if before is None else old.answer(request),
                    _NEVER if after is None else new.answer(request),
                    before or after,
                )
                is_wider = milder is now
                if told.before == told.after or told.is_widening != is_wider:
                    return None
                found.append(told)
    except UndecidedError:
        return None
    return found


def _limited_anew(old: _Side, new: _Side) -> frozenset[str] | None:
    """Return the arguments with new limits; None if a solver cannot compare the two contracts."""
    action = old.part.action
    if action != new.part.action:
        return None
    if old.tool is None or new.tool is None or action is None:
        return frozenset()
    was, now = old.tool.input_schema, new.tool.input_schema
    mine, yours = was.get("properties"), now.get("properties")
    if was == now or not isinstance(mine, dict) or not isinstance(yours, dict):
        return frozenset() if was == now else None
    differ = frozenset(name for name in {*mine, *yours} if mine.get(name) != yours.get(name))
    plain = {name for name, shape in action.arguments.fields.items() if isinstance(shape, Scalar)}
    rest = [{**side, "properties": None} for side in (was, now)]
    is_known = rest[0] == rest[1] and all(
        name in plain and _without_limits(mine.get(name)) == _without_limits(yours.get(name))
        for name in differ
    )
    return differ if is_known else None


def _without_limits(schema: Json) -> Json:
    if not isinstance(schema, dict):
        return schema
    # A bound that is no whole number is nothing that the solver is told.
    said = LIMITS & {n for n, value in schema.items() if n in _LISTS or type(value) is int}
    return {name: value for name, value in schema.items() if name not in said}


def _changing(
    old: _Side | None, new: _Side | None
) -> Callable[[Way, Way, Example | None], RightChange]:
    """Return what makes a change of what a seat can do with one tool or model."""
    side = new or old
    # INVARIANT: nothing is compared that neither side has.
    assert side is not None
    kind, name = side.part.target.resource

    def change(before: Way, after: Way, example: Example | None) -> RightChange:
        return RightChange(
            seat=side.seat,
            environment=side.world.environment,
            tool=ToolName(name) if kind == "Tool" else None,
            model=None if kind == "Tool" else name,
            is_widening=not is_as_lenient(before, after),
            before=before,
            after=after,
            example=example,
        )

    return change


def is_as_lenient(way: Way, than: Way) -> bool:
    """Return whether whoever may do it in the other way may do it in this one too."""
    if way.outcome is than.outcome:
        return set(way.groups) <= set(than.groups)
    return _ORDER.index(way.outcome) < _ORDER.index(than.outcome)


def _is_same(way: Way, other: Way) -> bool:
    return is_as_lenient(way, other) and is_as_lenient(other, way)


def _is_milder(way: Way, than: Way) -> bool:
    return is_as_lenient(way, than) and not is_as_lenient(than, way)


def _mildest(ways: tuple[Way, ...]) -> Way:
    return min(ways, key=lambda way: (_ORDER.index(way.outcome), len(way.groups)), default=_NEVER)
