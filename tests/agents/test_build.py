from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic_ai.messages import ModelMessage, ModelResponse, ToolReturnPart
from pydantic_ai.models.function import AgentInfo

from interlock.calls import approve
from interlock.domain.agent import AgentLimits, AgentSpec
from interlock.domain.approval import Approval
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import EffectState
from interlock.domain.ids import AgentName, RunId
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role
from interlock.domain.run import Run, RunState
from interlock.domain.workflow import AutonomyDeclaration, Step
from interlock.store import approvals
from tests.runtime.plane import (
    CREATE,
    FIND,
    RETIRE,
    TOOLS,
    ModelFunction,
    Plane,
    agent,
    calls,
    open_plane,
    release,
    text,
    workflow,
)

STEP = Step(name="solve", agent=AgentName("solver"))
LEVEL_1 = {"dev": AutonomyDeclaration(level=1, by="ann", reason="test")}
VERDICT: JsonObject = {
    "type": "object",
    "properties": {"kind": {"enum": ["vpn", "mail"]}},
    "required": ["kind"],
}
OWNER = Principal(
    name="olga",
    kind=PrincipalKind.USER,
    roles=frozenset({Role.APPROVER}),
    groups=frozenset({"desk-owners"}),
)


def turn_of(messages: list[ModelMessage]) -> int:
    """Return which turn of the agent this is, from 1."""
    return 1 + sum(isinstance(message, ModelResponse) for message in messages)


def answers(messages: list[ModelMessage]) -> list[str]:
    """Return what the calls of the last response were answered, as text."""
    parts = messages[-1].parts
    return [str(part.content) for part in parts if isinstance(part, ToolReturnPart)]


def scripted(*responses: ModelResponse) -> ModelFunction:
    """Return a model that gives these responses in turn, and the last one for ever."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return responses[min(turn_of(messages), len(responses)) - 1]

    return answer


def start(plane: Plane, spec: AgentSpec, **changes: object) -> RunId:
    """Apply a workflow of one agent, start a run and work it off as far as it goes."""
    plane.apply(release(workflow(STEP, **changes), spec))
    return plane.start()


def solved(tmp_path: Path, model: ModelFunction, spec: AgentSpec | None = None) -> Run:
    """Run one agent once and return the run."""
    with open_plane(tmp_path, solver=model) as plane:
        return plane.get(start(plane, spec or agent("solver")))


def outcome(run: Run) -> tuple[RunState, Json]:
    """Return how a run ended: its output if it succeeded, else the code."""
    return run.state, run.output if run.state is RunState.SUCCEEDED else run.error_code


def test_final_text_is_the_output(tmp_path: Path) -> None:
    """An agent without an output contract answers in text."""
    run = solved(tmp_path, scripted(text("reset the token")))

    assert (RunState.SUCCEEDED, {"solve": "reset the token"}) == outcome(run)


def test_final_json_is_parsed_and_a_code_fence_taken_off(tmp_path: Path) -> None:
    """With an output contract the answer is its JSON value."""
    fenced = '```json\n{"kind": "vpn"}\n```'

    run = solved(tmp_path, scripted(text(fenced)), agent("solver", output_schema=VERDICT))

    assert (RunState.SUCCEEDED, {"solve": {"kind": "vpn"}}) == outcome(run)


def test_an_answer_that_does_not_fit_may_be_mended_once(tmp_path: Path) -> None:
    """The model is told what does not fit, and its second answer counts."""
    told: list[str] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if turn_of(messages) == 1:
            return text('{"kind": "fax"}')
        told.append(str(messages[-1].parts[0]))
        return text('{"kind": "mail"}')

    run = solved(tmp_path, model, agent("solver", output_schema=VERDICT))

    assert (RunState.SUCCEEDED, {"solve": {"kind": "mail"}}) == outcome(run)
    assert "`/kind`" in told[0]


def test_two_answers_that_do_not_fit_end_the_agent(tmp_path: Path) -> None:
    """There is no third try."""
    model = scripted(text("it is the VPN"))

    run = solved(tmp_path, model, agent("solver", output_schema=VERDICT))

    assert (RunState.FAILED, "agent.output") == outcome(run)


def test_the_model_is_shown_the_contract_of_its_answer(tmp_path: Path) -> None:
    """The output contract is part of the instructions, so any chat server can follow it."""
    seen: list[str] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(info.instructions or "")
        return text('{"kind": "mail"}')

    solved(tmp_path, model, agent("solver", output_schema=VERDICT))

    assert '"enum":["vpn","mail"]' in seen[0]


def test_tools_are_offered_under_names_that_models_accept(tmp_path: Path) -> None:
    """The seat's tools are offered with their contract and our description."""
    seen: dict[str, str | None] = {}

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.update({each.name: each.description for each in info.function_tools})
        return text("done")

    solved(tmp_path, model)

    expected = {name.replace(".", "__"): f"Does {name}." for name in (FIND, CREATE, RETIRE)}
    assert expected == seen


