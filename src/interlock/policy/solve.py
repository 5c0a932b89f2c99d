"""Finds calls that policies would answer in each possible way, or shows that there are none.

The solver proposes facts and arguments; whoever asks lets the policies themselves decide them, so
an answer never rests on this translation alone. What it does not find, it has ruled out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import z3
from cedarpy import pst

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Facts, PolicyRequest
from interlock.domain.label import Labels
from interlock.domain.pointer import parts_of
from interlock.domain.principal import Seat
from interlock.domain.tool import ToolVersion
from interlock.policy.context import Derived
from interlock.policy.encode import Encoder, Fields, Surroundings, Unknowns, Value, uid_text
from interlock.policy.engine import Slice, World
from interlock.policy.load import children_of
from interlock.policy.schema import ToolAction
from interlock.policy.shape import Record, Scalar, SetOf, Shape

MOST_WAYS = 64
"""Ways of one seat with one tool that are looked for; each has other policies that hold it up."""
_PATIENCE_MS = 2000
_LATEST_MS = 253_402_300_799_000
_MOST_EXACT = 2**53
_SOMEBODY = "somebody"
_NO_ARGUMENTS = ToolAction(
    groups=frozenset(), arguments=Record(), derived={}, always_derived=frozenset()
)
_COUNTS = (
    "calls_this_tool",
    "calls_this_tool_1h",
    "writes_this_run",
    "same_key_count",
    "failures_this_tool",
    "depth",
    "budget_left_micros",
)
_ESCAPED = re.compile(r"\\u\{([0-9a-fA-F]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A way in which calls can be answered: the groups that have to lift policies.

    `holding` are the policies that they can have to lift, `request` a call for which some do hold.
    """

    groups: frozenset[str]
    holding: tuple[str, ...]
    request: PolicyRequest


class UndecidedError(Exception):
    """The solver could not tell in time."""


def search(world: World, seat: Seat, part: Slice, tool: ToolVersion | None) -> list[Found]:
    """Return the ways in which calls of a seat can still be allowed; every one that there is.

    One question at a time: the solver keeps one state for the process. Raises `UndecidedError`.
    """
    return list(Calls(world, seat, part, tool).ways())


def counterexample(
    world: World,
    seat: Seat,
    part: Slice,
    tool: ToolVersion,
    *,
    without: frozenset[str] | None,
    is_untrusted: bool | None = None,
    labels: frozenset[str] = frozenset(),
) -> PolicyRequest | None:
    """Return a call that can be allowed; None if it is shown that there is none.

    It needs nobody of the groups `without` to agree (None: nobody at all), and its run has read
    untrusted content, or not, and carries these labels. Raises `UndecidedError`.
    """
    calls = Calls(world, seat, part, tool)
    needs = calls.needs()
    solver = patient_solver()
    solver.add(*calls.bounds, calls.allowed, *calls.with_labels(labels))
    unwanted = needs if without is None else without & needs.keys()
    solver.add(*(z3.Not(needs[group]) for group in unwanted))
    if is_untrusted is not None:
        solver.add(z3.Bool("untrusted") == z3.BoolVal(is_untrusted))
    answer = solver.check()
    if answer == z3.unknown:
        raise UndecidedError
    return None if answer == z3.unsat else calls.request(calls.nicer(solver, needs.values()))


