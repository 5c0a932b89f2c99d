"""Project files as domain values: the friendly keys of YAML mapped to the names of the domain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel

from interlock.domain.agent import AgentLimits, AgentSpec, ModelBudget
from interlock.domain.autonomy import BARS, Bar
from interlock.domain.budget import Budget
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import AgentName, TenantId, ToolName, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.record import from_json
from interlock.domain.release import PolicyFile
from interlock.domain.tool import (
    BusinessKey,
    Compensation,
    ConnectorKind,
    Deprecation,
    EffectClass,
    EffectSpec,
    EnvironmentBinding,
    Group,
    Guard,
    HttpRequest,
    Limits,
    McpCall,
    McpKind,
    PolicyView,
    Probe,
    PythonCall,
    Rate,
    RecordPointer,
    Server,
    Sink,
    Source,
    SqlQuery,
    System,
    ToolRequest,
    ToolVersion,
)
from interlock.domain.workflow import (
    WORKFLOW_AGENT,
    ApprovalRule,
    AutonomyDeclaration,
    Concurrency,
    Condition,
    FailureMode,
    Lock,
    Queue,
    SeatSpec,
    Step,
    Success,
    Trigger,
    WorkflowSpec,
)
from interlock.manifest import schema as form


def budget(file: form.BudgetFile) -> Budget:
    """Return the budget that a file declares."""
    return Budget(
        name=file.name,
        title=file.title,
        scope=file.scope,
        of=file.of,
        period=file.period,
        unit=file.unit,
        limit=file.limit,
        soft=file.soft,
        timezone=file.timezone,
    )


def bars(file: form.ProjectFile) -> dict[str, Bar]:
    """Return what steps up take, where the project says other than the defaults."""
    found: dict[str, Bar] = {}
    for step, usual in BARS.items():
        part = None if file.autonomy is None else getattr(file.autonomy, f"to_{step}")
        if part is not None:
            found[str(step)] = replace(usual, **part.model_dump(exclude_none=True))
    return found


def system(file: form.SystemFile) -> System:
    """Return the system that a file declares."""
    tenant = None if file.tenant is None else TenantId(file.tenant)
    return System(
        name=file.name, title=file.title, owner=file.owner, tenant=tenant, kind=file.system_kind
    )


def server(file: form.ServerFile, files: Mapping[str, str]) -> Server:
    """Return the server that a file declares, with its code from the project's `files`."""
    folder = "" if file.source is None else f"{file.source}/"
    return Server(
        name=file.name,
        system=file.system,
        environment=file.environment,
        kind=file.protocol,
        url=file.url,
        argv=tuple(file.argv),
        program_pin=file.program_pin,
        environment_variables=tuple(file.variables),
        auth=file.auth,
        headers=file.headers,
        rate=_rate(file.rate),
        breaker_open_s=file.breaker_open_s,
        code={
            path.removeprefix(folder): text
            for path, text in sorted(files.items())
            if folder and path.startswith(folder) and path.endswith(".py")
        },
    )


def tool(file: form.ToolFile, *, schemas: tuple[JsonObject, JsonObject]) -> ToolVersion:
    """Return the tool version that a file declares, with the schemas of its input and output."""
    return ToolVersion(
        name=ToolName(file.name),
        version=file.version,
        owner=file.owner,
        title=file.title,
        description=file.description,
        system=file.system,
        connector=ConnectorKind(file.connector),
        request=_request(file),
        input_schema=schemas[0],
        output_schema=schemas[1],
        group=Group(file.group),
        is_egress=file.egress,
        is_irreversible=file.irreversible,
        risk=file.risk,
        limits=from_json(Limits, _plain(file.contract.limits)),
        policy_view=from_json(PolicyView, _plain(file.policy_view)),
        effect=_effect(file.effect),
        business_key=(
            None if file.business_key is None else from_json(BusinessKey, _plain(file.business_key))
        ),
        records=tuple(from_json(RecordPointer, _plain(record)) for record in file.records),
        source=(
            Source()
            if file.source is None
            else Source(labels=frozenset(file.source.labels), is_trusted=file.source.trusted)
        ),
        sink=(
            Sink()
            if file.sink is None
            else Sink(accepts=frozenset(file.sink.accepts), is_external=file.sink.external)
        ),
        redact=file.redact,
        compensation=_compensation(file.compensation),
        price_micro_usd=file.price_micro_usd,
        environments={
            name: EnvironmentBinding(
                server=part.server,
                credentials=_credentials(part.credentials),
                rate=_rate(part.rate),
                is_past=part.past,
            )
            for name, part in file.environments.items()
        },
        deprecation=_deprecation(file.deprecated),
    )


