"""Who-can names each way in which a seat can call a tool, and no other: 0 mismatches.

Calls near to where policies change their mind are decided one by one, those that nobody should be
able to make among them. Each answer has to be a way that was named before, and each way that was
named has to have a call that is answered so.
"""

from __future__ import annotations

from collections import Counter

from interlock.domain.decision import Decision, Outcome
from interlock.domain.ids import ToolName
from interlock.domain.principal import Seat
from interlock.policy.engine import World
from interlock.policy.reach import CAN_BE_EXACT, Capability, Way, capability
from interlock.policy.schema import seats_of
from interlock.runtime.registry.rights import fits
from proofs import policy_project as project
from proofs.verdict import Verdict, say, sized

SAMPLES, SAMPLES_LONG = 20_000, 200_000
GOAL_SAMPLES = 5_000


def main() -> Verdict:
    """Ask for each seat and tool, then decide calls and compare."""
    world = project.world()
    told = _told(world)
    ways = [way for each in told.values() for way in each.ways]
    say(f"{len(told)} pairs of seat and tool, {len(ways)} ways")
    wrong = _unmet(world, told)
    met: Counter[Outcome] = Counter()
    count = sized(SAMPLES, long=SAMPLES_LONG)
    for request in project.requests(count, seed=11):
        decision = world.decide(request)
        met[decision.outcome] += 1
        # INVARIANT: samples are calls of one seat.
        assert request.tool is not None
        named = told[request.seats[0], request.tool]
        if decision.outcome is not Outcome.DENY and not _is_named(decision, named):
            wrong.append(f"{request.seats[0]} {request.tool} {request.arguments}: not named")
    return Verdict(
        value={"mismatches": len(wrong)},
        goal={"mismatches": 0, "samples": GOAL_SAMPLES},
        holds=not wrong and CAN_BE_EXACT and count >= GOAL_SAMPLES and len(met) == len(Outcome),
        figures={
            "samples": count,
            "answers": {outcome.value: met[outcome] for outcome in Outcome},
            "pairs": len(told),
            "ways": len(ways),
            "exact": sum(way.is_exact for way in ways),
            "first": [*wrong[:5]],
        },
    )


def _told(world: World) -> dict[tuple[Seat, ToolName], Capability]:
    return {
        (seat, name): capability(world, seat, tool, fits=fits)
        for flow in world.release.workflows.values()
        for seat in seats_of(flow)
        for name, tool in world.release.tools.items()
    }


def _unmet(world: World, told: dict[tuple[Seat, ToolName], Capability]) -> list[str]:
    """Return the ways that have no call which is answered so, in words."""
    return [
        f"{seat} {tool}: {way.outcome} {way.groups} has no call"
        for (seat, tool), found in told.items()
        for way in found.ways
        if not _is_met(world, seat, tool, way)
    ]


def _is_met(world: World, seat: Seat, tool: ToolName, way: Way) -> bool:
    if way.example is None:
        return False
    plain = project.plain_arguments(tool)
    request = project.request(seat, tool, plain | way.example.arguments, way.example.facts)
    decision = world.decide(request)
    return (decision.outcome, decision.groups) == (way.outcome, way.groups)


def _is_named(decision: Decision, told: Capability) -> bool:
    """Return whether an answer is one of the ways, or asks more teams than one of them."""
    return any(
        way.outcome is decision.outcome and set(way.groups) <= set(decision.groups)
        for way in told.ways
    )
