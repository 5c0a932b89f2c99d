"""The names of spans and attributes: one table, each with the source and version it is taken from.

OpenTelemetry's names where they exist; the generative-AI ones are all at *Development* upstream, so
they are copied here, not imported. What has no standard yet is `interlock.*`. A released name is
API: `docs/reference` and exports use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

GEN_AI = "gen-ai-dev/1.42.0-dev"
"""Schema of github.com/open-telemetry/semantic-conventions-genai."""
OTEL = "1.42.0"
"""Schema of github.com/open-telemetry/semantic-conventions."""
OWN = "interlock/1"

# Operations: values of gen_ai.operation.name and first words of span names.
INVOKE_WORKFLOW: Final = "invoke_workflow"
INVOKE_AGENT: Final = "invoke_agent"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
TOOLS_CALL: Final = "tools/call"

OPERATION_NAME: Final = "gen_ai.operation.name"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_ID: Final = "gen_ai.agent.id"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
MCP_METHOD: Final = "mcp.method.name"

ENVIRONMENT: Final = "deployment.environment.name"
HTTP_METHOD: Final = "http.request.method"
URL_TEMPLATE: Final = "url.template"

WORKFLOW_VERSION: Final = "interlock.workflow.version"
RELEASE: Final = "interlock.release"
TENANT: Final = "interlock.tenant"
TRIGGER_KIND: Final = "interlock.trigger.kind"
TRIGGER_SOURCE: Final = "interlock.trigger.source"
TRIGGER_ID: Final = "interlock.trigger.id"
AUTONOMY_LEVEL: Final = "interlock.autonomy.level"
END_STATE: Final = "interlock.end_state"
SEAT: Final = "interlock.seat"
STEP: Final = "interlock.step"
COST: Final = "interlock.cost.micro_usd"
COST_ESTIMATED: Final = "interlock.cost.estimated"
PRICE_VERSION: Final = "interlock.price.version"
TOOL_VERSION: Final = "interlock.tool.version"
SERVER: Final = "interlock.server"
CALL_DIGEST: Final = "interlock.call.digest"
DECISION_ID: Final = "interlock.decision.id"
DECISION_OUTCOME: Final = "interlock.decision.outcome"
DECISION_POLICIES: Final = "interlock.decision.policies"
DECISION_GROUPS: Final = "interlock.decision.groups"
POLICY_VERSION: Final = "interlock.policy.version"
APPROVAL_ID: Final = "interlock.approval.id"
APPROVAL_GROUP: Final = "interlock.approval.group"
APPROVAL_ANSWER: Final = "interlock.approval.answer"
EFFECT_ID: Final = "interlock.effect.id"
EFFECT_CLASS: Final = "interlock.effect.class"
EFFECT_STATE: Final = "interlock.effect.state"
EFFECT_ATTEMPT: Final = "interlock.effect.attempt"
EFFECT_COMPENSATES: Final = "interlock.effect.compensates"
PROBE_FOUND: Final = "interlock.probe.found"
EVENT_NAME: Final = "interlock.event.name"
DUE_US: Final = "interlock.due_us"
CHILD_RUN: Final = "interlock.child.run_id"
CHILD_STATE: Final = "interlock.child.state"
FALLBACK_CODE: Final = "interlock.fallback.code"
FALLBACK_MODE: Final = "interlock.fallback.mode"
FALLBACK_THEN: Final = "interlock.fallback.then"
FALLBACK_TARGET: Final = "interlock.fallback.target"
PLAN_DIGEST: Final = "interlock.plan.digest"
PLAN_NUMBER: Final = "interlock.plan.number"
PLAN_CALLS: Final = "interlock.plan.calls"
PLAN_VERDICT: Final = "interlock.plan.verdict"
PLAN_REASONS: Final = "interlock.plan.reasons"

ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        (
            OPERATION_NAME,
            WORKFLOW_NAME,
            AGENT_NAME,
            AGENT_ID,
            PROVIDER_NAME,
            REQUEST_MODEL,
            RESPONSE_MODEL,
            INPUT_TOKENS,
            OUTPUT_TOKENS,
            TOOL_NAME,
            TOOL_CALL_ID,
            MCP_METHOD,
        ),
        GEN_AI,
    )
    | dict.fromkeys((ENVIRONMENT, HTTP_METHOD, URL_TEMPLATE), OTEL)
    | dict.fromkeys(
        (
            WORKFLOW_VERSION,
            RELEASE,
            TENANT,
            TRIGGER_KIND,
            TRIGGER_SOURCE,
            TRIGGER_ID,
            AUTONOMY_LEVEL,
            END_STATE,
            SEAT,
            STEP,
            COST,
            COST_ESTIMATED,
            PRICE_VERSION,
            TOOL_VERSION,
            SERVER,
            CALL_DIGEST,
            DECISION_ID,
            DECISION_OUTCOME,
            DECISION_POLICIES,
            DECISION_GROUPS,
            POLICY_VERSION,
            APPROVAL_ID,
            APPROVAL_GROUP,
            APPROVAL_ANSWER,
            EFFECT_ID,
            EFFECT_CLASS,
            EFFECT_STATE,
            EFFECT_ATTEMPT,
            EFFECT_COMPENSATES,
            PROBE_FOUND,
            EVENT_NAME,
            DUE_US,
            CHILD_RUN,
            CHILD_STATE,
            FALLBACK_CODE,
            FALLBACK_MODE,
            FALLBACK_THEN,
            FALLBACK_TARGET,
            PLAN_DIGEST,
            PLAN_NUMBER,
            PLAN_CALLS,
            PLAN_VERDICT,
            PLAN_REASONS,
        ),
        OWN,
    )
)
"""Every attribute key that a span may carry, with the version of the convention it follows."""
