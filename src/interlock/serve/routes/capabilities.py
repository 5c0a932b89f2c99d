"""REST: who can do what at all, by the live policies: unattended, by approval, as drafts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from interlock.calls.road import Live
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.principal import Principal, Seat
from interlock.domain.record import object_to_json, to_json
from interlock.domain.release import Release
from interlock.domain.switch import KillSwitch, Target
from interlock.domain.tool import ENVIRONMENTS, Environment, Group, ToolVersion
from interlock.policy.engine import World
from interlock.policy.reach import CAN_BE_EXACT, Capability, capability
from interlock.policy.schema import ancestors_of, groups_of, seats_of
from interlock.runtime.registry.rights import ONE_AT_A_TIME, fits, shown_example
from interlock.serve.auth import App
from interlock.serve.routes.catalog import is_told
from interlock.serve.routes.operations import span_of
from interlock.serve.routes.runs import Reader
from interlock.serve.strict import StrictRoute
from interlock.store import activity, switches

router = APIRouter(tags=["catalog"], route_class=StrictRoute)


class Asked(BaseModel):
    """Which capabilities are asked for; what is None is any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: Literal["read", "write", "destructive", "egress"] | None = None
    system: str | None = None
    environment: Environment | None = None
    seat: str | None = None
    tool: str | None = None

    def takes(self, tool: ToolVersion) -> bool:
        """Return whether a tool is asked about."""
        return (
            self.tool in {None, tool.name}
            and self.system in {None, tool.system}
            and (self.group is None or self.group in ancestors_of(groups_of(tool)))
        )


class AskedSince(Asked):
    """The same, and since when: a time span as 90s, 15m, 1h or 7d."""

    since: str = "30d"


@router.get("/capabilities")
def list_capabilities(app: App, reader: Reader, asked: Annotated[Asked, Query()]) -> JsonObject:
    """List who can call what, each with its ways, granting policies and open conditions.

    Of the reader's tenant. A way is exact if it has an example: a call that the policies answer so.
    For one seat, also the tools are listed that it has and can never call.
    """
    with app.db.reading() as tx:
        live, stopped = app.live(tx), switches.list_in_force(tx, reader.tenant)
    _check(live, reader, asked)
    with ONE_AT_A_TIME:
        rows = [
            _row(found) | {"group": tool.group.value, "blocked": blocked}
            for found, tool, blocked in _capabilities(live, reader, asked, stopped)
        ]
    return {"can_be_exact": CAN_BE_EXACT, "capabilities": to_json(rows)}


@router.get("/capabilities/history")
def list_changes(app: App, reader: Reader, asked: Annotated[AskedSince, Query()]) -> JsonObject:
    """List the releases that changed who can call what, oldest first, with what they changed.

    Of the reader's tenant; who applied it, and who had asked for it if it took two people.
    """
    span_us = span_of(asked.since)
    with app.db.reading() as tx:
        since_us = tx.now_us - span_us

    def is_asked(world: World, seat: Seat, tool: ToolVersion | None) -> bool:
        return (
            tool is not None
            and world.release.workflows[seat.workflow].tenant == reader.tenant
            and asked.seat in {None, str(seat)}
            and asked.environment in {None, world.environment}
            and asked.takes(tool)
        )

    found = app.past_rights(since_us=since_us, is_asked=is_asked)
    told: list[Json] = [
        object_to_json(each.release)
        | {"rights": each.rights.to_json(), "text": each.rights.to_text()}
        for each in found
    ]
    return {"since_us": since_us, "releases": told}


@router.get("/capabilities/unused")
def list_unused(app: App, reader: Reader, asked: Annotated[AskedSince, Query()]) -> JsonObject:
    """List the tools that seats have and have not called since a moment, writing ones first.

    With when they were called last, of the calls that are kept.
    """
    span_us = span_of(asked.since)
    with app.db.reading() as tx:
        live, calls = app.live(tx), activity.last_calls(tx, reader.tenant)
        since_us = tx.now_us - span_us
    _check(live, reader, asked)
    rows: list[Json] = []
    for environment, seat in product(ENVIRONMENTS, _seats(live, reader)):
        here = live.release.at(environment)
        names = live.release.workflows[seat.workflow].tools_of(seat.agent)
        for tool in _tools(here, reader, asked):
            last_us = calls.get((seat, tool.name, environment))
            if (
                tool.name in names
                and asked.environment in {None, environment}
                and asked.seat in {None, str(seat)}
                and live.release.live(tool.name, environment) is not None
                and (last_us is None or last_us < since_us)
            ):
                row: JsonObject = {
                    "seat": str(seat),
                    "tool": tool.name,
                    "environment": environment,
                    "group": tool.group.value,
                    "last_us": last_us,
                }
                rows.append(row)
    rows.sort(key=lambda row: isinstance(row, dict) and row["group"] == Group.READ)
    return {"since_us": since_us, "unused": rows}