def agent(file: form.AgentFile, *, instructions: str, output: JsonObject | None) -> AgentSpec:
    """Return the agent that a file declares, with its instructions and output schema read."""
    return AgentSpec(
        name=AgentName(file.name),
        version=file.version,
        title=file.title,
        owner=file.owner,
        sponsor=file.sponsor,
        instructions=instructions,
        model=file.model,
        output_schema=output,
        limits=from_json(AgentLimits, _plain(file.limits)),
        is_outside=file.outside,
        models=tuple(dict.fromkeys(file.models)),
        budget=from_json(ModelBudget, _plain(file.budget)),
    )


def workflow(file: form.WorkflowFile, *, inputs: JsonObject) -> WorkflowSpec:
    """Return the workflow that a file declares, with the schema of its input."""
    return WorkflowSpec(
        name=WorkflowName(file.name),
        version=file.version,
        title=file.title,
        owner=file.owner,
        department=file.department,
        triggers=tuple(_trigger(name, part) for name, part in file.triggers.items()),
        input_schema=inputs,
        seats=tuple(
            SeatSpec(agent=AgentName(name), tools=_tools(part.tools))
            for name, part in file.agents.items()
        ),
        steps=tuple(_step(part) for part in file.steps),
        failure_modes=tuple(from_json(FailureMode, _plain(part)) for part in file.fallbacks),
        success=Success(
            end_state=file.success.end_state,
            end_states=tuple(file.success.counts),
            objective=file.success.objective,
            within_s=file.success.within_s,
        ),
        tenant=DEFAULT_TENANT if file.tenant is None else TenantId(file.tenant),
        approvals=tuple(
            ApprovalRule(
                tool=ToolName(part.tool),
                group=part.by,
                people=part.people,
                why=part.why,
                when=_conditions(part.when),
            )
            for part in file.approvals
        ),
        tools=_tools(file.tools),
        autonomy={
            name: from_json(AutonomyDeclaration, _plain(part))
            for name, part in file.autonomy.items()
        },
        ceiling=file.ceiling,
        deadline_s=file.deadline_s,
        priority=file.priority,
        max_queued=file.max_queued,
        rate=_rate(file.rate),
        concurrency=(
            None if file.concurrency is None else from_json(Concurrency, _plain(file.concurrency))
        ),
        lock=None if file.lock is None else from_json(Lock, _plain(file.lock)),
    )


def approval_policies(spec: WorkflowSpec) -> PolicyFile | None:
    """Return the policies that enforce what a workflow declares under `approvals`, if anything."""
    rules = [
        _approval_policy(spec.name, number, rule) for number, rule in enumerate(spec.approvals, 1)
    ]
    if not rules:
        return None
    return PolicyFile(path=f"approvals/workflow.{spec.name}.cedar", text="\n".join(rules))


def _approval_policy(workflow: WorkflowName, number: int, rule: ApprovalRule) -> str:
    tests = " && ".join(_cedar_test(condition) for condition in rule.when)
    people = f"@people({_text(str(rule.people))})\n" if rule.people > 1 else ""
    return (
        f"@id({_text(f'workflow.{workflow}.approval.{number}')})\n"
        f"@approval({_text(rule.group)})\n{people}"
        f"@why({_text(rule.why)})\n"
        f"forbid (principal in Workflow::{_text(workflow)}, action == Action::{_text(rule.tool)}, "
        "resource)" + (f"\nwhen {{ {tests} }}" if tests else "") + ";\n"
    )


def _cedar_test(condition: Condition) -> str:
    """Render a condition on an argument; every level must be there, as in `fill`."""
    base, tests = "context.args", []
    for key in condition.at.removeprefix("in:").strip("/").split("/"):
        tests.append(f"{base} has {_text(key)}")
        base = f"{base}[{_text(key)}]"
    wanted = condition.is_in or (condition.equals,)
    choices = " || ".join(f"{base} == {_text(value)}" for value in wanted)
    return " && ".join([*tests, f"({choices})"])


