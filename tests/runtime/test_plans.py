from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo

from interlock.calls import approve
from interlock.domain.agent import AgentLimits
from interlock.domain.approval import Approval
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError, ForbiddenError
from interlock.domain.ids import AgentName, RunId
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role
from interlock.domain.release import PolicyFile
from interlock.domain.run import RunState
from interlock.domain.tool import (
    BusinessKey,
    Compensation,
    EffectClass,
    Group,
    KeyPart,
    Source,
    ToolVersion,
)
from interlock.domain.workflow import FailureMode, SeatSpec, Step
from interlock.observe import semconv
from interlock.store import approvals, waits
from interlock.store.engine import CrashPoints
from tests.runtime.plane import (
    CREATE,
    FIND,
    RETIRE,
    ModelFunction,
    Plane,
    agent,
    calls,
    open_plane,
    release,
    text,
    tool,
    value_of,
    workflow,
)

PLANNER = AgentName("planner")
ACT = Step(name="act", plan=PLANNER, tools=(FIND, CREATE, RETIRE), input="input:/title")
UNDO = FailureMode(code="*", then="compensate")
FOUND: JsonObject = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"found": {"type": "string"}, "n": {"type": "integer"}},
}
LOOK: JsonObject = {"id": "look", "tool": FIND, "args": {"title": "vpn"}}
MAKE: JsonObject = {"id": "make", "tool": CREATE, "args": {"title": "call:look/found"}}
PLAIN: JsonObject = {"id": "plain", "tool": CREATE, "args": {"title": "one"}}
NO_MAIL = PolicyFile(
    path="guardrails/desk.cedar",
    text="""@id("no-mail") @owner("it") @why("Nothing called mail")
forbid (principal, action == Action::"desk.issue.create", resource)
when { context.args.title == "mail" };""",
)
ASK = PolicyFile(
    path="approvals/desk.cedar",
    text="""@id("ask") @owner("it") @approval("desk-owners") @why("Issues are looked at first")
forbid (principal, action == Action::"desk.issue.create", resource);""",
)
SEEN = (
    tool(FIND, Group.READ, EffectClass.READ, output_schema=FOUND),
    tool(
        CREATE,
        Group.WRITE,
        EffectClass.BLIND,
        output_schema={"type": "object", "properties": {"id": {"type": "string"}}},
        compensation=Compensation(tool=RETIRE, version=1, args={"title": "out:/id"}),
        business_key=BusinessKey(parts=(KeyPart(at="in:/title", fold="words"),)),
    ),
    tool(RETIRE, Group.WRITE, EffectClass.BLIND),
)


def plan(*planned: object) -> ModelResponse:
    """Return a planner's answer."""
    return text(json.dumps({"calls": list(planned)}))


def answers(*responses: ModelResponse, into: list[JsonObject] | None = None) -> ModelFunction:
    """Return a planner that answers its n-th question with the n-th response."""
    left = list(responses)

    def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if into is not None:
            into.append(value_of(json.loads(str(messages[0].parts[0].content))))  # type: ignore[union-attr]  # a prompt
        return left.pop(0)

    return model


def apply(
    plane: Plane,
    *,
    step: Step = ACT,
    tools: tuple[ToolVersion, ...] = SEEN,
    policies: tuple[PolicyFile, ...] = (),
    refusals: int = 1,
    **changes: object,
) -> None:
    """Apply a workflow with one step that plans; its planner may look, and not write."""
    spec = workflow(step, seats=(SeatSpec(agent=PLANNER, tools=(FIND,)),), **changes)
    limits = AgentLimits(refusals_in_a_row=refusals)
    plane.apply(release(spec, agent("planner", limits=limits), tools=tools, policies=policies))


def states(plane: Plane, run_id: RunId) -> dict[str, Json]:
    """Return the state in which each call of the step's plan ended."""
    ended = value_of(value_of(value_of(plane.get(run_id).output)["act"])["calls"])
    return {name: value_of(end)["state"] for name, end in ended.items()}


