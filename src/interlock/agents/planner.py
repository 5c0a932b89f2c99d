"""The planner: an agent without writes whose answer is a plan of calls, by contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from interlock.agents.build import run_agent
from interlock.agents.models import ModelCatalog
from interlock.agents.turns import STUCK
from interlock.calls.durable import Durable
from interlock.calls.road import Road
from interlock.domain.agent import AgentSpec
from interlock.domain.canonical import Json
from interlock.domain.errors import StepFailedError
from interlock.domain.ids import StepName, ToolName
from interlock.domain.plan import Plan, PlanReason, plan_name, plan_schema
from interlock.domain.principal import Seat
from interlock.domain.record import from_json, to_json
from interlock.domain.tool import ToolVersion

_RULES = """You propose a plan: tool calls that are checked as a whole, shown to people if policy
asks for it, and only then made. You make none of them yourself.

Each call has an `id` of its own. An argument that is the text `call:ID/pointer` takes its value
from the output of the call ID, at that JSON pointer; write `literal:` before a text that happens
to start like that. A call is made after those that it refers to and those in `depends_on`; others
may be made at the same time. `on_error` says what follows if it fails: `stop` (the default) ends
the plan and undoes what can be undone, `continue` goes on without the calls that need it.

Plan only calls of the tools that are listed with the task. If a plan was refused, its reasons are
listed too: propose another one that heeds all of them."""


async def propose_plan(
    road: Road,
    durable: Durable,
    catalog: ModelCatalog,
    agent: AgentSpec,
    *,
    seats: tuple[Seat, ...],
    offered: Mapping[ToolName, ToolVersion],
    plannable: Mapping[ToolName, ToolVersion],
    step: str,
    number: int,
    task: Json,
    refused: tuple[Plan, Sequence[PlanReason]] | None,
    parent_span: str,
) -> Plan:
    """Return the n-th plan of a step; the agent is told why the one before was `refused`.

    `offered` are the tools that it may call while it plans, of which only reads count, and
    `plannable` those that the plan may use. All plans of a step share the agent's model requests.

    Raises:
        StepFailedError: as `run_agent` does.
    """
    asked = sum(_requests(durable, step, earlier) for earlier in range(1, number))
    left = agent.limits.requests - asked
    if left < 1:
        why = f"the agent is stuck: it made {asked} requests without a plan that holds"
        raise StepFailedError(why, error_code=STUCK, step_name=step)
    answer = await run_agent(
        road,
        durable,
        catalog,
        replace(
            agent,
            instructions=f"{agent.instructions}\n\n{_RULES}",
            output_schema=plan_schema(plannable),
            limits=replace(agent.limits, requests=left),
        ),
        seats=seats,
        tools={name: tool for name, tool in offered.items() if not tool.is_write},
        step=_agent_step(step, number),
        prompt=_prompt(task, plannable, refused),
        parent_span=parent_span,
    )
    return from_json(Plan, answer)


def _agent_step(step: str, number: int) -> StepName:
    return StepName(f"{plan_name(step, number)}/planner")


def _requests(durable: Durable, step: str, number: int) -> int:
    """Return how many model requests a plan has taken, from the journal: the same on a replay."""
    turn = 0
    while durable.recorded(StepName(f"{_agent_step(step, number)}/{turn + 1}/model")) is not None:
        turn += 1
    return turn


def _prompt(
    task: Json,
    plannable: Mapping[ToolName, ToolVersion],
    refused: tuple[Plan, Sequence[PlanReason]] | None,
) -> Json:
    prompt: dict[str, Json] = {
        "task": task,
        "tools": [
            {
                "tool": tool.name,
                "description": tool.description or tool.title,
                "group": tool.group.value,
                "args": tool.input_schema,
                "output": tool.output_schema,
            }
            for tool in plannable.values()
        ],
    }
    if refused is not None:
        plan, reasons = refused
        prompt["refused"] = {"plan": to_json(plan), "reasons": [str(each) for each in reasons]}
    return prompt
