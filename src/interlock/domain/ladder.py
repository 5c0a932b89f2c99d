"""What an apply does to levels that were earned: they are those of exactly what earned them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from interlock.domain.autonomy import EARNED_IN, HIGHEST, SYSTEM, Rung, rung_key
from interlock.domain.canonical import Json, digest
from interlock.domain.ids import WorkflowName
from interlock.domain.record import object_to_json
from interlock.domain.release import Release, pin_of
from interlock.domain.tool import Environment
from interlock.domain.workflow import WorkflowSpec

NEW_VERSIONS = "another workflow, prompt, model or tool version, and no passed suite for it"
IsPassed = Callable[[WorkflowName, str], bool]
"""Whether the newest suite of a workflow was passed by exactly these versions."""

_UNPROVEN = 1


def versions_of(release: Release, workflow: WorkflowName, environment: Environment) -> str:
    """Return the digest of what acts for a workflow in an environment.

    That is the workflow, its agents (with prompt and model) and the tools that it has there.
    """
    spec = release.workflows[workflow]
    body = object_to_json(spec)
    del body["autonomy"], body["ceiling"]
    agents = sorted({seat.agent for seat in spec.seats})
    found: list[Json] = [body]
    found += [object_to_json(release.agents[name]) for name in agents if name in release.agents]
    for name in sorted(spec.every_tool):
        tool = release.live(name, environment)
        found.append([name, None if tool is None else pin_of(tool)])
    return digest(found)


def is_there(release: Release, spec: WorkflowSpec, environment: Environment) -> bool:
    """Return whether a workflow can do anything in an environment."""
    return any(release.live(name, environment) is not None for name in spec.every_tool)


def carried(live: Release, candidate: Release, *, is_passed: IsPassed) -> dict[str, Rung]:
    """Return the levels that a candidate has when it replaces the live release.

    A new workflow begins at 0. One that acts in another way now keeps its level only if its suite
    was passed by exactly what it is now, else at most 1; evidence is counted anew.
    """
    ladder: dict[str, Rung] = {}
    number = live.number + 1
    for name, spec in sorted(candidate.workflows.items()):
        for environment in EARNED_IN:
            if not is_there(candidate, spec, environment):
                continue
            key, versions = rung_key(name, environment), versions_of(candidate, name, environment)
            rung = live.ladder.get(key) or Rung(
                level=0,
                since=number,
                versions=versions,
                counted_from=number,
                by=SYSTEM,
                reason="a new workflow only drafts",
            )
            if rung.versions != versions:
                rung = replace(rung, versions=versions, counted_from=number)
                if not is_passed(name, versions):
                    rung = lowered(rung, _UNPROVEN, since=number, by=SYSTEM, reason=NEW_VERSIONS)
            ceiling = spec.ceiling.get(environment, HIGHEST)
            ladder[key] = lowered(
                rung, ceiling, since=number, by=SYSTEM, reason="the file sets this ceiling"
            )
    return ladder


def lowered(rung: Rung, level: int, *, since: int, by: str, reason: str) -> Rung:
    """Return a rung at most at a level; as it is if it is no higher."""
    if rung.level <= level:
        return rung
    return replace(rung, level=level, since=since, by=by, reason=reason, confirmed_by=None)