def topics(plane: Plane, run_id: RunId) -> list[str]:
    """Return what a run waits for."""
    return [wait.topic for wait in plane.read(lambda tx: waits.list_waits(tx, run_id))]


def asked(plane: Plane) -> list[Approval]:
    """Return the approvals that wait for an answer."""
    return plane.read(partial(approvals.list_open, tenant=DEFAULT_TENANT))


def person(name: str = "olga", group: str = "desk-owners") -> Principal:
    """Return somebody who answers for a group."""
    return Principal(
        name=name,
        kind=PrincipalKind.USER,
        roles=frozenset({Role.APPROVER}),
        groups=frozenset({group}),
    )


def answer(
    plane: Plane,
    approval: Approval,
    *,
    how: Literal["approve", "reject"] = "approve",
    by: str = "olga",
    group: str = "desk-owners",
) -> None:
    """Answer what an approval shows, and run until nothing moves."""
    digest = plane.read(lambda tx: approve.shown_digest(tx, approval))
    approve.answer(
        plane.db,
        plane.engine.dispatch,
        approval.approval_id,
        by=person(by, group),
        answer=how,
        digest=digest,
        reason="not now",
    )
    plane.engine.run_until_idle()


def test_a_plan_is_made_in_the_order_of_its_needs(tmp_path: Path) -> None:
    """A call comes after those it refers to, and takes its arguments from their outputs."""
    with open_plane(tmp_path, planner=answers(plan(MAKE, LOOK))) as plane:
        apply(plane)

        run_id = plane.start()

        assert (["vpn"], ["vpn"]) == (plane.desk.asked, plane.desk.titles)
        assert {"look": "succeeded", "make": "succeeded"} == states(plane, run_id)
        assert RunState.SUCCEEDED is plane.get(run_id).state


def test_calls_of_a_plan_take_the_road_under_the_declared_seat(tmp_path: Path) -> None:
    """The planner proposes; the seat of the step is the principal of every decision."""
    with open_plane(tmp_path, planner=answers(plan(LOOK, MAKE))) as plane:
        apply(plane)

        effects = plane.effects(plane.start())

        assert {"triage/workflow"} == {str(seat) for effect in effects for seat in effect.seats}
        assert ["act/plan.1/look/desk.issue.find", "act/plan.1/make/desk.issue.create"] == [
            effect.step_name for effect in effects
        ]


def test_one_deny_refuses_the_plan_before_any_effect(tmp_path: Path) -> None:
    """Nothing is made, the reasons are in the run, the ledger and the trace."""
    mail: JsonObject = {"id": "mail", "tool": CREATE, "args": {"title": "mail"}}
    with open_plane(tmp_path, planner=answers(plan(LOOK, PLAIN, mail))) as plane:
        apply(plane, policies=(NO_MAIL,))

        run = plane.get(plane.start())
        span = plane.spans(run.run_id)["act/plan.1"]

        assert (RunState.FAILED, "plan.refused") == (run.state, run.error_code)
        assert ([], []) == (plane.desk.asked, plane.desk.titles)
        assert [EffectState.DENIED] == [e.state for e in plane.effects(run.run_id)]
        reasons = ["`mail`: Nothing called mail (policy.denied)"]
        assert ("refused", reasons) == (
            span.attributes[semconv.PLAN_VERDICT],
            span.attributes[semconv.PLAN_REASONS],
        )


def test_a_refused_planner_is_told_why_and_plans_again(tmp_path: Path) -> None:
    """The prompt of the next plan holds the refused one with all its reasons."""
    prompts: list[JsonObject] = []
    mail: JsonObject = {"id": "mail", "tool": CREATE, "args": {"title": "mail"}}
    model = answers(plan(mail), plan(PLAIN), into=prompts)
    with open_plane(tmp_path, planner=model) as plane:
        apply(plane, policies=(NO_MAIL,), refusals=2)

        run_id = plane.start()

        assert ["one"] == plane.desk.titles
        assert {"plain": "succeeded"} == states(plane, run_id)
        told = [value_of(prompt.get("refused") or {}).get("reasons") for prompt in prompts]
        assert [None, ["`mail`: Nothing called mail (policy.denied)"]] == told


