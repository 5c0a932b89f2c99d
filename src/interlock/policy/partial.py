"""What policies can still say of a call of which some arguments are not known yet.

No policy is asked about a value that is not there. A policy without the conditions that read an
unknown matches whenever the whole policy does; with such permits added, and such forbids left out,
an answer is the most lenient possible, and the other way round it is the strictest. Cedar's own
partial evaluation cannot say as much: it takes no schema for such a request, and leaves every
condition open that reads anything of the context.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from cedarpy import pst

from interlock.domain.canonical import Json
from interlock.domain.pointer import are_nested, escaped, parts_of
from interlock.policy.context import Derived
from interlock.policy.load import Policy, children_of
from interlock.policy.shape import Record, Scalar, SetOf, Shape

Path = tuple[str, ...]
"""Names that lead from the context to a value: `("args", "title")`."""

_BLANKS: Mapping[str, Json] = {"Long": 0, "String": "", "Boolean": False}


def extremes(
    policies: Iterable[Policy], unknown: Collection[Path]
) -> tuple[tuple[Policy, ...], tuple[Policy, ...]]:
    """Return policies whose answer is at most, and at least, as strict as that of the given ones.

    Neither reads an unknown.
    """
    lenient: list[Policy] = []
    strict: list[Policy] = []
    for policy in policies:
        weaker = _weakened(policy, unknown)
        is_permit = policy.rule.effect == "permit"
        if weaker is policy or is_permit:
            lenient.append(weaker)
        if weaker is policy or not is_permit:
            strict.append(weaker)
    return tuple(lenient), tuple(strict)


def paths_of(unknown: Iterable[str], derived: Mapping[str, Derived]) -> frozenset[Path]:
    """Return what policies cannot know if these places in the arguments are unknown."""
    places = frozenset(unknown)
    computed = {
        ("derived", name)
        for name, value in derived.items()
        if any(are_nested(value.pointer, place) for place in places)
    }
    return frozenset({("args", *parts_of(place)) for place in places} | computed)


def filled_in(shape: Shape, value: Json, unknown: Collection[str], *, at: str = "") -> Json:
    """Return a value with something of the right type at the unknown places, for nobody to read."""
    if at in unknown:
        return blank(shape)
    if isinstance(shape, Record) and isinstance(value, dict):
        return {
            name: item
            if name not in shape.fields
            else filled_in(shape.fields[name], item, unknown, at=f"{at}/{escaped(name)}")
            for name, item in value.items()
        }
    if isinstance(shape, SetOf) and isinstance(value, list):
        return [
            filled_in(shape.item, item, unknown, at=f"{at}/{index}")
            for index, item in enumerate(value)
        ]
    return value


def blank(shape: Shape) -> Json:
    """Return the emptiest value of a shape."""
    match shape:
        case Scalar():
            return _BLANKS[shape.kind]
        case SetOf():
            return []
        case Record():
            return {name: blank(shape.fields[name]) for name in sorted(shape.required)}
        case _:
            assert_never(shape)


def conditions_of(policy: Policy) -> Iterator[pst.Clause]:
    """Yield the conditions of a policy, as its author wrote them, that all have to hold."""
    for clause in policy.conditions:
        yield from _conjuncts(clause)


def reads(node: object, unknown: Collection[Path]) -> bool:
    """Return whether a condition reads any of these."""
    path = _path(node)
    if path is None:
        return any(reads(child, unknown) for child in children_of(node))
    # Whoever reads a record reads what is in it, and whether it is there.
    return any(path[: len(each)] == each[: len(path)] for each in unknown)


def _weakened(policy: Policy, unknown: Collection[Path]) -> Policy:
    """Return the policy without the conditions that read an unknown; itself if none does."""
    clauses = [part for clause in policy.rule.clauses for part in _conjuncts(clause)]
    kept = tuple(clause for clause in clauses if not reads(clause, unknown))
    if len(kept) == len(clauses):
        return policy
    return replace(policy, rule=replace(policy.rule, clauses=kept))


def _conjuncts(clause: pst.Clause) -> Iterator[pst.Clause]:
    """Split a condition into those that all have to hold."""
    match clause:
        case pst.When(expr=pst.BinaryOp(op="and", left=left, right=right)):
            yield from _conjuncts(pst.When(left))
            yield from _conjuncts(pst.When(right))
        case pst.Unless(expr=pst.BinaryOp(op="or", left=left, right=right)):
            yield from _conjuncts(pst.Unless(left))
            yield from _conjuncts(pst.Unless(right))
        case _:
            yield clause


def _path(node: object) -> Path | None:
    """Return what of the context an expression names; None if it is no such name."""
    names: tuple[str, ...] = ()
    while isinstance(node, pst.GetAttr | pst.HasAttr):
        names = (*(node.attrs if isinstance(node, pst.HasAttr) else (node.attr,)), *names)
        node = node.base
    return names if node == pst.Var("context") else None
