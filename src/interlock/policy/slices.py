"""Which policies can match one action on one resource: Cedar itself does not index by scope."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from cedarpy import pst

from interlock.policy.load import Policy

Uid = tuple[str, str]
"""An entity's type and id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One action on one resource, each with everything that it is in."""

    action: str
    action_groups: frozenset[str]
    resource: Uid
    resource_parents: frozenset[Uid]


def slice_of(policies: Iterable[Policy], target: Target) -> tuple[Policy, ...]:
    """Return the policies whose scope may match the target, in the order given."""
    return tuple(
        policy
        for policy in policies
        if _action_may_match(policy.rule.action, target)
        and _resource_may_match(policy.rule.resource, target)
    )


def _action_may_match(constraint: pst.ActionConstraint, target: Target) -> bool:
    match constraint:
        case pst.ScopeAny():
            return True
        case pst.ActionEq(entity=entity):
            return entity.id == target.action
        case pst.ActionIn(entities=entities):
            return any(e.id == target.action or e.id in target.action_groups for e in entities)
        case _:
            assert_never(constraint)


def _resource_may_match(constraint: pst.PrincipalOrResourceConstraint, target: Target) -> bool:
    match constraint:
        case pst.ScopeAny():
            return True
        case pst.ScopeEq(entity=entity):
            return _uid(entity) == target.resource
        case pst.ScopeIn(entity=entity):
            return _is_in(entity, target)
        case pst.ScopeIs(entity_type=kind):
            return str(kind) == target.resource[0]
        case pst.ScopeIsIn(entity_type=kind, entity=entity):
            return str(kind) == target.resource[0] and _is_in(entity, target)
        case _:
            assert_never(constraint)


def _is_in(entity: pst.EntityOrSlot, target: Target) -> bool:
    uid = _uid(entity)
    return uid == target.resource or uid in target.resource_parents


def _uid(entity: pst.EntityOrSlot) -> Uid:
    # INVARIANT: the loader refuses templates, so a scope never holds a slot.
    assert isinstance(entity, pst.EntityUid)
    return str(entity.type), entity.id
