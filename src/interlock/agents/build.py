"""Builds an agent from registry data for one step, runs it, and checks its final answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from pydantic_ai import Agent, ModelRetry, UsageLimits
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.models import Model

from interlock.agents.models import GovernedModel, ModelCatalog
from interlock.agents.toolset import GovernedToolset
from interlock.agents.turns import STUCK, Turns
from interlock.calls.durable import Durable
from interlock.calls.road import Road
from interlock.domain.agent import AgentSpec
from interlock.domain.canonical import Json, canonical_text, parse
from interlock.domain.errors import ContractError, InterlockError, JsonError, StepFailedError
from interlock.domain.ids import StepName, ToolName
from interlock.domain.principal import Seat
from interlock.domain.tool import ToolVersion
from interlock.tools.contract import Contract

BAD_OUTPUT = "agent.output"
_OUTPUT_RULE = (
    "Your final answer is one JSON value, without any text around it, that satisfies this"
    " JSON Schema:\n"
)


async def run_agent(
    road: Road,
    durable: Durable,
    catalog: ModelCatalog,
    agent: AgentSpec,
    *,
    seats: tuple[Seat, ...],
    tools: Mapping[ToolName, ToolVersion],
    step: StepName,
    prompt: Json,
    parent_span: str,
) -> Json:
    """Run an agent to its end and return its final answer, which satisfies its contract.

    `seats` all have to be allowed each call; `tools` are those that it is offered, the same on
    every replay. Durable names start with `step`. Nothing is recorded under `step` itself.

    Raises:
        StepFailedError: `agent.stuck` (refusals in a row, equal calls, too many requests),
            `agent.output` (no final answer that fits) or the code of a failed model request.
    """
    turns = Turns(step, agent.limits, tools=tools)
    model = GovernedModel(
        _built(catalog, agent, step),
        road=road,
        durable=durable,
        name=agent.model,
        seats=seats,
        turns=turns,
        parent_span=parent_span,
        retry=catalog.retry,
        max_output_tokens=catalog.max_output_tokens(agent.model),
    )
    runner = Agent(
        model,
        name=agent.name,
        output_type=str,
        instructions=_instructions(agent),
        toolsets=[
            GovernedToolset(
                road, durable, tools=tools, seats=seats, turns=turns, parent_span=parent_span
            )
        ],
        # Unknown tool names and answers that do not fit: the model is told, once each.
        retries={"tools": agent.limits.refusals_in_a_row, "output": 1},
    )
    if agent.output_schema is not None:
        runner.output_validator(_checker(Contract.of(agent.output_schema)))
    try:
        result = await runner.run(
            _text(prompt), usage_limits=UsageLimits(request_limit=agent.limits.requests)
        )
    except UsageLimitExceeded as error:
        why = f"the agent is stuck: it made {agent.limits.requests} requests without an answer"
        raise StepFailedError(why, error_code=STUCK, step_name=step) from error
    except UnexpectedModelBehavior as error:
        why = f"the agent gave no answer that fits: {error.message.partition(chr(10))[0]}"
        raise StepFailedError(why, error_code=BAD_OUTPUT, step_name=step) from error
    return result.output if agent.output_schema is None else _parsed(result.output)


def _built(catalog: ModelCatalog, agent: AgentSpec, step: StepName) -> Model:
    try:
        return catalog.get(agent.model)
    except InterlockError as error:
        raise StepFailedError(error.message, error_code="model.failed", step_name=step) from error


def _instructions(agent: AgentSpec) -> str:
    if agent.output_schema is None:
        return agent.instructions
    return f"{agent.instructions}\n\n{_OUTPUT_RULE}{canonical_text(agent.output_schema)}"


def _text(prompt: Json) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, indent=1, ensure_ascii=False)


def _checker(contract: Contract) -> Callable[[str], str]:
    def check(answer: str) -> str:
        try:
            contract.check(_parsed(answer), what="final answer")
        except (JsonError, ContractError) as error:
            raise ModelRetry(f"the final answer is not accepted: {error.message}") from error
        return answer

    return check


def _parsed(answer: str) -> Json:
    """Parse a final answer; a code fence around it, which models are fond of, is taken off."""
    text = answer.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].partition("\n")[2]
    return parse(text)
