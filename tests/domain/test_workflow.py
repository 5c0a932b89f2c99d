from __future__ import annotations

import pytest

from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.workflow import (
    WORKFLOW_AGENT,
    SeatSpec,
    Step,
    Success,
    WorkflowSpec,
    begin_name,
    failed_name,
)

READ, CREATE = ToolName("desk.issue.read"), ToolName("desk.issue.create")
WORKFLOW = WorkflowSpec(
    name=WorkflowName("triage"),
    version=1,
    title="Triage",
    owner="it",
    department="it",
    triggers=(),
    input_schema={},
    seats=(
        SeatSpec(agent=AgentName("resolver"), tools=(READ, CREATE)),
        SeatSpec(agent=AgentName("reader"), tools=(READ,)),
    ),
    steps=(Step(name="look", tool=READ), Step(name="solve", agent=AgentName("resolver"))),
    failure_modes=(),
    success=Success(end_state="done", end_states=("done",), objective=0.9, within_s=60),
    tools=(READ,),
)


def test_seat_has_the_tools_declared_for_it() -> None:
    """An agent has its seat's tools, plain steps have the workflow's, a stranger has none."""
    assert frozenset({READ, CREATE}) == WORKFLOW.tools_of(AgentName("resolver"))
    assert frozenset({READ}) == WORKFLOW.tools_of(AgentName("reader"))
    assert frozenset({READ}) == WORKFLOW.tools_of(WORKFLOW_AGENT)
    assert frozenset() == WORKFLOW.tools_of(AgentName("stranger"))


def test_step_is_found_by_name() -> None:
    """Steps are identified by name; a name that does not exist is never another step."""
    assert WORKFLOW.steps[1] == WORKFLOW.step("solve")
    with pytest.raises(StopIteration):
        WORKFLOW.step("other")


def test_undeclared_workflow_only_drafts() -> None:
    """Without a declaration there is no autonomy in any environment, and one tenant."""
    assert ({}, DEFAULT_TENANT) == (dict(WORKFLOW.autonomy), WORKFLOW.tenant)


def test_journal_names_of_a_step_differ() -> None:
    """Begin, output and failure of a step are three names, so that replay tells them apart."""
    assert {"solve", "solve#begin", "solve#failed"} == {
        "solve",
        begin_name("solve"),
        failed_name("solve"),
    }
