"""REST: what may run, as the live release has it: tools, workflows, and who made it so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import ToolName, WorkflowName
from interlock.domain.principal import Principal, Role
from interlock.domain.record import object_to_json, to_json
from interlock.domain.release import Release, pin_of
from interlock.domain.text import difference
from interlock.domain.tool import Environment, SystemKind, ToolVersion
from interlock.domain.workflow import WORKFLOW_AGENT, WorkflowSpec
from interlock.manifest.diff import GRAVE
from interlock.serve.auth import App, needs
from interlock.serve.routes.runs import Reader
from interlock.serve.routes.stops.breakers import check_own
from interlock.serve.strict import Body, StrictRoute
from interlock.store import activity, registry

_DAY_US = 86_400_000_000
router = APIRouter(tags=["catalog"], route_class=StrictRoute)
Tester = Annotated[Principal, Depends(needs(Role.OPERATOR, Role.OWNER, Role.ADMIN))]


class TestBody(Body):
    """Where to look, everywhere if absent; `arguments` are checked and shown as a request."""

    environment: Environment | None = None
    arguments: dict[str, Json] | None = None


@router.get("/tools")
def list_tools(app: App, reader: Reader, kind: SystemKind | None = None) -> JsonObject:
    """List the live tools: version, owner, class, risk, labels, bindings and the seats they have.

    With `kind`, those of such systems. Of another tenant's systems and workflows nothing is told.
    """
    with app.db.reading() as tx:
        release = app.release(tx)
    own = [
        tool
        for _, tool in sorted(release.tools.items())
        if is_told(release, reader, tool) and kind in {None, _kind(release, tool)}
    ]
    return {"tools": [_row(release, reader, _narrowed(release, reader, tool)) for tool in own]}


@router.get("/tools/{name}")
def show_tool(app: App, reader: Reader, name: str) -> JsonObject:
    """Return one tool: its manifest, its pin, and which seats may propose it."""
    with app.db.reading() as tx:
        release = app.release(tx)
    tool = _told(release, reader, name)
    return object_to_json(tool) | {
        "pin": pin_of(tool),
        "seats": to_json(_seats(release, reader, tool)),
        "versions": to_json(release.versions_of(tool.name)),
        "live": _live(release, tool.name),
        "deprecations": _deprecations(release, tool.name),
        "kind": _kind(release, tool),
        "bindings": _bindings(release, reader, tool.name),
        "quarantine": to_json(
            {k: why for k, why in release.quarantine.items() if k.startswith(f"{name}@")}
        ),
    }


@router.get("/tools/{name}/usage")
def show_usage(
    app: App, reader: Reader, name: str, days: Annotated[int, Query(ge=1, le=400)] = 30
) -> JsonObject:
    """Return who uses a tool: workflows that have it now, and their calls of the last days.

    By environment and version; one that has it and made none has a row without these.
    """
    with app.db.reading() as tx:
        release = app.release(tx)
        tool = _told(release, reader, name)
        since_us = tx.now_us - days * _DAY_US
        counted = activity.count_calls_of(tx, tool.name, tenant=reader.tenant, since_us=since_us)
    callers = {flow.name: flow for flow in release.callers(tool.name)}
    idle = sorted(
        flow.name
        for flow in callers.values()
        if flow.tenant == reader.tenant and flow.name not in {key[0] for key in counted}
    )
    rows: list[tuple[str, str | None, int | None, int]] = [
        *((flow, place, version, calls) for (flow, place, version), calls in counted.items()),
        *((flow, None, None, 0) for flow in idle),
    ]
    return {
        "tool": name,
        "days": days,
        "callers": [
            {
                "workflow": flow,
                "owner": _owner(release, flow),
                "has_it": flow in callers,
                "environment": place,
                "version": version,
                "calls": calls,
            }
            for flow, place, version, calls in rows
        ],
    }


@router.get("/tools/{name}/diff")
def diff_tool(
    app: App, reader: Reader, name: str, before: int, after: int | None = None
) -> JsonObject:
    """Compare two versions of a tool, the second one the live one if nothing is said."""
    with app.db.reading() as tx:
        release = app.release(tx)
    live = _told(release, reader, name)
    numbers = (before, live.version if after is None else after)
    sides = [_manifest(release, reader, live.name, number) for number in numbers]
    names = (f"{name}@{numbers[0]}", f"{name}@{numbers[1]}")
    return {
        "before": numbers[0],
        "after": numbers[1],
        "grave": to_json([key for key in GRAVE if sides[0][key] != sides[1][key]]),
        "lines": to_json(difference(sides[0], sides[1], names=names)),
    }


@router.post("/tools/{name}/test")
def test_tool(app: App, tester: Tester, name: str, body: TestBody) -> JsonObject:
    """Look at what a call of a tool needs, check by check; no call is made."""
    with app.db.reading() as tx:
        release = app.release(tx)
        tool = _told(release, tester, name)
        live = release.every_live(tool.name)
        wanted = sorted(live) if body.environment is None else [body.environment]
        for environment in wanted:
            if environment in live:
                check_own(app, tx, tester, live[environment].environments[environment].server)
    found = [
        app.try_tool(tool, environment, by=tester, arguments=body.arguments)
        for environment in wanted
    ]
    return {
        "tool": name,
        "is_ok": bool(found) and all(trial.is_ok for trial in found),
        "environments": [object_to_json(trial) for trial in found],
    }


@router.get("/workflows")
def list_workflows(app: App, reader: Reader) -> JsonObject:
    """List the live workflows of the reader's tenant."""
    with app.db.reading() as tx:
        release = app.release(tx)
    own = [flow for _, flow in sorted(release.workflows.items()) if flow.tenant == reader.tenant]
    return {"workflows": [object_to_json(flow) for flow in own]}