def test_all_plans_of_a_step_share_the_requests_of_the_planner(tmp_path: Path) -> None:
    """Planning again is bounded by the agent's requests too."""
    bad: JsonObject = {"id": "bad", "tool": CREATE, "args": {"titel": "typo"}}
    with open_plane(tmp_path, planner=answers(plan(bad), plan(bad))) as plane:
        spec = workflow(ACT, seats=(SeatSpec(agent=PLANNER, tools=(FIND,)),))
        limits = AgentLimits(requests=2, refusals_in_a_row=5)
        plane.apply(release(spec, agent("planner", limits=limits), tools=SEEN))

        assert "agent.stuck" == plane.get(plane.start()).error_code


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        ([{**LOOK, "depends_on": ["make"]}, MAKE], "these calls wait for each other"),
        ([MAKE], "it needs `look`, and the plan has no such call"),
        ([LOOK, LOOK], "2 calls have the id `look`"),
        ([LOOK, {**MAKE, "args": {"title": "call:look/lost"}}], "has nothing at `call:look/lost`"),
        ([LOOK, {**MAKE, "args": {"title": "call:look/n"}}], "takes string, and `call:look/n` is"),
        ([LOOK, {**MAKE, "args": {"titel": "call:look/found"}}], "cannot be accepted"),
        ([{**PLAIN, "args": {"title": 1}}], "cannot be accepted"),
        ([PLAIN, {**PLAIN, "id": "again", "args": {"title": "ONE!"}}], "the same as `plain` again"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(
    tmp_path: Path, planned: list[Json], expected: str
) -> None:
    """Circles, unknown calls, contracts through references, and the same thing twice."""
    with open_plane(tmp_path, planner=answers(plan(*planned))) as plane:
        apply(plane)

        run = plane.get(plane.start())

        assert "plan.refused" == run.error_code
        assert expected in str(run.error_message)
        assert ([], []) == (plane.desk.asked, plane.desk.titles)


@pytest.mark.parametrize(
    "planned",
    [
        [{**LOOK, "id": f"look{index}"} for index in range(51)],
        [{**LOOK, "tool": "desk.issue.drop"}],
        [],
    ],
)
def test_an_answer_that_is_no_plan_is_not_accepted(tmp_path: Path, planned: list[Json]) -> None:
    """A plan has 1 to 50 calls of the tools that the step names: the planner is told, once."""
    with open_plane(tmp_path, planner=answers(plan(*planned), plan(*planned))) as plane:
        apply(plane)

        run = plane.get(plane.start())

        assert "agent.output" == run.error_code
        assert [] == plane.effects(run.run_id)


def test_facts_count_the_calls_before_in_the_plan(tmp_path: Path) -> None:
    """A rule about the third write refuses a plan of three, before the first."""
    few = PolicyFile(
        path="guardrails/few.cedar",
        text="""@id("few") @owner("it") @why("Two writes are enough")
forbid (principal, action in Action::"write", resource)
when { context.writes_this_run >= 2 };""",
    )
    three = [{**PLAIN, "id": f"n{n}", "args": {"title": f"n{n}"}} for n in range(3)]
    with open_plane(tmp_path, planner=answers(plan(*three))) as plane:
        apply(plane, policies=(few,))

        run = plane.get(plane.start())

        assert "no plan holds: `n2`: Two writes are enough (policy.denied)" in str(
            run.error_message
        )
        assert [] == plane.desk.titles


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('forbid (principal, action == Action::"desk.issue.retire", resource);', "`end`: No"),
        (
            """forbid (principal, action == Action::"desk.issue.retire", resource)
when { context.args.title == "nothing" } unless { context.done.contains("desk.issue.find") };""",
            None,
        ),
    ],
)
def test_what_holds_whatever_is_found_refuses_the_plan(
    tmp_path: Path, rule: str, expected: str | None
) -> None:
    """A rule that no value could get around denies before the first call; others wait for it."""
    never = PolicyFile(
        path="guardrails/never.cedar", text=f'@id("never") @owner("it") @why("No")\n{rule}'
    )
    end: JsonObject = {"id": "end", "tool": RETIRE, "args": {"title": "call:look/found"}}
    with open_plane(tmp_path, planner=answers(plan(LOOK, end))) as plane:
        apply(plane, policies=(never,))

        run = plane.get(plane.start())

        assert (expected or "") in str(run.error_message)
        assert ([] if expected else ["vpn"]) == plane.desk.asked


