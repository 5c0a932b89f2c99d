"""One step of a workflow: what it is given, how it runs by its kind, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from interlock.agents.build import run_agent
from interlock.agents.models import ModelCatalog
from interlock.agents.shared import read_shared, share
from interlock.calls.durable import Durable
from interlock.calls.pipeline import call_tool
from interlock.calls.road import CallState, Proposal, Road
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import ConflictError, InputError, NotFoundError, StepFailedError
from interlock.domain.ids import AgentName, StepName, ToolName
from interlock.domain.label import Labels
from interlock.domain.pointer import fill
from interlock.domain.principal import Seat
from interlock.domain.record import from_json, object_to_json
from interlock.domain.release import Release
from interlock.domain.run import Expired, Run, RunState, StartRequest, TriggerRef
from interlock.domain.tool import ToolVersion
from interlock.domain.trace import Span, SpanStatus
from interlock.domain.workflow import WORKFLOW_AGENT, Step, WorkflowSpec, begin_name
from interlock.observe import emit, semconv
from interlock.runtime.durable import codec
from interlock.runtime.plans import Planning, run_plan
from interlock.runtime.triggers import holds
from interlock.store import runs, spans
from interlock.store.tx import Tx

_FAILURES = (StepFailedError, InputError, NotFoundError, ConflictError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the code of every run needs."""

    road: Road
    catalog: ModelCatalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One run on its way through its workflow; `outputs` are those of the steps behind it.

    `failure` (`step`, `code`, `message`) is set while the step of a failure mode runs.
    """

    services: Services
    durable: Durable
    release: Release
    spec: WorkflowSpec
    outputs: dict[str, Json] = field(default_factory=dict)
    failure: JsonObject = field(default_factory=dict)

    @property
    def run(self) -> Run:
        """Return the run as it was claimed."""
        return self.durable.run

    def documents(self, shared: JsonObject) -> dict[str, Json]:
        """Return the documents that templates and conditions of a step may point into."""
        return {
            "input": self.run.request.input,
            "step": self.outputs,
            "shared": shared,
            "failure": self.failure,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What is recorded when a step begins, so that every replay is given the same."""

    at_us: int = 0
    is_late: bool = False
    is_skipped: bool
    shared: JsonObject = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)


async def run_step(walk: Walk, step: Step) -> Json:
    """Run a step to its recorded output, null if its condition does not hold.

    Raises `StepFailedError` with the code that failure modes match; nothing is recorded of it here.
    """
    recorded = walk.durable.recorded(StepName(step.name))
    if recorded is not None:
        return recorded.value
    try:
        begun = await _begun(walk, step)
        if begun.is_skipped:
            return None
        if begun.is_late:
            raise _failed(step, "run.deadline", "the run is past its deadline")
        return await _ended(walk, step, await _run(walk, step, begun))
    except StepFailedError:
        raise
    except _FAILURES as error:
        raise _failed(step, error.code, error.message) from error


async def _begun(walk: Walk, step: Step) -> Begun:
    """Record that a step begins, with what it is given.

    Only noted if that follows from the journal alone: then it commits with the step's first write.
    """
    name, durable = begin_name(step.name), walk.durable
    deadline_us = walk.run.request.deadline_us
    is_in_time = deadline_us is None or durable.is_surely_before(deadline_us)
    if step.tool is not None and is_in_time and not _shared_keys(step):
        before = durable.recorded(name)
        durable.note(name, lambda tx: _begin(tx, walk, step), kind="step.begin")
        if before is None:
            return Begun(is_skipped=not holds(step.when, walk.documents({})))
        return from_json(Begun, before.value)
    begun = await durable.commit(name, lambda tx: _begin(tx, walk, step), kind="step.begin")
    return from_json(Begun, begun)


async def _ended(walk: Walk, step: Step, output: Json) -> Json:
    """Record what a step has left behind; only noted if that is nothing but its output."""
    name, durable = StepName(step.name), walk.durable
    if step.share is not None or step.handoff is not None:
        return await durable.commit(name, lambda tx: _end(tx, walk, step, output), kind="step.end")
    kept = codec.checked(output, what=f"the result of `{name}`")
    durable.note(name, lambda tx: _end(tx, walk, step, kept), kind="step.end")
    return kept


def close_failed(tx: Tx, walk: Walk, step: Step, code: str) -> None:
    """Close the span of a step that failed and take on what its child has read."""
    if not any(span.key == step.name for span in spans.list_for_run(tx, walk.run.run_id)):
        return
    spans.close(
        tx,
        walk.run.run_id,
        step.name,
        end_us=tx.now_us,
        status=SpanStatus.ERROR,
        error_code=code,
        attributes=_joined(tx, walk, step),
    )