def test_a_refused_call_is_told_with_code_and_reason(tmp_path: Path) -> None:
    """The agent reads why a call was refused and may do something else."""
    told: list[str] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if turn_of(messages) == 1:
            return calls((CREATE, {"titel": "typo"}), (CREATE, '{"title": "a", "title": "b"}'))
        told.extend(answers(messages))
        return text("done")

    run = solved(tmp_path, model)

    assert RunState.SUCCEEDED is run.state
    assert told[0].startswith("refused (contract.violated): ")
    assert told[1].startswith("refused (json.invalid): ")


def test_refusals_in_a_row_end_the_agent(tmp_path: Path) -> None:
    """An agent that only proposes what is refused is stopped."""

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return calls((CREATE, {"titel": f"typo {turn_of(messages)}"}))

    run = solved(tmp_path, model)

    assert (RunState.FAILED, "agent.stuck") == outcome(run)


def test_equal_calls_end_the_agent_before_the_last_is_sent(tmp_path: Path) -> None:
    """The third equal call is not made."""
    with open_plane(tmp_path, solver=scripted(calls((FIND, {"title": "vpn"})))) as plane:
        run_id = start(plane, agent("solver"))

        assert (RunState.FAILED, "agent.stuck") == outcome(plane.get(run_id))
        assert ["vpn", "vpn"] == plane.desk.asked


def test_too_many_requests_end_the_agent(tmp_path: Path) -> None:
    """The limit of model requests is a second net."""

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return calls((FIND, {"title": str(turn_of(messages))}))

    spec = agent("solver", limits=AgentLimits(requests=3))

    assert (RunState.FAILED, "agent.stuck") == outcome(solved(tmp_path, model, spec))


def test_an_unknown_tool_is_told_and_the_agent_goes_on(tmp_path: Path) -> None:
    """A name that was not offered is answered, not sent."""
    model = scripted(calls((RETIRE, {"title": "x"})), text("done"))
    spec = agent("solver")
    with open_plane(tmp_path, solver=model) as plane:
        seats = tuple(replace(seat, tools=(FIND,)) for seat in workflow(STEP).seats)

        run_id = start(plane, spec, seats=seats)

        assert RunState.SUCCEEDED is plane.get(run_id).state
        assert [] == plane.desk.retired


def test_a_failed_call_of_unknown_outcome_parks_the_run(tmp_path: Path) -> None:
    """A blind write whose answer was lost is never repeated: the run waits for a person."""
    model = scripted(calls((CREATE, {"title": "lost"})), text("done"))
    with open_plane(tmp_path, solver=model) as plane:
        run_id = start(plane, agent("solver"))

        assert RunState.WAITING is plane.get(run_id).state
        assert [EffectState.PARKED] == [effect.state for effect in plane.effects(run_id)]
        assert ["lost"] == plane.desk.titles


def test_an_approval_waits_without_the_agent_and_replay_repeats_nothing(tmp_path: Path) -> None:
    """After the answer a fresh worker goes on: no model request and no call is made twice."""
    asked: list[int] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(turn_of(messages))
        if turn_of(messages) == 1:
            return calls((FIND, {"title": "vpn"}), (CREATE, {"title": "vpn"}))
        return text(f"created {answers(messages)[1]}")

    with open_plane(tmp_path, solver=model) as plane:
        run_id = start(plane, agent("solver"), autonomy=LEVEL_1)
        waiting = plane.get(run_id).state
        _answer(plane, "approve")
        plane.engine.run_until_idle()

        assert RunState.WAITING is waiting
        assert {"solve": "created {'id': 'issue1'}"} == plane.get(run_id).output
        assert ([1, 2], ["vpn"], ["vpn"]) == (asked, plane.desk.asked, plane.desk.titles)