def test_what_a_plan_may_have_read_counts_for_all_that_does_not_come_before(
    tmp_path: Path,
) -> None:
    """A write beside a read of marked data might come after it, so it has to be put before it."""
    find, *rest = SEEN
    marked = replace(find, source=Source(labels=frozenset({"pii"}), is_trusted=True))
    after: JsonObject = {**LOOK, "depends_on": ["plain"]}
    with open_plane(tmp_path, planner=answers(plan(LOOK, PLAIN), plan(PLAIN, after))) as plane:
        apply(plane, tools=(marked, *rest), refusals=2)

        run_id = plane.start()

        first = plane.spans(run_id)["act/plan.1"].attributes[semconv.PLAN_REASONS]
        assert "`plain`: The run carries a label" in str(first)
        assert (["one"], RunState.SUCCEEDED) == (plane.desk.titles, plane.get(run_id).state)


def test_only_what_a_call_needs_is_sure_to_be_done_before_it(tmp_path: Path) -> None:
    """A rule of order holds by a dependency, not by the place in a list of parallel calls."""
    looked = PolicyFile(
        path="guardrails/looked.cedar",
        text="""@id("looked") @owner("it") @why("Look first")
forbid (principal, action == Action::"desk.issue.create", resource)
unless { context.done.contains("desk.issue.find") };""",
    )
    after: JsonObject = {**PLAIN, "depends_on": ["look"]}
    with open_plane(tmp_path, planner=answers(plan(LOOK, PLAIN), plan(LOOK, after))) as plane:
        apply(plane, policies=(looked,), refusals=2)

        run_id = plane.start()

        first = plane.spans(run_id)["act/plan.1"].attributes[semconv.PLAN_REASONS]
        assert ["`plain`: Look first (policy.denied)"] == first
        assert ["one"] == plane.desk.titles


def test_a_plan_that_stops_leaves_nobody_asked(tmp_path: Path) -> None:
    """What its other calls asked people for is withdrawn, also while the run goes on."""
    lost: JsonObject = {"id": "lost", "tool": FIND, "args": {"title": "mail"}}
    denied: JsonObject = {"id": "denied", "tool": CREATE, "args": {"title": "call:lost/found"}}
    later = Step(name="later", wait="go")
    with open_plane(tmp_path, planner=answers(plan(LOOK, MAKE, lost, denied))) as plane:
        spec = workflow(
            ACT,
            later,
            seats=(SeatSpec(agent=PLANNER, tools=(FIND,)),),
            failure_modes=(FailureMode(code="*", then="step", target="later", end="done"),),
        )
        plane.apply(release(spec, agent("planner"), tools=SEEN, policies=(ASK, NO_MAIL)))

        run_id = plane.start()

        assert (RunState.WAITING, "failed") == (
            plane.get(run_id).state,
            plane.spans(run_id)["act/plan.1"].attributes[semconv.PLAN_VERDICT],
        )
        assert ([], ["go"]) == (asked(plane), topics(plane, run_id))
        assert [] == plane.desk.titles


class Watched(CrashPoints):
    """Calls something right after a plan's end was recorded."""

    call: Callable[[], object] = staticmethod(lambda: None)

    def reach(self, name: str, *, tool: str | None = None) -> None:
        """Call it at that point."""
        del tool
        if name == "plan.end.after":
            self.call()