def chain_to(run: Run, *agents: AgentName | None) -> tuple[Seat, ...]:
    """Return the run's chain of seats, prolonged by those of some agents, none twice in a row."""
    chain = list(run.request.seats)
    for agent in agents:
        seat = Seat(workflow=run.request.workflow, agent=agent) if agent else None
        if seat is not None and chain[-1:] != [seat]:
            chain.append(seat)
    return tuple(chain)


def _begin(tx: Tx, walk: Walk, step: Step) -> Json:
    run = walk.run
    shared = read_shared(tx, run, _shared_keys(step))
    is_skipped = not holds(step.when, walk.documents(shared))
    is_late = run.request.deadline_us is not None and tx.now_us > run.request.deadline_us
    if not is_skipped:
        spans.put(tx, _span(walk, step, tx.now_us))
    return object_to_json(
        Begun(
            at_us=tx.now_us,
            is_late=is_late,
            is_skipped=is_skipped,
            shared=shared,
            labels=runs.get(tx, run.run_id).labels,
        )
    )


def _end(tx: Tx, walk: Walk, step: Step, output: Json) -> Json:
    if step.tool is not None:
        spans.put(tx, replace(_span(walk, step, tx.now_us), end_us=tx.now_us))
    else:
        spans.close(
            tx,
            walk.run.run_id,
            step.name,
            end_us=tx.now_us,
            status=SpanStatus.OK,
            attributes=_joined(tx, walk, step),
        )
    if step.share is not None:
        share(tx, walk.run, step.share, output, writer=str(_seat(walk, step)))
    return output


async def _run(walk: Walk, step: Step, begun: Begun) -> Json:
    documents = walk.documents(begun.shared)
    if step.agent is not None:
        return await _agent(walk, step, documents)
    if step.handoff is not None:
        return await _hand_off(walk, step, documents, begun.labels)
    if step.tool is not None:
        return await _tool(walk, step, documents)
    if step.plan is not None:
        return await _plan(walk, step, documents)
    return await _wait(walk, step, begun.at_us)


async def _agent(walk: Walk, step: Step, documents: dict[str, Json]) -> Json:
    # INVARIANT: `_run` comes here only for a step with an agent.
    assert step.agent is not None
    spec = walk.release.agents.get(step.agent)
    if spec is None:
        raise _failed(step, "agent.unknown", f"there is no agent `{step.agent}` in this release")
    return await run_agent(
        walk.services.road,
        walk.durable,
        walk.services.catalog,
        spec,
        seats=walk.run.request.deciding or chain_to(walk.run, step.agent),
        tools=_bound(walk, walk.spec.tools_of(step.agent)),
        step=StepName(step.name),
        prompt=_filled(step.input, documents),
        parent_span=step.name,
    )


async def _plan(walk: Walk, step: Step, documents: dict[str, Json]) -> Json:
    # INVARIANT: `_run` comes here only for a step with a planner.
    assert step.plan is not None
    planner = walk.release.agents.get(step.plan)
    if planner is None:
        raise _failed(step, "agent.unknown", f"there is no agent `{step.plan}` in this release")
    return await run_plan(
        Planning(
            road=walk.services.road,
            durable=walk.durable,
            catalog=walk.services.catalog,
            step=step,
            planner=planner,
            offered=_bound(walk, walk.spec.tools_of(step.plan)),
            plannable=_bound(walk, walk.spec.tools_of(step.under) & {*step.tools}),
            task=_filled(step.input, documents),
        )
    )


def _bound(walk: Walk, tools: frozenset[ToolName]) -> dict[ToolName, ToolVersion]:
    """Return those of some tools that are bound in the run's environment.

    By the run's own release: in a later one a recorded call might name a tool that is not offered,
    and its replay would read that it does not exist. What has moved since is refused on the road.
    """
    environment = walk.run.request.environment
    bindings = ((name, walk.release.binding(name, environment)) for name in sorted(tools))
    return {name: binding.tool for name, binding in bindings if binding is not None}


