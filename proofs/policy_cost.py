"""A decision costs at most 40 times what `json.dumps` of its context does.

With 200 policies, 50 tools, 30 agents and 20 workflows; both are timed in turn, call by call, so
that whatever else the machine does hits both. With 1,000 policies of which the call's slice has no
more, it costs at most 1.2 times as much.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import PolicyRequest
from interlock.policy.context import facts_context
from interlock.policy.engine import World
from proofs import policy_project as project
from proofs.verdict import Verdict, say, sized

T = TypeVar("T")
GOAL, GOAL_MORE = 40.0, 1.2
CALLS, CALLS_LONG = 5_000, 50_000
ROUNDS = 3


def main() -> Verdict:
    """Time decisions, contexts as text, and decisions among five times as many policies."""
    world, crowded = project.world(), project.world(more=project.elsewhere(800))
    count = sized(CALLS, long=CALLS_LONG)
    asked = project.requests(count, seed=3)
    requests = [request for request in asked if request.tool != project.CROWDED]
    contexts = [_context(request) for request in requests]
    ratios, more, figures = [], [], JsonObject()
    for number in range(ROUNDS):
        plain, crowd, text = _timed(world, crowded, requests, contexts)
        ratios.append(plain / text)
        more.append(crowd / plain)
        say(f"round {number + 1}: {plain / 1000:.0f} us, {ratios[-1]:.1f} x json.dumps")
        figures = {
            "decision_us": round(plain / 1000, 1),
            "among_1000_us": round(crowd / 1000, 1),
            "json_dumps_us": round(text / 1000, 2),
        }
    value: dict[str, Json] = {
        "to_json_dumps": round(median(ratios), 1),
        "to_200_policies": round(median(more), 2),
    }
    return Verdict(
        value=value,
        goal={"to_json_dumps": GOAL, "to_200_policies": GOAL_MORE},
        holds=median(ratios) <= GOAL and median(more) <= GOAL_MORE,
        figures=figures | {"p50_of": len(requests), "policies": project.POLICIES, "rounds": ROUNDS},
    )


def _context(request: PolicyRequest) -> JsonObject:
    return facts_context(request.facts, lifted=request.lifted) | {"args": request.arguments}


def _timed(
    world: World,
    crowded: World,
    requests: Sequence[PolicyRequest],
    contexts: Sequence[JsonObject],
) -> tuple[float, float, float]:
    """Return the medians in nanoseconds."""
    plain, crowd, text = list[int](), list[int](), list[int]()
    for request, context in zip(requests, contexts, strict=True):
        plain.append(_ns(world.decide, request))
        text.append(_ns(json.dumps, context))
        crowd.append(_ns(crowded.decide, request))
    return median(plain), median(crowd), median(text)


def _ns(work: Callable[[T], object], given: T) -> int:
    began = time.perf_counter_ns()
    work(given)
    return time.perf_counter_ns() - began