@router.get("/workflows/{name}")
def show_workflow(app: App, reader: Reader, name: str) -> JsonObject:
    """Return one workflow: triggers, seats, approvals, failure modes, success criteria."""
    with app.db.reading() as tx:
        return object_to_json(own_workflow(app.release(tx), reader, name))


@router.get("/releases")
def list_releases(app: App, _reader: Reader) -> JsonObject:
    """List what was applied, newest first: number, digest, by whom, when."""
    with app.db.reading() as tx:
        return {"releases": to_json(tuple(registry.list_releases(tx)))}


def own_workflow(release: Release, reader: Principal, name: str) -> WorkflowSpec:
    """Return a live workflow of the reader's tenant; raises `NotFoundError`."""
    found = release.workflows.get(WorkflowName(name))
    if found is None or found.tenant != reader.tenant:
        raise NotFoundError(f"there is no workflow `{name}`")
    return found


def is_told(release: Release, reader: Principal, tool: ToolVersion) -> bool:
    """Return whether a reader may know of a tool: not of those of another tenant's systems."""
    system = release.systems.get(tool.system)
    return system is None or system.tenant in {None, reader.tenant}


def _told(release: Release, reader: Principal, name: str) -> ToolVersion:
    tool = release.tools.get(ToolName(name))
    if tool is None or not is_told(release, reader, tool):
        raise NotFoundError(f"there is no tool `{name}`")
    return _narrowed(release, reader, tool)


def _narrowed(release: Release, reader: Principal, tool: ToolVersion) -> ToolVersion:
    """Leave out for which workflows of other tenants the tool has credentials."""
    environments = dict(tool.environments)
    for name, target in environments.items():
        if isinstance(target.credentials, Mapping):
            own = {
                workflow: reference
                for workflow, reference in target.credentials.items()
                if workflow in release.workflows
                and release.workflows[workflow].tenant == reader.tenant
            }
            environments[name] = replace(target, credentials=own)
    return replace(tool, environments=environments)


def _manifest(release: Release, reader: Principal, name: ToolName, version: int) -> JsonObject:
    tool = release.tool_version(name, version)
    if tool is None:
        known = ", ".join(map(str, release.versions_of(name)))
        raise NotFoundError(f"there is no version {version} of `{name}`, only {known}")
    return object_to_json(_narrowed(release, reader, tool))


def _seats(release: Release, reader: Principal, tool: ToolVersion) -> list[str]:
    return sorted(
        f"{workflow.name}/{seat}"
        for workflow in release.workflows.values()
        if workflow.tenant == reader.tenant
        for seat in (*(each.agent for each in workflow.seats), WORKFLOW_AGENT)
        if tool.name in workflow.tools_of(seat)
    )


def _kind(release: Release, tool: ToolVersion) -> SystemKind:
    system = release.systems.get(tool.system)
    return "other" if system is None else system.kind


def _deprecations(release: Release, name: ToolName) -> JsonObject:
    every = (release.tool_version(name, version) for version in release.versions_of(name))
    return {
        str(tool.version): object_to_json(tool.deprecation)
        for tool in every
        if tool is not None and tool.deprecation is not None
    }


def _owner(release: Release, workflow: str) -> str | None:
    flow = release.workflows.get(WorkflowName(workflow))
    return None if flow is None else flow.owner


def _live(release: Release, name: ToolName) -> JsonObject:
    return {place: tool.version for place, tool in release.every_live(name).items()}


def _bindings(release: Release, reader: Principal, name: ToolName) -> list[Json]:
    live = release.every_live(name)
    found = [
        release.bind(_narrowed(release, reader, live[environment]), environment)
        for environment in sorted(live)
    ]
    return [
        {
            "environment": binding.environment,
            "version": binding.tool.version,
            "server": binding.server.name,
            "protocol": binding.server.kind,
            "credentials": to_json(binding.tool.environments[binding.environment].credentials),
            "quarantine": binding.reason,
        }
        for binding in found
        if binding is not None
    ]


def _row(release: Release, reader: Principal, tool: ToolVersion) -> JsonObject:
    return {
        "name": tool.name,
        "version": tool.version,
        "title": tool.title,
        "owner": tool.owner,
        "system": tool.system,
        "kind": _kind(release, tool),
        "group": tool.group.value,
        "effect_class": tool.effect.effect_class.value,
        "risk": tool.risk,
        "is_egress": tool.is_egress,
        "source_labels": to_json(tool.source.labels),
        "accepts": to_json(tool.sink.accepts),
        "is_deprecated": any(
            one.deprecation is not None for one in release.every_live(tool.name).values()
        ),
        "environments": to_json(sorted(release.every_live(tool.name))),
        "bindings": _bindings(release, reader, tool.name),
        "seats": to_json(_seats(release, reader, tool)),
    }