class Calls:
    """All calls of one tool, or requests to one model, that a seat could make, as formulas.

    `free` are the conditions that no formula can say: whoever compares two of these shares it.
    """

    def __init__(
        self,
        world: World,
        seat: Seat,
        part: Slice,
        tool: ToolVersion | None,
        *,
        free: dict[str, z3.BoolRef] | None = None,
    ) -> None:
        self._world, self._seat, self._part, self._tool = world, seat, part, tool
        self._action = part.action or _NO_ARGUMENTS
        self._unknowns = Unknowns()
        self._context = self._unknown_context()
        encoder = Encoder(
            Surroundings(
                target=part.target,
                principal=("Agent", str(seat)),
                entities=world.entities,
                context=self._context,
            ),
            free=free,
        )
        self._holds = {
            policy.policy_id: encoder.holds(policy.rule, policy.conditions)
            for policy in part.policies.values()
        }
        self._literals = frozenset(
            text for policy in part.policies.values() for text in _literals(policy.rule.clauses)
        )

        self._teams = world.teams(seat, part)

    @property
    def bounds(self) -> list[z3.BoolRef]:
        """Return what holds for whatever is unknown."""
        return self._unknowns.bounds

    @property
    def allowed(self) -> z3.BoolRef:
        """Return when a call meets its contract and is allowed once everybody agreed who can."""
        permits, limits = [], list(self._contract())
        for policy in self._part.policies.values():
            held = self._holds[policy.policy_id]
            limits.append(z3.Not(held.fails))
            if policy.rule.effect == "permit":
                permits.append(held.matches)
            elif not policy.is_liftable(self._teams):
                limits.append(z3.Not(held.matches))
        return z3.And(z3.Or(*permits), *limits)

    def with_labels(self, names: Iterable[str]) -> Iterator[z3.BoolRef]:
        """Yield that the run of a call carries these labels."""
        labels = self._context.members["labels"][1]
        for name in sorted(names):
            yield z3.IsMember(z3.StringVal(uid_text("Label", name)), labels)

    def needs(self, *, by_team: bool = False) -> dict[str, z3.BoolRef]:
        """Return when a call needs whose agreement: by group, or by the team behind it."""
        held: dict[str, list[z3.BoolRef]] = {}
        for policy in self._part.policies.values():
            for group in policy.groups if policy.is_liftable(self._teams) else ():
                name = self._teams.get(group, group) if by_team else group
                held.setdefault(name, []).append(self._holds[policy.policy_id].matches)
        return {group: z3.Or(*matches) for group, matches in held.items()}

    def ways(self) -> Iterator[Found]:
        """Yield each set of groups that some call would need, the empty one first if there is."""
        needs = self.needs()
        solver = patient_solver()
        solver.add(*self.bounds, self.allowed)
        for _ in range(MOST_WAYS):
            answer = solver.check()
            if answer == z3.unsat:
                return
            if answer == z3.unknown:
                raise UndecidedError
            found = self._found(solver, needs)
            yield found
            solver.add(
                z3.Or(*(need != z3.BoolVal(group in found.groups) for group, need in needs.items()))
            )
        raise UndecidedError

    def _found(self, solver: z3.Solver, needs: Mapping[str, z3.BoolRef]) -> Found:
        model = solver.model()
        groups = frozenset(group for group, need in needs.items() if is_true(model, need))
        model = self.nicer(solver, needs.values())
        same = [need == z3.BoolVal(group in groups) for group, need in needs.items()]
        holding = tuple(
            sorted(
                policy.policy_id
                for policy in self._part.policies.values()
                if not groups.isdisjoint(policy.groups)
                and self._can_hold(solver, model, self._holds[policy.policy_id].matches, same)
            )
        )
        return Found(groups=groups, holding=holding, request=self.request(model))

    @staticmethod
    def _can_hold(
        solver: z3.Solver, model: z3.ModelRef, matches: z3.BoolRef, same: Sequence[z3.BoolRef]
    ) -> bool:
        """Return whether a policy holds for the call that was found, or for another of its kind."""
        return is_true(model, matches) or solver.check(*same, matches) != z3.unsat

    def nicer(self, solver: z3.Solver, marks: Iterable[z3.BoolRef]) -> z3.ModelRef:
        """Return a model that agrees with the last one on these marks.

        If there is one whose arguments give its derived values, it is such a one.
        """
        model = solver.model()
        same = [mark == z3.BoolVal(is_true(model, mark)) for mark in marks]
        solver.push()
        try:
            solver.add(*same, *self._derivations())
            return solver.model() if solver.check() == z3.sat else model
        finally:
            solver.pop()

    # --- what is unknown

    def _unknown_context(self) -> Fields:
        unknowns, yes = self._unknowns, z3.BoolVal(val=True)
        action, names = self._action, self._world.entities
        labels = frozenset(uid_text("Label", name) for name in self._world.labels)
        tenants = {name for kind, name in _named(names) if kind == "Tenant"} | {_SOMEBODY}
        derived = Record(
            fields={name: value.shape for name, value in action.derived.items()},
            required=action.always_derived,
        )
        members: dict[str, tuple[z3.BoolRef, Value]] = {
            "args": (yes, unknowns.of(action.arguments, "args")),
            "derived": (yes, unknowns.of(derived, "derived")),
            "user": (z3.Bool("user?"), Fields({"name": (yes, z3.String("user"))})),
            "labels": (yes, unknowns.some_of("labels", labels)),
            "tenants": (
                yes,
                unknowns.some_of("tenants", frozenset(uid_text("Tenant", t) for t in tenants)),
            ),
            "untrusted": (yes, z3.Bool("untrusted")),
            "done": (yes, unknowns.of(SetOf(item=Scalar(kind="String")), "done")),
            "now": (yes, unknowns.number("now", least=0)),
            **{name: (yes, unknowns.number(name, least=0)) for name in _COUNTS},
        }
        unknowns.bounds.append(z3.Int("now") <= _LATEST_MS)
        return Fields(members)

    def _contract(self) -> Iterator[z3.BoolRef]:
        """Yield what the contract says of plain members: calls beyond it never come so far."""
        arguments = self._context.members["args"][1]
        properties = None if self._tool is None else self._tool.input_schema.get("properties")
        # INVARIANT: arguments are a record.
        assert isinstance(arguments, Fields)
        for name, (_, value) in arguments.members.items():
            schema = properties.get(name) if isinstance(properties, dict) else None
            if isinstance(schema, dict) and not isinstance(value, Fields):
                yield from _limits(schema, value, self._action.arguments.fields[name])

    def _derivations(self) -> Iterator[z3.BoolRef]:
        """Yield by which arguments derived values come about, for some of the functions."""
        derived = self._context.members["derived"][1]
        # INVARIANT: derived values are a record.
        assert isinstance(derived, Fields)
        for name, (is_there, value) in derived.members.items():
            source = self._argument(self._action.derived[name])
            if source is None or isinstance(value, Fields):
                continue
            has_source, text = source
            yield is_there == has_source
            match self._action.derived[name].function:
                case "length":
                    yield value == z3.Length(text)
                case "domain":
                    yield z3.Implies(has_source, z3.And(_is_host(value), text == "a@" + value))
                case "host":
                    at_root = text == "https://" + value
                    yield z3.Implies(has_source, z3.And(_is_host(value), at_root))
                case "hundredths":
                    places = z3.SubString(z3.IntToStr(value % 100 + 100), 1, 2)
                    at_point = text == z3.Concat(z3.IntToStr(value / 100), ".", places)
                    yield z3.Implies(has_source, z3.And(value >= 0, at_point))
                case _:
                    pass

    def _argument(self, derived: Derived) -> tuple[z3.BoolRef, z3.SeqRef] | None:
        """Return the text that a value is derived from, with when it is there."""
        value: Value = self._context.members["args"][1]
        has = z3.BoolVal(val=True)
        for part in parts_of(derived.pointer):
            if not isinstance(value, Fields) or part not in value.members:
                return None
            is_there, value = value.members[part]
            has = z3.And(has, is_there)
        is_text = not isinstance(value, Fields) and value.sort() == z3.StringSort()
        return (has, value) if is_text else None

    def request(self, model: z3.ModelRef) -> PolicyRequest:
        """Return the call that a model describes."""
        members = self._context.members
        labels = self._members(model, members["labels"][1])
        tenants = self._members(model, members["tenants"][1])
        arguments = self._json(model, members["args"][1], self._action.arguments)
        # INVARIANT: arguments are a record.
        assert isinstance(arguments, dict)
        counts = {name: _whole(model, z3.Int(name)) for name in _COUNTS}
        has_user = is_true(model, members["user"][0])
        return PolicyRequest(
            seats=(self._seat,),
            environment=self._world.environment,
            tool=None if self._tool is None else self._tool.name,
            model=self._part.target.resource[1] if self._tool is None else None,
            arguments=arguments,
            facts=Facts(
                labels=Labels(
                    names=frozenset(str(each).removeprefix("Label::") for each in labels),
                    tenants=frozenset(str(each).removeprefix("Tenant::") for each in tenants),
                    is_untrusted=is_true(model, z3.Bool("untrusted")),
                ),
                user=_text(_known(model, z3.String("user"))) if has_user else None,
                done=frozenset(map(str, self._members(model, members["done"][1]))),
                now_us=_whole(model, z3.Int("now")) * 1000,
                **counts,
            ),
        )

    def _json(self, model: z3.ModelRef, value: Value, shape: Shape) -> Json:
        if isinstance(value, Fields):
            # INVARIANT: only a record is made of fields.
            assert isinstance(shape, Record)
            return {
                name: self._json(model, inner, shape.fields[name])
                for name, (is_there, inner) in value.members.items()
                if is_true(model, is_there)
            }
        if isinstance(shape, SetOf):
            return [*self._members(model, value)]
        return _plain(_known(model, value))

    def _members(self, model: z3.ModelRef, value: z3.ExprRef) -> list[Json]:
        """Return the members of a set, of those that any policy or the model itself names."""
        sort, stands = value.sort().domain(), _known(model, value)
        named = [_value(each) for each in sorted(self._literals, key=repr)]
        named += [z3.StringVal(uid_text("Tenant", _SOMEBODY))]
        named += [z3.StringVal(uid_text("Label", each)) for each in sorted(self._world.labels)]
        while z3.is_store(stands):
            named.append(stands.arg(1))
            stands = stands.arg(0)
        members = {
            str(each): _plain(each)
            for each in named
            if each.sort() == sort and is_true(model, z3.IsMember(each, value))
        }
        return [members[each] for each in sorted(members)]


