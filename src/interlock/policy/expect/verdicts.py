"""Whether policies do what is expected of them: calls are decided, statements are proved.

A statement fails with a call against it, decided by the policies themselves. One that can neither
be proved nor broken is unproved, which is a failure too: without a solver (the extra `verify`) only
what no policy could ever allow is proved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from interlock.domain.canonical import JsonObject, canonical_text
from interlock.domain.decision import Facts, Outcome, PolicyRequest
from interlock.domain.principal import Seat
from interlock.domain.record import object_to_json
from interlock.domain.tool import Environment, ToolVersion
from interlock.policy import reach
from interlock.policy.engine import Slice, World
from interlock.policy.expect.cases import Case, Example, Statement, environments_of
from interlock.policy.load import DRAFT
from interlock.policy.reach import CAN_BE_EXACT, Fits, example_of, ways_of
from interlock.policy.schema import ancestors_of, groups_of, seats_of

Verdict: TypeAlias = Literal["holds", "fails", "unproved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One test: whether it holds, and why not."""

    name: str
    verdict: Verdict
    why: str = ""


def judge(case: Case, worlds: Mapping[Environment, World], *, fits: Fits) -> Judged:
    """Return whether a test holds; one at a time in a process, as the solver wants it."""
    unproved = ""
    for environment in environments_of(case):
        world = worlds.get(environment)
        if world is None:
            continue
        told = (
            _example(case, world, fits) if isinstance(case, Example) else _stated(case, world, fits)
        )
        for said, why in told:
            if said == "fails":
                return Judged(name=case.name, verdict="fails", why=why)
            unproved = why
    verdict: Verdict = "unproved" if unproved else "holds"
    return Judged(name=case.name, verdict=verdict, why=unproved)


def _example(case: Example, world: World, fits: Fits) -> Iterator[tuple[Verdict, str]]:
    tool = world.release.tools.get(case.call.tool)
    if tool is not None and not fits(tool, case.call.args, frozenset()):
        yield "fails", f"the arguments break the contract; see `interlock tool show {tool.name}`"
        return
    decision = world.decide(
        PolicyRequest(
            seats=(case.seat,),
            environment=case.env,
            tool=case.call.tool,
            arguments=case.call.args,
            facts=case.run.facts,
            lifted=case.approved,
        )
    )
    expected = case.expect
    is_so = decision.outcome is expected.answer and (
        not expected.needs_approval or expected.needs_approval == {*decision.groups}
    )
    missing = expected.by - {*decision.policy_ids}
    if not is_so or missing:
        asked = f" by {' and '.join(decision.groups)}" if decision.groups else ""
        reasons = "; ".join(
            f"{reason.policy_id or reason.code}: {reason.message}" for reason in decision.reasons
        )
        yield "fails", f"it is {decision.outcome}{asked} ({reasons})"


def _stated(case: Statement, world: World, fits: Fits) -> Iterator[tuple[Verdict, str]]:
    known = {seat for flow in world.release.workflows.values() for seat in seats_of(flow)}
    for seat in sorted(case.seats - known, key=str):
        yield "fails", f"there is no seat `{seat}`"
    for what, name, names in (
        ("system", case.system, world.release.systems),
        ("tool", case.tool, world.release.tools),
    ):
        if name is not None and name not in names:
            yield "fails", f"there is no {what} `{name}`"
    for seat in sorted(known, key=str):
        flow = world.release.workflows[seat.workflow]
        is_named = seat in case.seats
        if (is_named if case.is_only else case.seats and not is_named) or (
            case.tenant not in {None, flow.tenant}
        ):
            continue
        for tool in _tools(case, world):
            part = world.slice_of(tool.name)
            if part is not None and world.release.bind(tool, world.environment) is not None:
                yield from _against(case, _Pair(world=world, seat=seat, part=part, tool=tool), fits)


def _tools(case: Statement, world: World) -> Iterator[ToolVersion]:
    for name, tool in sorted(world.release.tools.items()):
        if (
            case.tool in {None, name}
            and case.system in {None, tool.system}
            and case.act in ancestors_of(groups_of(tool))
        ):
            yield tool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A seat and a tool that it could call."""

    world: World
    seat: Seat
    part: Slice
    tool: ToolVersion

    def __str__(self) -> str:
        return f"{self.seat} {self.tool.name} in {self.world.environment}"


def _against(case: Statement, pair: _Pair, fits: Fits) -> Iterator[tuple[Verdict, str]]:
    """Yield a call against a statement, or that it cannot be proved for a seat and a tool."""
    world, seat, part, tool = pair.world, pair.seat, pair.part, pair.tool
    if not CAN_BE_EXACT:
        ways = ways_of(world, seat, part, tool, fits=fits, is_searched=False)
        if any(_is_meant(case, way.outcome) for way in ways):
            yield "unproved", f"{pair}: install `interlock[verify]` to prove it"
        return
    from interlock.policy.solve import UndecidedError, counterexample  # noqa: PLC0415  # extra

    try:
        request = counterexample(
            world,
            seat,
            part,
            tool,
            without=None if case.unattended else frozenset({DRAFT}),
            is_untrusted=case.when.untrusted,
            labels=case.when.labels,
        )
    except UndecidedError:
        yield "unproved", f"{pair}: the solver cannot tell"
        return
    if request is None:
        return
    example = example_of([part], tool, request, fits)
    outcome = world.decide(request).outcome
    if example is None or not _is_meant(case, outcome):
        yield "unproved", f"{pair}: no call was found that shows it, and none was ruled out"
        return
    yield "fails", f"{pair} is {outcome}: {_shown(example)}"


def _shown(example: reach.Example) -> str:
    plain = object_to_json(Facts())
    told = object_to_json(example.facts).items()
    facts: JsonObject = {name: value for name, value in told if value != plain[name]}
    return f"{canonical_text(example.arguments)} while {canonical_text(facts)}"


def _is_meant(case: Statement, outcome: Outcome) -> bool:
    """Return whether a call that is answered so is one that the statement excludes."""
    return outcome is Outcome.ALLOW or (outcome is Outcome.NEEDS_APPROVAL and not case.unattended)
