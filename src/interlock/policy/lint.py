"""Refuses policies that would not mean what they say, before they can come into force.

Beside Cedar's own validation: names that exist nowhere (Cedar takes any id for an entity that
matches nothing), groups that are no team, and the annotations that `load` checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain

import cedarpy
from cedarpy import pst

from interlock.domain.approval import team_of
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError, Problem
from interlock.domain.ids import ToolName
from interlock.domain.label import UNDECLARED
from interlock.domain.release import Release
from interlock.policy.load import DRAFT, RESERVED_GROUPS, Policy, load, policy_set
from interlock.policy.schema import (
    RESERVED_ACTIONS,
    ModelResource,
    ToolAction,
    known_names,
    schema_json,
)

_NO_ACTION = "unable to find an applicable action"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a release's policies came to: usable only if `problems` is empty."""

    policies: tuple[Policy, ...]
    actions: Mapping[ToolName, ToolAction]
    schema: JsonObject
    problems: tuple[Problem, ...]


def check(
    release: Release, *, models: Mapping[str, ModelResource] | None = None
) -> tuple[Problem, ...]:
    """Return every problem of a release's policies, with file and line; none means that it loads.

    `models` are the configured models; without them a policy that names a model is not checked
    for its name.
    """
    found = (read_policies(view, models=models).problems for view in release.views())
    return tuple(dict.fromkeys(chain.from_iterable(found)))


def read_policies(release: Release, *, models: Mapping[str, ModelResource] | None) -> Checked:
    """Load, check and validate the policies of a release."""
    policies, problems = load(release.policies)
    actions, action_problems = _actions(release)
    schema = schema_json(release, actions)
    found = [*problems, *action_problems, *_label_problems(release, models or {})]
    names = known_names(release, models=models or {})
    if models is None:
        del names["Model"]
    for policy in policies:
        found.extend(_name_problems(policy, names))
        found.extend(_group_problems(policy, release.teams))
    found.extend(_validation_problems(policies, schema))
    return Checked(policies=policies, actions=actions, schema=schema, problems=tuple(found))


def _actions(release: Release) -> tuple[dict[ToolName, ToolAction], list[Problem]]:
    actions: dict[ToolName, ToolAction] = {}
    problems: list[Problem] = []
    for name, tool in release.tools.items():
        where = f"tool {name}@{tool.version}"
        if name in RESERVED_ACTIONS:
            problems.append(Problem(path=where, line=None, message=f"`{name}` is a reserved name"))
            continue
        try:
            actions[name] = ToolAction.of(tool)
        except InputError as error:
            problems.append(Problem(path=where, line=None, message=error.message))
    return actions, problems


def _label_problems(release: Release, models: Mapping[str, ModelResource]) -> Iterator[Problem]:
    known = {*release.labels, UNDECLARED}
    used = {
        f"tool {tool.name}@{tool.version}": tool.source.labels | tool.sink.accepts
        for tool in release.tools.values()
    } | {f"model {model.name}": model.accepts for model in models.values()}
    for where, labels in used.items():
        for label in sorted(labels - known):
            message = f"there is no label `{label}`"
            yield Problem(path=where, line=None, message=message, fix="add it to `labels`")


def _name_problems(policy: Policy, names: Mapping[str, set[str]]) -> Iterator[Problem]:
    # Actions and labels are checked by Cedar, which knows all of them.
    for uid in sorted(pst.entity_uids(policy.rule), key=str):
        known = names.get(str(uid.type))
        if known is not None and uid.id not in known:
            near = get_close_matches(uid.id, known, n=1)
            yield Problem(
                path=policy.path,
                line=policy.line,
                message=f"there is no {str(uid.type).lower()} `{uid.id}`",
                fix=f"did you mean `{near[0]}`?" if near else None,
            )


def _group_problems(policy: Policy, teams: tuple[str, ...]) -> Iterator[Problem]:
    group = team_of(policy.groups[0]) if policy.groups else None
    if group is not None and group not in RESERVED_GROUPS and group not in teams:
        near = get_close_matches(group, [*teams, *sorted(RESERVED_GROUPS - {DRAFT})], n=1)
        yield Problem(
            path=policy.path,
            line=policy.line,
            message=f"`{policy.policy_id}` asks the group `{group}`, which is no team here",
            fix=f"did you mean `{near[0]}`?" if near else "add it to `teams`",
        )


def _validation_problems(policies: tuple[Policy, ...], schema: JsonObject) -> Iterator[Problem]:
    handle = cedarpy.Schema.from_json_str(json.dumps(schema))
    for policy in policies:
        result = cedarpy.validate_policies(str(policy_set([policy])), handle)
        for message in _messages([problem.error for problem in result.errors]):
            yield Problem(
                path=policy.path, line=policy.line, message=f"`{policy.policy_id}`: {message}"
            )


def _messages(errors: list[str]) -> list[str]:
    """Drop Cedar's own name for the policy, and what only follows from another error."""
    plain = [
        error.removeprefix("for policy `policy0`").removeprefix(",").removeprefix(":").strip()
        for error in errors
    ]
    causes = [message for message in plain if not message.startswith(_NO_ACTION)]
    return causes or plain