def _limits(schema: JsonObject, value: z3.ExprRef, shape: Shape) -> Iterator[z3.BoolRef]:
    if not isinstance(shape, Scalar):
        return
    wanted = {"Long": int, "String": str, "Boolean": bool}[shape.kind]
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(allowed, list):
        yield z3.Or(*(value == _value(each) for each in allowed if type(each) is wanted))
    if shape.kind == "Long":
        yield z3.And(value >= -_MOST_EXACT, value <= _MOST_EXACT)
        least, most = schema.get("minimum"), schema.get("maximum")
        yield from [value >= least] if isinstance(least, int) else []
        yield from [value <= most] if isinstance(most, int) else []
    if shape.kind == "String":
        least, most = schema.get("minLength"), schema.get("maxLength")
        yield from [z3.Length(value) >= least] if isinstance(least, int) else []
        yield from [z3.Length(value) <= most] if isinstance(most, int) else []


def _is_host(value: z3.SeqRef) -> z3.BoolRef:
    letters = z3.Plus(z3.Union(z3.Range("a", "z"), z3.Range("0", "9")))
    dotted = z3.Concat(z3.Re("."), letters)
    return z3.InRe(value, z3.Concat(letters, z3.Star(dotted)))


def _literals(node: object) -> Iterator[str | int]:
    """Yield the texts, numbers and entities that a policy names."""
    match node:
        case pst.StringLit(value=text):
            yield text
        case pst.LongLit(value=number):
            yield number
        case pst.EntityLit(value=uid):
            yield uid_text(str(uid.type), uid.id)
        case _:
            for child in children_of(node):
                yield from _literals(child)