def test_a_replay_ends_a_plan_with_what_had_failed_it(tmp_path: Path) -> None:
    """A call that was withdrawn then is no failure of its own when the run is replayed."""
    lost: JsonObject = {"id": "lost", "tool": FIND, "args": {"title": "mail"}}
    denied: JsonObject = {"id": "denied", "tool": CREATE, "args": {"title": "call:lost/found"}}
    model, points = answers(plan(LOOK, MAKE, lost, denied)), Watched()
    with open_plane(tmp_path, planner=model, points=points) as plane:
        apply(plane, policies=(ASK, NO_MAIL))
        run_id, dispatch = plane.queue(), plane.engine.dispatch
        points.call = lambda: plane.db.run("pause", lambda tx: dispatch.pause(tx, run_id))
        plane.engine.run_until_idle()
        stopped = plane.get(run_id)
        plane.db.run("resume", lambda tx: dispatch.resume(tx, run_id))
        plane.engine.run_until_idle()

        assert RunState.PAUSED is stopped.state
        assert "policy.denied" == plane.get(run_id).error_code


def test_a_call_with_references_is_decided_when_they_are_known(tmp_path: Path) -> None:
    """What policy forbids of the value that was found fails the plan; what was done is undone."""
    mail = {**LOOK, "args": {"title": "mail"}}
    first = {**PLAIN, "depends_on": []}
    made = {**MAKE, "depends_on": ["plain"]}
    with open_plane(tmp_path, planner=answers(plan(mail, first, made))) as plane:
        apply(plane, policies=(NO_MAIL,), failure_modes=(UNDO,))

        run = plane.get(plane.start())

        assert (RunState.FAILED, "policy.denied") == (run.state, run.error_code)
        assert (["one"], ["issue1"]) == (plane.desk.titles, plane.desk.retired)


def test_a_failed_call_skips_those_that_need_it_if_the_plan_goes_on(tmp_path: Path) -> None:
    """`continue`: whatever needs the failed call is skipped, the rest is made."""
    mail = {**LOOK, "args": {"title": "mail"}}
    made = {**MAKE, "on_error": "continue"}
    after: JsonObject = {
        "id": "after",
        "tool": CREATE,
        "args": {"title": "after"},
        "depends_on": ["make"],
    }
    with open_plane(tmp_path, planner=answers(plan(mail, made, after, PLAIN))) as plane:
        apply(plane, policies=(NO_MAIL,))

        run_id = plane.start()

        expected = {"look": "succeeded", "make": "denied", "after": "skipped", "plain": "succeeded"}
        assert expected == states(plane, run_id)
        assert ["one"] == plane.desk.titles


def test_a_plan_is_approved_once_for_all_its_calls(tmp_path: Path) -> None:
    """One answer to the preview gives one approval per call, each used by exactly that call."""
    two: JsonObject = {**PLAIN, "id": "two", "args": {"title": "two"}}
    with open_plane(tmp_path, planner=answers(plan(LOOK, PLAIN, two))) as plane:
        apply(plane, policies=(ASK,))
        run_id = plane.start()
        waiting = asked(plane)
        before = (list(plane.desk.asked), list(plane.desk.titles))

        answer(plane, waiting[0])

        assert ([], []) == before
        assert 2 == len(waiting)
        assert {"act/plan.1"} == {approval.plan for approval in waiting}
        assert 2 == len({approval.digest for approval in waiting})
        assert {"one", "two"} == set(plane.desk.titles)
        assert RunState.SUCCEEDED is plane.get(run_id).state
        assert [] == asked(plane)


def test_a_plan_is_checked_approved_and_made_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """The preview for what is known, then the call with references when it is."""
    with open_plane(tmp_path, url=postgres_url, planner=answers(plan(LOOK, PLAIN, MAKE))) as plane:
        apply(plane, policies=(ASK,))
        run_id = plane.start()

        preview = asked(plane)
        answer(plane, preview[0])
        later = asked(plane)
        answer(plane, later[0])

        assert (["act/plan.1"], [None]) == ([a.plan for a in preview], [a.plan for a in later])
        assert {"look": "succeeded", "plain": "succeeded", "make": "succeeded"} == states(
            plane, run_id
        )
        assert {"one", "vpn"} == set(plane.desk.titles)


