from __future__ import annotations

import json
from itertools import product

import cedarpy
from hypothesis import given
from hypothesis import strategies as st

from interlock.policy.load import load, policy_set
from interlock.policy.slices import Target, slice_of
from tests.policy.project import EXECUTOR, policy_files

ACTIONS = {
    "a.read": frozenset({"read"}),
    "a.delete": frozenset({"destructive", "write"}),
    "model.request": frozenset({"model"}),
}
RESOURCES = {"a.read": ("Tool", "t1"), "a.delete": ("Tool", "t2"), "model.request": ("Model", "m")}
PARENTS = {"t1": ("System", "s1"), "t2": ("System", "s2")}

_ACTION_SCOPES = (
    "action",
    *(f'action == Action::"{name}"' for name in ACTIONS),
    *(f'action in Action::"{name}"' for name in ("read", "write", "destructive", "model")),
    'action in [Action::"read", Action::"a.delete"]',
    "action in []",
)
_RESOURCE_SCOPES = (
    "resource",
    'resource == Tool::"t1"',
    'resource == Model::"t1"',
    'resource in System::"s1"',
    'resource in Tool::"t2"',
    "resource is Tool",
    "resource is Model",
    'resource is Tool in System::"s2"',
    'resource is Model in System::"s2"',
)


def target(action: str) -> Target:
    """Return the action on its resource."""
    kind, name = RESOURCES[action]
    return Target(
        action=action,
        action_groups=ACTIONS[action],
        resource=(kind, name),
        resource_parents=frozenset({PARENTS[name]} if name in PARENTS else ()),
    )


def entities() -> str:
    """Return actions, tools and the model as Cedar entities."""
    groups = {"read": [], "write": [], "destructive": ["write"], "model": []}
    listed = [("Action", name, [("Action", g) for g in above]) for name, above in groups.items()]
    for action, above in ACTIONS.items():
        kind, name = RESOURCES[action]
        listed.append(("Action", action, [("Action", group) for group in above]))
        listed.append((kind, name, [PARENTS[name]] if name in PARENTS else []))
    return json.dumps(
        [
            {
                "uid": {"type": kind, "id": name},
                "attrs": {},
                "parents": [{"type": k, "id": n} for k, n in parents],
            }
            for kind, name, parents in listed
        ]
    )


ENTITIES = entities()


@given(
    scopes=st.lists(
        st.tuples(
            st.sampled_from(["permit", "forbid"]),
            st.sampled_from(_ACTION_SCOPES),
            st.sampled_from(_RESOURCE_SCOPES),
        ),
        max_size=8,
    )
)
def test_slice_decides_like_the_whole_set(scopes: list[tuple[str, str, str]]) -> None:
    """For every target, sliced and unsliced policies give one answer with one set of reasons."""
    texts = [
        f'@id("p{n}") @owner("o") @why("w") {effect} (principal, {action}, {resource});'
        for n, (effect, action, resource) in enumerate(scopes)
    ]
    policies, problems = load(policy_files(*texts))
    assert () == problems

    for action in ACTIONS:
        kind, name = RESOURCES[action]
        request = {
            "principal": {"type": "Agent", "id": str(EXECUTOR)},
            "action": {"type": "Action", "id": action},
            "resource": {"type": kind, "id": name},
            "context": {},
        }
        whole, sliced = (
            cedarpy.is_authorized(request, policy_set(part), ENTITIES)
            for part in (policies, slice_of(policies, target(action)))
        )
        assert whole.decision is sliced.decision
        assert sorted(whole.diagnostics.reasons) == sorted(sliced.diagnostics.reasons)


def test_slice_drops_what_cannot_match() -> None:
    """Of all combinations of scopes only those that fit the target remain."""
    texts = [
        f'@id("{n}") @owner("o") permit (principal, {action}, {resource});'
        for n, (action, resource) in enumerate(product(_ACTION_SCOPES, _RESOURCE_SCOPES))
    ]
    policies, _ = load(policy_files(*texts))

    found = slice_of(policies, target("model.request"))

    # `action`, `== model.request` and `in model`, each with `resource` and `resource is Model`.
    assert (6, len(texts)) == (len(found), len(policies))