def _row(found: Capability) -> JsonObject:
    ways: list[Json] = [
        object_to_json(way) | {"is_exact": way.is_exact, "example": shown_example(way.example)}
        for way in found.ways
    ]
    return object_to_json(found) | {"seat": str(found.seat), "ways": ways}


def _check(live: Live, reader: Principal, asked: Asked) -> None:
    release = live.release
    seats = {str(seat) for seat in _seats(live, reader)}
    for what, name, known in (
        ("seat", asked.seat, seats),
        ("tool", asked.tool, {n for n, t in release.tools.items() if is_told(release, reader, t)}),
        (
            "system",
            asked.system,
            {n for n, s in release.systems.items() if s.tenant in {None, reader.tenant}},
        ),
    ):
        if name is not None and name not in known:
            told = f"; known are {', '.join(sorted(known))}" if known else ""
            raise InputError(f"there is no {what} `{name}`{told}")


def _capabilities(
    live: Live, reader: Principal, asked: Asked, stopped: Sequence[KillSwitch]
) -> Iterator[tuple[Capability, ToolVersion, str | None]]:
    """Yield capabilities with why the tool cannot be called at present, if it cannot."""
    for environment in ENVIRONMENTS:
        world = live.worlds.get(environment)
        if world is None or asked.environment not in {None, environment}:
            continue
        here = live.release.at(environment)
        for tool, seat in product(_tools(here, reader, asked), _seats(live, reader)):
            if asked.seat not in {None, str(seat)} or world.slice_of(tool.name) is None:
                continue
            blocked = _blocked(live, seat, tool, environment) or _stopped(
                live, seat, tool, environment, stopped
            )
            found = Capability(seat=seat, tool=tool.name, environment=environment, ways=())
            if blocked is None:
                found = capability(world, seat, tool, fits=fits)
            workflow = live.release.workflows[seat.workflow]
            is_listed = tool.name in workflow.tools_of(seat.agent)
            if found.ways or (is_listed and (blocked is not None or asked.seat is not None)):
                yield found, tool, blocked


def _tools(release: Release, reader: Principal, asked: Asked) -> Iterator[ToolVersion]:
    for _, tool in sorted(release.tools.items()):
        if is_told(release, reader, tool) and asked.takes(tool):
            yield tool


def _seats(live: Live, reader: Principal) -> list[Seat]:
    workflows = sorted(live.release.workflows.items())
    return [
        seat for _, flow in workflows if flow.tenant == reader.tenant for seat in seats_of(flow)
    ]


def _blocked(live: Live, seat: Seat, tool: ToolVersion, environment: Environment) -> str | None:
    binding = live.release.bind(tool, environment, seat.workflow)
    if binding is None:
        return "it is not bound here"
    if binding.reason is not None:
        return f"quarantined: {binding.reason}"
    if binding.lacks_credentials:
        return f"`{seat.workflow}` has no credentials for it"
    return None


def _stopped(
    live: Live,
    seat: Seat,
    tool: ToolVersion,
    environment: Environment,
    stopped: Sequence[KillSwitch],
) -> str | None:
    workflow = live.release.workflows[seat.workflow]
    target = Target(
        tenant=workflow.tenant,
        environment=environment,
        department=workflow.department,
        workflow=seat.workflow,
        seats=(seat,),
        tool=tool.name,
        system=tool.system,
        is_write=tool.is_write,
    )
    found = next((switch for switch in stopped if switch.scope.covers(target)), None)
    return None if found is None else f"stopped by `{found.set_by}`: {found.reason}"
