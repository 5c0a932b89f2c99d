"""What starts runs: accepted events, each leading to one run, and the state of schedules."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from interlock.domain.errors import DedupeConflictError, NotFoundError
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.run import StartRequest
from interlock.store import runs
from interlock.store.tables.runs import schedule, trigger_event
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerEvent:
    """One accepted event: `dedupe_key` is unique in its source."""

    source: str
    dedupe_key: str
    kind: str
    body_digest: str
    run_id: RunId
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Where a cron trigger stands; `last_tick_us` is its last nominal time, or its first sight."""

    workflow: WorkflowName
    trigger: str
    is_paused: bool
    last_tick_us: int


def accept(tx: Tx, request: StartRequest, *, body_digest: str) -> tuple[RunId, bool]:
    """Write the event and its queued run; also return whether they are new.

    The same source and key again gives the first run; with another body it raises
    `DedupeConflictError` and writes nothing.
    """
    ref, run_id = request.trigger, RunId(tx.new_id())
    is_new = tx.insert_once(
        trigger_event,
        {
            "source": ref.source,
            "dedupe_key": ref.key,
            "kind": ref.kind,
            "body_digest": body_digest,
            "run_id": run_id,
            "at_us": tx.now_us,
        },
    )
    if is_new:
        runs.insert(tx, run_id, request)
        return run_id, True
    first = get_event(tx, ref.source, ref.key)
    if first.body_digest != body_digest:
        raise DedupeConflictError(
            f"the key `{ref.key}` of `{ref.source}` came before with another body"
        )
    return first.run_id, False


def get_event(tx: Tx, source: str, key: str) -> TriggerEvent:
    """Return an accepted event; raises `NotFoundError`."""
    event = find_event(tx, source, key)
    if event is None:
        raise NotFoundError(f"there is no event `{key}` of `{source}`")
    return event


def find_event(tx: Tx, source: str, key: str) -> TriggerEvent | None:
    """Return an accepted event, or None."""
    query = select(trigger_event).where(
        trigger_event.c.source == source, trigger_event.c.dedupe_key == key
    )
    row = tx.connection.execute(query).mappings().first()
    return None if row is None else TriggerEvent(**row)


def lock_schedule(tx: Tx, workflow: WorkflowName, trigger: str, *, is_paused: bool) -> Schedule:
    """Return where a cron trigger stands, and lock its row until the transaction ends.

    One that is seen for the first time starts now, not with its past, paused or not as given.
    """
    first = {"is_paused": is_paused, "last_tick_us": tx.now_us}
    tx.insert_once(schedule, {"workflow": workflow, "trigger": trigger, **first})
    query = select(schedule).where(schedule.c.workflow == workflow, schedule.c.trigger == trigger)
    row = tx.connection.execute(query.with_for_update()).mappings().one()
    return Schedule(**row)


def put_schedule(
    tx: Tx, workflow: WorkflowName, trigger: str, *, is_paused: bool, last_tick_us: int
) -> None:
    """Write where a cron trigger stands."""
    tx.upsert(
        schedule,
        {
            "workflow": workflow,
            "trigger": trigger,
            "is_paused": is_paused,
            "last_tick_us": last_tick_us,
        },
    )


def list_schedules(tx: Tx) -> list[Schedule]:
    """Return all that were ever written, by workflow and trigger."""
    query = select(schedule).order_by(schedule.c.workflow, schedule.c.trigger)
    return [Schedule(**row) for row in tx.connection.execute(query).mappings()]
