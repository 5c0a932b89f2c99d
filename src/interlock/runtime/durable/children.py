"""Child runs: what a parent hands on to them, and where it hears of their end."""

from __future__ import annotations

from dataclasses import replace

from interlock.domain.errors import InputError
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import Run, StartRequest, TriggerRef

MAX_RUN_DEPTH = 5


def child_topic(run_id: RunId) -> str:
    """Return the topic under which a child run tells its parent that it has ended."""
    return f"child/{run_id}"


def child_of(run: Run, name: StepName, request: StartRequest) -> StartRequest:
    """Return the request as a child's: below its parent, with its labels, in its time."""
    if run.request.depth >= MAX_RUN_DEPTH:
        raise InputError(f"the run `{run.run_id}` is {MAX_RUN_DEPTH} hand-offs deep already")
    deadlines = [d for d in (run.request.deadline_us, request.deadline_us) if d is not None]
    return replace(
        request,
        trigger=TriggerRef(kind="child", source=f"run:{run.run_id}", key=name),
        parent_id=run.run_id,
        root_id=run.request.root_id,
        depth=run.request.depth + 1,
        labels=request.labels.join(run.labels),
        deadline_us=min(deadlines, default=None),
        priority=run.request.priority,
    )
