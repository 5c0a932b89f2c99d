"""What people see of a run: which steps are done, running, waiting, failed and still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interlock.domain.ids import StepName
from interlock.domain.run import RECHECK, SESSION, UNDO, JournalEntry, Run, RunState
from interlock.domain.trace import Span
from interlock.domain.workflow import FailureMode, Step, WorkflowSpec, begin_name, failed_name
from interlock.store import journal, spans
from interlock.store.tx import Tx

StepKind = Literal["agent", "handoff", "tool", "wait", "plan"]
StepState = Literal["done", "skipped", "running", "waiting", "failed", "to_come", "not_reached"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """One step of a run: `what` it is (an agent, a tool, a topic), its state and its times.

    `error_message` says why it failed, `fallback` what took over then. A step that only runs after
    a failure is `not_reached` unless that failure came.
    """

    name: str
    kind: StepKind
    what: str
    state: StepState
    started_us: int | None = None
    ended_us: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    fallback: str | None = None


def progress(tx: Tx, run: Run, spec: WorkflowSpec) -> tuple[StepProgress, ...]:
    """Return the steps of a run in the order declared, each with how it stands.

    The child run of a hand-off has one step, its agent; an undo, a recheck and a session have none.
    """
    entries = journal.load(tx, run.run_id)
    opened = {span.key: span for span in spans.list_for_run(tx, run.run_id)}
    only_after: dict[str | None, FailureMode] = {m.target: m for m in spec.failure_modes}
    return tuple(
        _progress(
            run,
            step,
            entries,
            span=opened.get(step.name),
            fallback=opened.get(f"{step.name}#fallback"),
            is_only_after=step.name in only_after,
        )
        for step in _steps(run, spec)
    )


def _steps(run: Run, spec: WorkflowSpec) -> tuple[Step, ...]:
    agent = run.request.agent
    if run.request.trigger.kind in {UNDO, RECHECK, SESSION}:
        return ()
    return spec.steps if agent is None else (Step(name=agent, agent=agent),)


def _progress(
    run: Run,
    step: Step,
    entries: dict[StepName, JournalEntry],
    *,
    span: Span | None,
    fallback: Span | None,
    is_only_after: bool,
) -> StepProgress:
    state = _state(run, step, entries, is_failed=span is not None and span.error_code is not None)
    if state == "to_come" and is_only_after:
        state = "not_reached"
    kind, what = _kind(step)
    failed = entries.get(failed_name(step.name))
    failure = failed.value if failed is not None and isinstance(failed.value, dict) else {}
    return StepProgress(
        name=step.name,
        kind=kind,
        what=what,
        state=state,
        started_us=None if span is None else span.start_us,
        ended_us=None if span is None else span.end_us,
        error_code=None if span is None else span.error_code,
        error_message=None if not failure else str(failure["message"]),
        fallback=None if fallback is None else fallback.name.removeprefix("fallback "),
    )


def _state(
    run: Run, step: Step, entries: dict[StepName, JournalEntry], *, is_failed: bool
) -> StepState:
    begun = entries.get(begin_name(step.name))
    if StepName(step.name) in entries:
        return "done"
    if is_failed or failed_name(step.name) in entries:
        return "failed"
    if begun is None:
        return "not_reached" if run.state.is_final else "to_come"
    if isinstance(begun.value, dict) and begun.value["is_skipped"]:
        return "skipped"
    if run.state.is_final:
        return "not_reached"
    return "waiting" if run.state is RunState.WAITING else "running"


def _kind(step: Step) -> tuple[StepKind, str]:
    if step.agent is not None:
        return "agent", step.agent
    if step.handoff is not None:
        return "handoff", step.handoff
    if step.tool is not None:
        return "tool", step.tool
    if step.plan is not None:
        return "plan", step.plan
    return "wait", step.wait or ""
