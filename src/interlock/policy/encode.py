"""Conditions of policies over unknown facts and arguments, as formulas for the solver z3.

The one module that imports it (the extra `verify`). What a formula cannot say becomes a truth
value that may be either: then the solver finds too many calls that could be allowed, never too few.
Cedar's errors are carried along, since a policy that cannot be evaluated denies the call.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, assert_never

import z3
from cedarpy import pst

from interlock.domain.canonical import Json
from interlock.policy.load import children_of
from interlock.policy.schema import Entity
from interlock.policy.shape import Record, Scalar, SetOf, Shape
from interlock.policy.slices import Target, Uid

LONG_LEAST, LONG_MOST = -(2**63), 2**63 - 1


class _UnsupportedError(Exception):
    """A formula cannot say this."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A record: each of its members with the condition under which it is there."""

    members: Mapping[str, tuple[z3.BoolRef, Value]]


Value: TypeAlias = "z3.ExprRef | Fields"


@dataclass(frozen=True, slots=True)
class _Said:
    """What an expression comes to, and when its evaluation fails."""

    value: Value
    fails: z3.BoolRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known of a call: its entities; and what stands for that which is not."""

    target: Target
    principal: Uid
    entities: Mapping[Uid, Entity]
    context: Fields


@dataclass(slots=True)
class Unknowns:
    """Makes what stands for unknown values; `bounds` are what holds for all of them."""

    bounds: list[z3.BoolRef] = field(default_factory=list)

    def of(self, shape: Shape, name: str) -> Value:
        """Return what stands for a value of a shape."""
        match shape:
            case Scalar(kind="String"):
                return z3.String(name)
            case Scalar(kind="Boolean"):
                return z3.Bool(name)
            case Scalar():
                return self.number(name)
            case SetOf():
                return z3.Const(name, z3.SetSort(_sort(shape.item)))
            case Record():
                return Fields(
                    {
                        each: (self._is_there(shape, each, name), self.of(inner, f"{name}/{each}"))
                        for each, inner in shape.fields.items()
                    }
                )
            case _:
                assert_never(shape)

    def number(self, name: str, *, least: int = LONG_LEAST) -> z3.ArithRef:
        """Return what stands for a whole number."""
        found = z3.Int(name)
        self.bounds.append(z3.And(found >= least, found <= LONG_MOST))
        return found

    def some_of(self, name: str, members: frozenset[str]) -> z3.ArrayRef:
        """Return what stands for any set of these texts."""
        found = z3.Const(name, z3.SetSort(z3.StringSort()))
        every = z3.EmptySet(z3.StringSort())
        for member in sorted(members):
            every = z3.SetAdd(every, z3.StringVal(member))
        self.bounds.append(z3.IsSubset(found, every))
        return found

    @staticmethod
    def _is_there(shape: Record, name: str, at: str) -> z3.BoolRef:
        return z3.BoolVal(val=True) if name in shape.required else z3.Bool(f"{at}/{name}?")


def uid_text(kind: str, name: str) -> str:
    """Return the text that stands for an entity."""
    return f"{kind}::{name}"


class Encoder:
    """Turns the conditions of policies into formulas about one seat and one target.

    `free` are truth values for conditions on the context that no formula can say: one that is
    shared is the same in other surroundings.
    """

    def __init__(self, around: Surroundings, *, free: dict[str, z3.BoolRef] | None = None) -> None:
        self._around = around
        self._free = {} if free is None else free
        self._own: dict[str, z3.BoolRef] = {}

    def holds(self, rule: pst.Template, clauses: tuple[pst.Clause, ...]) -> Holds:
        """Return when a policy with these clauses matches, and when its evaluation fails."""
        if not self._is_principal(rule.principal):
            return Holds(matches=z3.BoolVal(val=False), fails=z3.BoolVal(val=False))
        matches, fails = z3.BoolVal(val=True), z3.BoolVal(val=False)
        for clause in clauses:
            said = self._truth(clause.expr)
            is_true = z3.Not(said.value) if isinstance(clause, pst.Unless) else said.value
            fails = z3.Or(fails, z3.And(matches, said.fails))
            matches = z3.And(matches, is_true)
        return Holds(matches=z3.simplify(z3.And(matches, z3.Not(fails))), fails=z3.simplify(fails))

    def _truth(self, node: pst.Expr) -> _Said:
        """Return what a condition comes to; where a formula cannot say it, it may be either."""
        try:
            return self._said(node)
        except _UnsupportedError:
            known = self._free if _is_of_context(node) else self._own
            free = known.setdefault(repr(node), z3.FreshBool("either"))
            return _Said(free, z3.BoolVal(val=False))

    def _said(self, node: pst.Expr) -> _Said:  # one case for each kind of node
        match node:
            case pst.BoolLit() | pst.LongLit() | pst.StringLit() | pst.EntityLit():
                return _sure(_literal(node))
            case pst.Var():
                return _sure(self._variable(node))
            case pst.GetAttr(base=base, attr=attr):
                return self._member(base, attr)
            case pst.HasAttr(base=base, attrs=attrs):
                return self._has(base, attrs)
            case pst.Like(base=base, pattern=pattern):
                said = self._said(base)
                return _Said(z3.InRe(_plain(said.value), _expression(pattern)), said.fails)
            case pst.Is() | pst.BinaryOp(op="in"):
                return _sure(z3.BoolVal(self._is_known(node)))
            case pst.IfThenElse(cond=cond, then_expr=then, else_expr=other):
                return self._either(cond, then, other)
            case pst.Set(elements=elements):
                return self._set(elements)
            case pst.UnaryOp():
                return self._unary(node)
            case pst.BinaryOp(op="and" | "or"):
                return self._joined(node)
            case pst.BinaryOp():
                return self._binary(node)
            case _:
                raise _UnsupportedError

    def _variable(self, node: pst.Var) -> Value:
        around = self._around
        match node.name:
            case "context":
                return around.context
            case "principal":
                return z3.StringVal(uid_text(*around.principal))
            case "resource":
                return z3.StringVal(uid_text(*around.target.resource))
            case _:
                return z3.StringVal(uid_text("Action", around.target.action))

    def _uid(self, node: pst.Expr) -> Uid:
        """Return the entity that an expression certainly is."""
        if isinstance(node, pst.EntityLit):
            return str(node.value.type), node.value.id
        if node == pst.Var("principal"):
            return self._around.principal
        if node == pst.Var("resource"):
            return self._around.target.resource
        if node == pst.Var("action"):
            return "Action", self._around.target.action
        raise _UnsupportedError

    def _is_known(self, node: pst.Is | pst.BinaryOp) -> bool:
        """Answer what only the entities say: of which type one is, and in which others."""
        if isinstance(node, pst.Is):
            is_type = self._uid(node.base)[0] == str(node.entity_type)
            if node.in_expr is None:
                return is_type
            return is_type and self._is_in(node.base, node.in_expr)
        return self._is_in(node.left, node.right)

    def _is_in(self, inner: pst.Expr, outer: pst.Expr) -> bool:
        above = self._above(self._uid(inner))
        outers = outer.elements if isinstance(outer, pst.Set) else (outer,)
        return any(self._uid(each) in above for each in outers)

    def _above(self, uid: Uid) -> frozenset[Uid]:
        """Return an entity with all that it is in."""
        target = self._around.target
        if uid == ("Action", target.action):
            return frozenset({uid, *(("Action", group) for group in target.action_groups)})
        found, waiting = {uid}, [uid]
        while waiting:
            entity = self._around.entities.get(waiting.pop())
            for parent in () if entity is None else entity.parents:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return frozenset(found)

    def _is_principal(self, scope: pst.PrincipalOrResourceConstraint) -> bool:
        uid = self._around.principal
        match scope:
            case pst.ScopeAny():
                return True
            case pst.ScopeEq(entity=entity):
                return _uid_of(entity) == uid
            case pst.ScopeIn(entity=entity):
                return _uid_of(entity) in self._above(uid)
            case pst.ScopeIs(entity_type=kind):
                return str(kind) == uid[0]
            case pst.ScopeIsIn(entity_type=kind, entity=entity):
                return str(kind) == uid[0] and _uid_of(entity) in self._above(uid)
            case _:
                assert_never(scope)

    def _member(self, base: pst.Expr, attr: str) -> _Said:
        if isinstance(base, pst.Var) and base.name != "context":
            known = self._attributes(base).get(attr)
            if known is None:
                raise _UnsupportedError
            return _sure(_value_of(known))
        said = self._said(base)
        if not isinstance(said.value, Fields) or attr not in said.value.members:
            raise _UnsupportedError
        is_there, value = said.value.members[attr]
        return _Said(value, z3.Or(said.fails, z3.Not(is_there)))

    def _has(self, base: pst.Expr, attrs: tuple[str, ...]) -> _Said:
        if isinstance(base, pst.Var) and base.name != "context":
            if len(attrs) > 1:
                raise _UnsupportedError
            return _sure(z3.BoolVal(attrs[0] in self._attributes(base)))
        said = self._said(base)
        value, has = said.value, z3.BoolVal(val=True)
        for attr in attrs:
            if not isinstance(value, Fields):
                raise _UnsupportedError
            if attr not in value.members:
                return _Said(z3.BoolVal(val=False), said.fails)
            is_there, value = value.members[attr]
            has = z3.And(has, is_there)
        return _Said(has, said.fails)

    def _attributes(self, variable: pst.Var) -> Mapping[str, Json]:
        entity = self._around.entities.get(self._uid(variable))
        return {} if entity is None else entity.attributes

    def _either(self, cond: pst.Expr, then: pst.Expr, other: pst.Expr) -> _Said:
        when, yes, no = self._truth(cond), self._said(then), self._said(other)
        value = z3.If(when.value, _plain(yes.value), _plain(no.value))
        return _Said(value, z3.Or(when.fails, z3.If(when.value, yes.fails, no.fails)))

    def _set(self, elements: tuple[pst.Expr, ...]) -> _Said:
        said = [self._said(each) for each in elements]
        if not said:
            raise _UnsupportedError
        values = [_plain(each.value) for each in said]
        found = z3.EmptySet(values[0].sort())
        for value in values:
            found = z3.SetAdd(found, value)
        return _Said(found, z3.Or(*(each.fails for each in said)))

    def _unary(self, node: pst.UnaryOp) -> _Said:
        if node.op == "datetime" and isinstance(node.arg, pst.StringLit):
            return _sure(z3.IntVal(_milliseconds(node.arg.value)))
        if node.op == "not":
            said = self._truth(node.arg)
            return _Said(z3.Not(said.value), said.fails)
        said = self._said(node.arg)
        value = _plain(said.value)
        if node.op == "is_empty":
            return _Said(value == z3.EmptySet(value.sort().domain()), said.fails)
        if node.op == "neg":
            return _bounded(-value, said.fails)
        raise _UnsupportedError

    def _joined(self, node: pst.BinaryOp) -> _Said:
        """Return two conditions joined; the second is only read if it still matters."""
        left, right = self._truth(node.left), self._truth(node.right)
        is_and = node.op == "and"
        goes_on = left.value if is_and else z3.Not(left.value)
        joined = z3.And if is_and else z3.Or
        fails = z3.Or(left.fails, z3.And(goes_on, right.fails))
        return _Said(joined(left.value, right.value), fails)

    def _binary(self, node: pst.BinaryOp) -> _Said:
        if node.op == "contains_any" and isinstance(node.left, pst.Set):
            return self._any_of(node.left.elements, node.right)
        if node.op == "contains_any" and isinstance(node.right, pst.Set):
            return self._any_of(node.right.elements, node.left)
        left, right = self._said(node.left), self._said(node.right)
        fails = z3.Or(left.fails, right.fails)
        one, two = _plain(left.value), _plain(right.value)
        if node.op == "mul" and not (_is_number(one) or _is_number(two)):
            raise _UnsupportedError
        if node.op in _ARITHMETIC:
            return _bounded(_ARITHMETIC[node.op](one, two), fails)
        if node.op in _RELATIONS:
            return _Said(_RELATIONS[node.op](one, two), fails)
        raise _UnsupportedError

    def _any_of(self, elements: tuple[pst.Expr, ...], other: pst.Expr) -> _Said:
        said, found = [self._said(each) for each in elements], self._said(other)
        members = [z3.IsMember(_plain(each.value), _plain(found.value)) for each in said]
        return _Said(z3.Or(*members), z3.Or(found.fails, *(each.fails for each in said)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """When a policy matches, and when its evaluation fails."""

    matches: z3.BoolRef
    fails: z3.BoolRef


_ARITHMETIC: Mapping[str, Callable[[z3.ArithRef, z3.ArithRef], z3.ArithRef]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
}
_RELATIONS: Mapping[str, Callable[[z3.ExprRef, z3.ExprRef], z3.BoolRef]] = {
    "eq": operator.eq,
    "not_eq": operator.ne,
    "less": operator.lt,
    "less_eq": operator.le,
    "greater": operator.gt,
    "greater_eq": operator.ge,
    "contains": lambda some, one: z3.IsMember(one, some),
    "contains_all": lambda all_, some: z3.IsSubset(some, all_),
    "contains_any": lambda one, two: z3.SetIntersect(one, two) != z3.EmptySet(one.sort().domain()),
}


def _is_of_context(node: object) -> bool:
    """Return whether an expression reads nothing but the context."""
    if isinstance(node, pst.Var):
        return node.name == "context"
    return all(map(_is_of_context, children_of(node)))


def _is_number(value: z3.ExprRef) -> bool:
    return bool(z3.is_int_value(z3.simplify(value)))


def _sure(value: Value) -> _Said:
    return _Said(value, z3.BoolVal(val=False))


def _bounded(value: z3.ArithRef, fails: z3.BoolRef) -> _Said:
    """Return a number that Cedar refuses to compute if it does not fit in 64 bits."""
    return _Said(value, z3.Or(fails, value < LONG_LEAST, value > LONG_MOST))


def _plain(value: Value) -> z3.ExprRef:
    if isinstance(value, Fields):
        raise _UnsupportedError
    return value


def _sort(shape: Scalar) -> z3.SortRef:
    sorts = {"String": z3.StringSort, "Boolean": z3.BoolSort, "Long": z3.IntSort}
    return sorts[shape.kind]()


def _value_of(value: Json) -> Value:
    """Return the attribute of an entity, which is known."""
    match value:
        case bool():
            return z3.BoolVal(value)
        case int():
            return z3.IntVal(value)
        case str():
            return z3.StringVal(value)
        case {"__entity": {"type": str(kind), "id": str(name)}}:
            return z3.StringVal(uid_text(kind, name))
        case [*items]:
            found = z3.EmptySet(z3.StringSort())
            for item in items:
                found = z3.SetAdd(found, _plain(_value_of(item)))
            return found
        case _:
            raise _UnsupportedError


def _literal(node: pst.Lit) -> z3.ExprRef:
    match node:
        case pst.BoolLit(value=value):
            return z3.BoolVal(value)
        case pst.LongLit(value=number):
            return z3.IntVal(number)
        case pst.StringLit(value=text):
            return z3.StringVal(text)
        case pst.EntityLit(value=uid):
            return z3.StringVal(uid_text(str(uid.type), uid.id))
        case _:
            assert_never(node)


def _expression(pattern: tuple[pst.PatternElem, ...]) -> z3.ReRef:
    anything = z3.Full(z3.ReSort(z3.StringSort()))
    parts = [
        anything if isinstance(part, pst.Wildcard) else z3.Re(z3.StringVal(part.value))
        for part in pattern
    ]
    if not parts:
        return z3.Re(z3.StringVal(""))
    return parts[0] if len(parts) == 1 else z3.Concat(*parts)


def _milliseconds(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise _UnsupportedError from None
    if at.tzinfo is None:
        at = datetime.fromisoformat(f"{text}T00:00:00+00:00")
    return round(at.timestamp() * 1000)


def _uid_of(entity: pst.EntityOrSlot) -> Uid:
    # INVARIANT: the loader refuses templates, so a scope never holds a slot.
    assert isinstance(entity, pst.EntityUid)
    return str(entity.type), entity.id