def test_nothing_is_made_before_the_preview_is_approved(tmp_path: Path) -> None:
    """Not even the reads that need no approval: the plan is shown before its first call."""
    with open_plane(tmp_path, planner=answers(plan(LOOK, PLAIN))) as plane:
        apply(plane, policies=(ASK,))

        run_id = plane.start()

        assert RunState.WAITING is plane.get(run_id).state
        assert ([], []) == (plane.desk.asked, plane.desk.titles)


def test_a_rejected_plan_makes_nothing_and_the_planner_is_told(tmp_path: Path) -> None:
    """One rejection refuses the whole plan; the reason goes to the planner."""
    prompts: list[JsonObject] = []
    model = answers(
        plan(PLAIN, {**PLAIN, "id": "b", "args": {"title": "b"}}), plan(LOOK), into=prompts
    )
    with open_plane(tmp_path, planner=model) as plane:
        apply(plane, policies=(ASK,), refusals=2)
        run_id = plane.start()

        answer(plane, asked(plane)[0], how="reject")

        reasons = str(value_of(prompts[1]["refused"])["reasons"])
        assert "not now (approval.rejected)" in reasons
        assert (["vpn"], []) == (plane.desk.asked, plane.desk.titles)
        assert {"look": "succeeded"} == states(plane, run_id)
        assert {EffectState.DENIED, EffectState.SUCCEEDED} == {
            effect.state for effect in plane.effects(run_id)
        }


def test_a_preview_that_nobody_answers_is_a_refusal(tmp_path: Path) -> None:
    """Then nothing of the plan is made, and no approval is left open."""
    two: JsonObject = {**PLAIN, "id": "two", "args": {"title": "two"}}
    with open_plane(tmp_path, planner=answers(plan(PLAIN, two))) as plane:
        apply(plane, policies=(ASK,))
        run_id = plane.start()

        plane.engine.advance(3601)

        run = plane.get(run_id)
        assert (RunState.FAILED, "plan.refused") == (run.state, run.error_code)
        assert "(approval.expired)" in str(run.error_message)
        assert ([], []) == (asked(plane), plane.desk.titles)


def test_a_plan_of_two_groups_needs_both(tmp_path: Path) -> None:
    """Each group answers for its own calls; nothing is made before the last has."""
    retire: JsonObject = {"id": "old", "tool": RETIRE, "args": {"title": "old"}}
    by_it = PolicyFile(
        path="approvals/it.cedar",
        text=ASK.text.replace("desk-owners", "it").replace("create", "retire").replace("ask", "it"),
    )
    with open_plane(tmp_path, planner=answers(plan(PLAIN, retire))) as plane:
        apply(plane, policies=(ASK, by_it))
        plane.start()
        waiting = {approval.group: approval for approval in asked(plane)}

        answer(plane, waiting["it"], group="it")
        first = (list(plane.desk.titles), list(plane.desk.retired))
        answer(plane, waiting["desk-owners"])

        assert ([], []) == first
        assert (["one"], ["old"]) == (plane.desk.titles, plane.desk.retired)


def test_one_groups_rejection_refuses_the_plan_before_the_other_answers(tmp_path: Path) -> None:
    """Nobody is kept waiting for, or asked, about a plan that is refused already."""
    retire: JsonObject = {"id": "old", "tool": RETIRE, "args": {"title": "old"}}
    by_it = PolicyFile(
        path="approvals/it.cedar",
        text=ASK.text.replace("desk-owners", "it").replace("create", "retire").replace("ask", "it"),
    )
    with open_plane(tmp_path, planner=answers(plan(PLAIN, retire))) as plane:
        apply(plane, policies=(ASK, by_it))
        run_id = plane.start()
        waiting = {approval.group: approval for approval in asked(plane)}

        answer(plane, waiting["it"], group="it", how="reject")

        run = plane.get(run_id)
        assert (RunState.FAILED, "plan.refused") == (run.state, run.error_code)
        assert "`old`: `olga` of `it` rejected the call: not now" in str(run.error_message)
        assert [] == asked(plane)