def _named(entities: Mapping[tuple[str, str], object]) -> Iterator[tuple[str, str]]:
    """Yield all entities, also those that are only named as a parent or an attribute."""
    for uid, entity in entities.items():
        yield uid
        yield from getattr(entity, "parents", ())


def _value(known: Json) -> z3.ExprRef:
    if isinstance(known, bool):
        return z3.BoolVal(known)
    return z3.IntVal(known) if isinstance(known, int) else z3.StringVal(str(known))


def _plain(value: z3.ExprRef) -> Json:
    if z3.is_string_value(value):
        return _text(value)
    if z3.is_true(value) or z3.is_false(value):
        return bool(z3.is_true(value))
    return int(value.as_long())


def _text(value: z3.SeqRef) -> str:
    """Return a text as it is; the solver writes rare characters as escapes."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value.as_string())


def _known(model: z3.ModelRef, value: z3.ExprRef) -> z3.ExprRef:
    """Return what a value is in a model; something for what the model leaves open."""
    return model.eval(value, model_completion=True)


def _whole(model: z3.ModelRef, value: z3.ArithRef) -> int:
    return int(_known(model, value).as_long())


def patient_solver() -> z3.Solver:
    """Return a solver that gives up on a question after a while."""
    solver = z3.SimpleSolver()
    solver.set("timeout", _PATIENCE_MS)
    return solver


def is_true(model: z3.ModelRef, formula: z3.BoolRef) -> bool:
    """Return whether a formula holds in a model."""
    return bool(z3.is_true(_known(model, formula)))