def _text(value: object) -> str:
    """Render a scalar as a Cedar literal; Cedar writes texts, numbers and Booleans as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def _plain(part: BaseModel) -> JsonObject:
    values: JsonObject = part.model_dump(mode="json")
    return values


def _credentials(given: str | dict[str, str] | None) -> str | dict[WorkflowName, str] | None:
    if not isinstance(given, dict):
        return given
    return {WorkflowName(workflow): reference for workflow, reference in given.items()}


def _rate(part: form.RatePart | None) -> Rate | None:
    return None if part is None else from_json(Rate, _plain(part))


def _request(file: form.ToolFile) -> ToolRequest:
    if file.upstream is not None:
        part = file.upstream
        kinds: dict[McpKind, str | None] = {
            "tool": part.tool,
            "resource": part.resource,
            "prompt": part.prompt,
        }
        # INVARIANT: `load` has refused a file with none of them, or several.
        [(kind, upstream)] = [(kind, named) for kind, named in kinds.items() if named is not None]
        return McpCall(upstream=upstream, kind=kind, key_argument=part.key_argument, pin=part.pin)
    if file.function is not None:
        return PythonCall(function=file.function)
    if file.query is not None:
        return from_json(SqlQuery, _plain(file.query))
    # INVARIANT: `load` has refused a file without any of the four.
    assert file.request is not None
    return from_json(HttpRequest, _plain(file.request))


def _effect(part: form.EffectPart) -> EffectSpec:
    probe = None
    if part.probe is not None:
        name, version = reference(part.probe.tool)
        members = {**_plain(part.probe), "tool": name, "version": version}
        probe = from_json(Probe, members)
    return EffectSpec(
        effect_class=EffectClass(part.class_),
        key_ttl_s=part.key_ttl_s,
        guard=None if part.guard is None else from_json(Guard, _plain(part.guard)),
        probe=probe,
        no_effect=tuple(part.no_effect),
        in_progress=tuple(part.in_progress),
        key_reused=tuple(part.key_reused),
    )


def _compensation(part: form.CompensationPart | None) -> Compensation | None:
    if part is None:
        return None
    name, version = reference(part.tool)
    return Compensation(tool=name, version=version, args=part.args, within_h=part.within_h)


def _deprecation(part: form.DeprecatedPart | None) -> Deprecation | None:
    if part is None:
        return None
    name, version = (None, None) if part.replace_with is None else reference(part.replace_with)
    return Deprecation(
        since=part.since.isoformat(),
        until=None if part.until is None else part.until.isoformat(),
        tool=name,
        version=version,
        reason=part.reason,
    )


def reference(text: str) -> tuple[ToolName, int]:
    """Split `<tool>@<version>`.

    >>> reference("desk.issue.find@2")
    ('desk.issue.find', 2)
    """
    name, _, version = text.partition("@")
    return ToolName(name), int(version)


def _trigger(name: str, part: form.TriggerPart) -> Trigger:
    kind: Literal["webhook", "queue", "cron", "manual", "session"] = "manual"
    queue = None if part.queue is None else Queue(**part.queue.model_dump())
    if part.webhook is not None:
        kind = "webhook"
    elif queue is not None:
        kind = "queue"
    elif part.cron is not None:
        kind = "cron"
    elif part.session is not None:
        kind = "session"
    return Trigger(
        name=name,
        kind=kind,
        environment=part.environment,
        source=part.webhook if queue is None else queue.source,
        secret=part.secret,
        queue=queue,
        schedule=part.cron,
        timezone=part.timezone,
        catch_up=part.catch_up,
        is_paused=part.paused,
        when=_conditions(part.when),
        input=part.input,
        agent=None if part.session is None else AgentName(part.session),
        priority=part.priority,
    )


def _step(part: form.StepPart) -> Step:
    return Step(
        name=part.name,
        agent=None if part.agent is None else AgentName(part.agent),
        handoff=None if part.handoff is None else AgentName(part.handoff),
        handed_by=None if part.handed_by is None else AgentName(part.handed_by),
        rights=part.rights,
        tool=None if part.tool is None else ToolName(part.tool),
        wait=part.wait,
        timeout_s=part.timeout_s,
        plan=None if part.plan is None else AgentName(part.plan),
        tools=_tools(part.tools),
        under=WORKFLOW_AGENT if part.under is None else AgentName(part.under),
        input=part.input,
        args=part.args,
        when=_conditions(part.when),
        share=part.share,
    )


def _conditions(parts: Sequence[form.ConditionPart]) -> tuple[Condition, ...]:
    return tuple(
        Condition(at=part.at, equals=part.equals, is_in=tuple(part.one_of)) for part in parts
    )


def _tools(names: Sequence[str]) -> tuple[ToolName, ...]:
    return tuple(ToolName(name) for name in names)