async def _hand_off(walk: Walk, step: Step, documents: dict[str, Json], labels: Labels) -> Json:
    # INVARIANT: `_run` comes here only for a hand-off.
    assert step.handoff is not None
    request = walk.run.request
    chain = chain_to(walk.run, step.handed_by, step.handoff)
    child = StartRequest(
        workflow=request.workflow,
        workflow_version=request.workflow_version,
        release=request.release,
        environment=request.environment,
        tenant=request.tenant,
        department=request.department,
        trigger=TriggerRef(kind="handoff", source=walk.run.run_id, key=_child_name(step)),
        input=_filled(step.input, documents),
        agent=step.handoff,
        seats=chain,
        deciding=chain if step.rights == "chain" else chain[-1:],
        user=request.user,
        parent_id=walk.run.run_id,
        root_id=request.root_id or walk.run.run_id,
        depth=request.depth + 1,
        labels=labels,
        deadline_us=request.deadline_us,
    )
    outcome = await walk.durable.child(_child_name(step), child)
    if outcome.state is not RunState.SUCCEEDED:
        code = outcome.error_code or f"run.{outcome.state}"
        why = outcome.error_message or f"the run of `{step.handoff}` ended `{outcome.state}`"
        raise _failed(step, code, why)
    return outcome.output


async def _tool(walk: Walk, step: Step, documents: dict[str, Json]) -> Json:
    # INVARIANT: `_run` comes here only for a plain tool step.
    assert step.tool is not None
    result = await call_tool(
        walk.services.road,
        walk.durable,
        Proposal(
            step_name=StepName(f"{step.name}/{step.tool}"),
            tool=step.tool,
            arguments=fill(step.args, documents, optional=True),
            seats=(_seat(walk, step),),
            parent_span=step.name,
        ),
    )
    # A draft was not sent and has no output; the workflow goes on to show what it would do.
    if result.state in {CallState.SUCCEEDED, CallState.DRAFTED}:
        return result.output
    code = result.code or f"call.{result.state}"
    raise _failed(step, code, result.message or f"the call of `{step.tool}` was `{result.state}`")


async def _wait(walk: Walk, step: Step, begun_us: int) -> Json:
    # INVARIANT: a step has one of five kinds, and `_run` has seen to the other four.
    assert step.wait is not None
    answer = await walk.durable.wait(
        StepName(f"{step.name}/wait"), step.wait, until_us=_due_us(walk.run, step, begun_us)
    )
    if isinstance(answer, Expired):
        raise _failed(step, "wait.expired", f"nobody sent `{step.wait}` in time")
    return answer


def _due_us(run: Run, step: Step, begun_us: int) -> int | None:
    own = None if step.timeout_s is None else begun_us + int(step.timeout_s * 1_000_000)
    return min((due for due in (own, run.request.deadline_us) if due is not None), default=None)


def _filled(template: Json, documents: dict[str, Json]) -> Json:
    """Return what an agent is given: its template filled, or the run's input if it has none."""
    return documents["input"] if template is None else fill(template, documents, optional=True)


def _shared_keys(step: Step) -> set[str]:
    """Return the keys of the blackboard that a step's templates and conditions point at."""
    texts = _texts([step.input, step.args, *(condition.at for condition in step.when)])
    pointers = (text.removeprefix("shared:") for text in texts if text.startswith("shared:"))
    return {pointer.lstrip("/").partition("/")[0] for pointer in pointers}


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value if isinstance(value, list) else value.values():
            yield from _texts(item)


def _seat(walk: Walk, step: Step) -> Seat:
    agent = step.agent or step.handoff or step.plan or WORKFLOW_AGENT
    return Seat(workflow=walk.run.request.workflow, agent=agent)


def _span(walk: Walk, step: Step, start_us: int) -> Span:
    run_id, name = walk.run.run_id, step.name
    if step.agent is not None or step.plan is not None:
        spec = walk.release.agents.get(_seat(walk, step).agent)
        version = None if spec is None else spec.version
        return emit.agent_span(
            run_id, name, seat=_seat(walk, step), start_us=start_us, agent_version=version
        )
    if step.handoff is not None:
        return emit.handoff_span(run_id, name, agent=step.handoff, start_us=start_us)
    if step.wait is not None:
        due_us = _due_us(walk.run, step, start_us)
        return emit.wait_span(run_id, name, topic=step.wait, start_us=start_us, due_us=due_us)
    return emit.step_span(run_id, name, start_us=start_us)


def _joined(tx: Tx, walk: Walk, step: Step) -> JsonObject:
    """Take on the labels of a step's child run; return the attributes that link to it."""
    if step.handoff is None:
        return {}
    children = runs.children(tx, walk.run.run_id)
    mine = [c for c in children if c.request.trigger.key.startswith(_child_name(step))]
    if not mine:
        return {}
    runs.raise_labels(tx, walk.run.run_id, mine[-1].labels)
    return {semconv.CHILD_RUN: mine[-1].run_id, semconv.CHILD_STATE: mine[-1].state.value}


def _child_name(step: Step) -> StepName:
    return StepName(f"{step.name}/child")


def _failed(step: Step, code: str, message: str) -> StepFailedError:
    return StepFailedError(message, error_code=code, step_name=step.name)