def test_a_tool_that_is_withdrawn_meanwhile_leaves_the_past_as_it_was(tmp_path: Path) -> None:
    """The replay tells of the recorded call what it told before; only a new call is refused."""
    told: list[str] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = turn_of(messages)
        if turn == 4:
            told.extend(answer for each in messages for answer in answers([each]))
            return text("done")
        return calls(((CREATE if turn == 2 else FIND), {"title": f"vpn{turn}"}))

    with open_plane(tmp_path, solver=model) as plane:
        run_id = start(plane, agent("solver"), autonomy=LEVEL_1)
        tools = (replace(TOOLS[0], environments={}), *TOOLS[1:])
        plane.apply(release(workflow(STEP, autonomy=LEVEL_1), agent("solver"), tools=tools))
        for _ in range(2):  # the first answer is void: the release changed
            _answer(plane, "approve")
            plane.engine.run_until_idle()

        assert {"solve": "done"} == plane.get(run_id).output
        assert ["{'found': 'vpn1'}", "{'id': 'issue1'}"] == told[:2]
        assert told[2].startswith("refused (tool.unknown): ")
        assert ["vpn1"] == plane.desk.asked


def test_a_rejection_is_told_to_the_agent(tmp_path: Path) -> None:
    """A person's no, with the reason, is the answer of the call."""
    told: list[str] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if turn_of(messages) == 1:
            return calls((CREATE, {"title": "vpn"}))
        told.extend(answers(messages))
        return text("understood")

    with open_plane(tmp_path, solver=model) as plane:
        run_id = start(plane, agent("solver"), autonomy=LEVEL_1)
        _answer(plane, "reject")
        plane.engine.run_until_idle()

        assert RunState.SUCCEEDED is plane.get(run_id).state
        assert told[0].startswith("refused by a person (approval.rejected): ")
        assert "not now" in told[0]
        assert [] == plane.desk.titles


def test_a_draft_is_told_to_the_agent(tmp_path: Path) -> None:
    """At level 0 a write is only recorded, and the agent is told so."""
    told: list[str] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if turn_of(messages) == 1:
            return calls((CREATE, {"title": "vpn"}))
        told.extend(answers(messages))
        return text("done")

    with open_plane(tmp_path, solver=model) as plane:
        run_id = start(plane, agent("solver"), autonomy={})

        assert RunState.SUCCEEDED is plane.get(run_id).state
        assert told[0].startswith("recorded as a draft, nothing was sent")
        assert [] == plane.desk.titles


def test_writes_of_one_response_keep_their_order(tmp_path: Path) -> None:
    """A later write is sent only after the one before it has ended."""
    titles = ["0", "1", "2", "3"]
    model = scripted(calls(*[(CREATE, {"title": title}) for title in titles]), text("done"))
    with open_plane(tmp_path, solver=model) as plane:
        start(plane, agent("solver"))

        assert titles == plane.desk.titles


def test_two_calls_with_one_id_are_two_calls(tmp_path: Path) -> None:
    """A server that repeats tool call ids does not make us lose a call."""

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if turn_of(messages) > 1:
            return text("done")
        both = calls((CREATE, {"title": "a"}), (CREATE, {"title": "b"}))
        parts = [replace(part, tool_call_id="same") for part in both.tool_calls]
        return ModelResponse(parts=parts)

    with open_plane(tmp_path, solver=model) as plane:
        start(plane, agent("solver"))

        assert ["a", "b"] == plane.desk.titles


def test_a_model_that_is_not_configured_fails_the_step(tmp_path: Path) -> None:
    """The error names the model."""
    run = solved(tmp_path, scripted(text("done")), agent("solver", model="missing"))

    assert (RunState.FAILED, "model.failed") == outcome(run)
    assert "`missing`" in (run.error_message or "")


def _answer(plane: Plane, answer: str) -> Approval:
    with plane.db.reading() as tx:
        (approval,) = approvals.list_open(tx, tenant=DEFAULT_TENANT)
    return approve.answer(
        plane.db,
        plane.engine.dispatch,
        approval.approval_id,
        by=OWNER,
        answer="approve" if answer == "approve" else "reject",
        digest=approval.digest,
        reason="not now",
    )