def test_a_call_with_references_is_asked_for_by_itself(tmp_path: Path) -> None:
    """The preview could not show its arguments, so its approval comes when they are known."""
    with open_plane(tmp_path, planner=answers(plan(LOOK, MAKE))) as plane:
        apply(plane, policies=(ASK,))
        plane.start()

        (approval,) = asked(plane)
        answer(plane, approval)

        assert (None, ["vpn"], ["vpn"]) == (approval.plan, plane.desk.asked, plane.desk.titles)


def test_an_answer_to_another_preview_is_refused(tmp_path: Path) -> None:
    """The digest of a call alone is not what a plan shows."""
    with open_plane(tmp_path, planner=answers(plan(PLAIN))) as plane:
        apply(plane, policies=(ASK,))
        plane.start()
        (approval,) = asked(plane)

        with pytest.raises(ConflictError, match="not the one that was shown"):
            approve.answer(
                plane.db,
                plane.engine.dispatch,
                approval.approval_id,
                by=person(),
                answer="approve",
                digest=approval.digest,
            )


def test_the_planners_sponsor_approves_nothing_of_its_plan(tmp_path: Path) -> None:
    """Neither in the preview nor when a call with references asks later."""
    with open_plane(tmp_path, planner=answers(plan(LOOK, MAKE))) as plane:
        apply(plane, policies=(ASK,))
        plane.start()
        (approval,) = asked(plane)

        with pytest.raises(ForbiddenError, match="sponsors its agent"):
            answer(plane, approval, by="sam")


def test_a_changed_plan_is_another_plan(tmp_path: Path) -> None:
    """What was approved of one plan is void in the next: its calls are asked for anew."""
    model = answers(plan(PLAIN, {**PLAIN, "id": "b", "args": {"title": "b"}}), plan(PLAIN))
    with open_plane(tmp_path, planner=model) as plane:
        apply(plane, policies=(ASK,), refusals=2)
        plane.start()
        first = asked(plane)
        answer(plane, first[0], how="reject")

        (second,) = asked(plane)

        assert ("act/plan.2", True) == (second.plan, second.digest not in {a.digest for a in first})
        assert [] == plane.desk.titles


def test_a_planner_is_never_offered_a_write(tmp_path: Path) -> None:
    """Whatever its seat lists, it can only read while it plans."""
    offered: list[str] = []

    def planner(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        offered.extend(each.name for each in info.function_tools)
        return plan(PLAIN) if len(messages) > 1 else calls((FIND, {"title": "vpn"}))

    with open_plane(tmp_path, planner=planner) as plane:
        spec = workflow(ACT, seats=(SeatSpec(agent=PLANNER, tools=(FIND, CREATE)),))
        plane.apply(release(spec, agent("planner"), tools=SEEN))

        run_id = plane.start()

        assert {"desk__issue__find"} == set(offered)
        assert (["vpn"], ["one"]) == (plane.desk.asked, plane.desk.titles)
        assert RunState.SUCCEEDED is plane.get(run_id).state


def test_drafts_reach_nobody_and_what_needs_them_is_skipped(tmp_path: Path) -> None:
    """On level 0 a plan is a list of drafts."""
    after: JsonObject = {"id": "after", "tool": RETIRE, "args": {"title": "call:plain/id"}}
    with open_plane(tmp_path, planner=answers(plan(PLAIN, after))) as plane:
        apply(plane, autonomy={})

        run_id = plane.start()

        assert {"plain": "drafted", "after": "skipped"} == states(plane, run_id)
        assert [] == plane.desk.titles


def test_large_outputs_stay_in_the_ledger(tmp_path: Path) -> None:
    """A step's output has to fit the journal; the states of the calls always do."""
    big = {**LOOK, "args": {"title": "x" * 60_000}}
    many = [{**big, "id": f"look{n}"} for n in range(6)]
    with open_plane(tmp_path, planner=answers(plan(*many))) as plane:
        apply(plane)

        run = plane.get(plane.start())

        ends = value_of(value_of(value_of(run.output)["act"])["calls"])
        assert {("succeeded", None)} == {
            (value_of(end)["state"], value_of(end)["output"]) for end in ends.values()
        }
