from __future__ import annotations

import pytest
from pydantic_ai.messages import ModelResponse, ToolCallPart

from interlock.agents.turns import Turns, with_unique_ids
from interlock.domain.agent import AgentLimits
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InvariantError, JsonError, StepFailedError
from interlock.domain.ids import StepName, ToolName

FIND = ToolName("desk.issue.find")
LIMITS = AgentLimits(refusals_in_a_row=2, equal_calls=2)


def turns() -> Turns:
    """Return the turns of an agent that has one tool."""
    return Turns(StepName("solve"), LIMITS, tools=[FIND])


def response(*calls: tuple[str, str | JsonObject]) -> ModelResponse:
    """Return a response that asks for calls, each with its id and arguments."""
    parts = [
        ToolCallPart(tool_name="desk__issue__find", args=args, tool_call_id=call_id)
        for call_id, args in calls
    ]
    return ModelResponse(parts=parts)


def test_names_say_turn_and_place_in_the_response() -> None:
    """A call is named by its turn and its place, so replay names it alike."""
    at = turns()

    model_names = [at.begin(), at.begin()]
    at.received(response(("a", {"title": "x"}), ("b", {"title": "y"})))

    assert ["solve/1/model", "solve/2/model"] == model_names
    assert "solve/2/2/desk.issue.find" == at.call("b").name


def test_refusals_in_a_row_end_the_agent_before_its_next_request() -> None:
    """As many refusals in a row as the limit says end the agent, in the order of the calls."""
    at = turns()
    at.begin()
    at.received(response(("a", {"title": "x"}), ("b", {"title": "y"})))
    at.answered(at.call("b"), is_refused=True)
    at.answered(at.call("a"), is_refused=True)

    with pytest.raises(StepFailedError) as raised:
        at.begin()

    assert "agent.stuck" == raised.value.error_code


def test_an_accepted_call_between_refusals_starts_the_count_anew() -> None:
    """Only refusals that follow one another count."""
    at = turns()
    for is_refused in (True, False, True):
        at.begin()
        at.received(response(("a", {"title": str(at.begin())})))
        at.answered(at.call("a"), is_refused=is_refused)

    assert at.begin().endswith("/model")


def test_equal_calls_end_the_agent_however_their_arguments_are_written() -> None:
    """Spaces and the order of members do not make a call another one."""
    at = turns()
    at.begin()
    at.received(response(("a", {"title": "x", "n": 1})))

    with pytest.raises(StepFailedError) as raised:
        at.received(response(("b", ' {"n": 1,  "title": "x"}')))

    assert "agent.stuck" == raised.value.error_code


def test_equal_unreadable_calls_end_the_agent_too() -> None:
    """A model that repeats broken arguments is stuck as well."""
    at = turns()
    at.begin()
    at.received(response(("a", "{")))

    with pytest.raises(StepFailedError):
        at.received(response(("b", "{")))


def test_arguments_are_strict_json() -> None:
    """Duplicate keys are not read as the last one."""
    at = turns()
    at.begin()
    at.received(response(("a", '{"title": "x", "title": "y"}')))

    with pytest.raises(JsonError):
        at.call("a").arguments()


def test_no_arguments_are_an_empty_object() -> None:
    """Some servers send an empty text for a call without arguments."""
    at = turns()
    at.begin()
    at.received(response(("a", "")))

    assert {} == at.call("a").arguments()


def test_a_call_that_nobody_planned_is_a_bug() -> None:
    """The agent loop may make no call that is not in the recorded response."""
    with pytest.raises(InvariantError):
        turns().call("a")


def test_tool_call_ids_become_unique() -> None:
    """A server that gives two calls one id does not mix up their answers."""
    fixed = with_unique_ids(response(("a", {}), ("a", {}), ("b", {})))

    ids = [part.tool_call_id for part in fixed.parts if isinstance(part, ToolCallPart)]
    assert ["a", "a_1", "b"] == ids
