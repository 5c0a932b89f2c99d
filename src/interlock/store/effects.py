"""The ledger: one row per tool call, moved only by compare-and-set, and what was seen of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import (
    ColumnElement,
    Text,
    bindparam,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from interlock.domain.budget import Cost
from interlock.domain.effect import Effect, EffectState, Evidence
from interlock.domain.errors import ConflictError, NotFoundError
from interlock.domain.ids import DecisionId, EffectId, RunId, StepName, TenantId, ToolName
from interlock.domain.tool import EffectClass
from interlock.store import budgets, counts, tallies
from interlock.store.columns import (
    pack,
    pack_optional,
    pack_seats,
    unpack,
    unpack_object,
    unpack_seats,
)
from interlock.store.statement import Row, Statement
from interlock.store.tables.calls import dup, evidence
from interlock.store.tables.calls import effect as table
from interlock.store.tallies import NOTHING_DONE, is_counted
from interlock.store.tx import Tx

_UNDONE_ELSEWHERE = "what it undoes has another undo, which is open or may have been done"
_BY_ID = Statement(select(table).where(table.c.effect_id == bindparam("effect_id")))
_MUTABLE = (
    "state",
    "epoch",
    "attempt",
    "call_digest",
    "guard",
    "is_in_doubt",
    "is_held",
    "decision_id",
    "policy_version",
    "first_sent_us",
    "send_deadline_us",
    "intent_us",
    "outcome_us",
    "external_id",
    "result",
    "error_code",
    "error_message",
    "cost_micro_usd",
    "compensated_by",
)
_MOVE = Statement(
    update(table)
    .where(
        table.c.effect_id == bindparam("of_effect"),
        table.c.state == bindparam("was_state"),
        table.c.epoch == bindparam("was_epoch"),
        table.c.attempt == bindparam("was_attempt"),
    )
    .returning(table.c.effect_id),
    *_MUTABLE,
)
_SEE = Statement(evidence.insert())
_OPEN = (EffectState.INTENT, EffectState.AMBIGUOUS, EffectState.PROBING, EffectState.PARKED)

_UNENDED = Statement(
    select(table)
    .where(
        table.c.run_id == bindparam("run_id"),
        or_(
            *(
                table.c.state == state.value
                for state in (EffectState.PROPOSED, EffectState.AUTHORIZED, *_OPEN)
            )
        ),
    )
    .order_by(table.c.created_us, table.c.effect_id)
)


def get(tx: Tx, effect_id: EffectId) -> Effect:
    """Return an effect; raises `NotFoundError`."""
    effect = find(tx, effect_id)
    if effect is None:
        raise NotFoundError(f"there is no effect `{effect_id}`")
    return effect


def expect(tx: Tx, effect_id: EffectId) -> None:
    """Say that an effect will be asked for."""
    tx.expect(_BY_ID, {"effect_id": effect_id})


def find(tx: Tx, effect_id: EffectId) -> Effect | None:
    """Return an effect, or None."""
    found = tx.rows(_BY_ID, {"effect_id": effect_id})
    return effect_of(found[0]) if found else None


def insert(tx: Tx, effect: Effect) -> None:
    """Insert a new row.

    Raises `ConflictError` if the effect exists, or another live one compensates the same effect.
    """
    values = {
        "effect_id": effect.effect_id,
        "run_id": effect.run_id,
        "step_name": effect.step_name,
        "tenant": effect.tenant,
        "environment": effect.environment,
        "workflow": effect.workflow,
        "seats": pack_seats(effect.seats),
        "tool": effect.tool,
        "tool_version": effect.tool_version,
        "pin": effect.pin,
        "effect_class": effect.effect_class,
        "is_write": effect.is_write,
        "arguments": pack(effect.arguments),
        "args_digest": effect.args_digest,
        "key_hash": effect.key_hash,
        "key_text": effect.key_text,
        "idem_key": effect.idem_key,
        "created_us": effect.created_us,
        "compensates": effect.compensates,
    }
    tx.insert_new(
        table,
        values | _mutable(effect),
        unless=lambda: ConflictError(
            f"the effect `{effect.effect_id}` exists, or {_UNDONE_ELSEWHERE}"
        ),
    )
    if is_counted(effect):
        _note_calls(tx, effect, 1)
    tallies.note(tx, None, effect)


def move(tx: Tx, before: Effect, after: Effect) -> Effect:
    """Write `after` if the row still has the state, epoch and attempt of `before`; return it.

    Identity, arguments and keys never change. Once it is decided what was done, budgets that hold
    its cost are settled. Raises `ConflictError` if the row has moved on, or if another live one
    compensates the same effect by now.
    """
    is_settled = after.is_held and after.state not in _OPEN
    after = replace(after, is_held=after.is_held and not is_settled)
    stands = {
        "of_effect": before.effect_id,
        "was_state": before.state,
        "was_epoch": before.epoch,
        "was_attempt": before.attempt,
    }

    stands_now = replace(before, **{name: getattr(after, name) for name in _MUTABLE})

    def moved_on() -> ConflictError:
        return ConflictError(f"the effect `{before.effect_id}` is no longer `{before.state}`")

    if before.compensates is None:
        tx.later(_MOVE, stands | _mutable(after), unless=moved_on)
    else:
        try:
            moved = tx.rows(_MOVE, stands | _mutable(after))
        except IntegrityError:
            raise ConflictError(f"the effect stays `{before.state}`: {_UNDONE_ELSEWHERE}") from None
        if not moved:
            raise moved_on()
    if is_counted(before) != is_counted(stands_now):
        _note_calls(tx, stands_now, 1 if is_counted(stands_now) else -1)
    tallies.note(tx, before, stands_now)
    if is_settled:
        nothing = Cost(micro_usd=0, calls=0) if after.state in NOTHING_DONE else None
        budgets.settle(tx, before.effect_id, nothing)
    return stands_now


def add_evidence(tx: Tx, seen: Evidence) -> None:
    """Append what was seen of an effect; `at_us` 0 means now."""
    tx.later(
        _SEE,
        {
            "evidence_id": tx.new_id(),
            "effect_id": seen.effect_id,
            "attempt": seen.attempt,
            "epoch": seen.epoch,
            "kind": seen.kind,
            "detail": pack(seen.detail),
            "by": seen.by,
            "at_us": seen.at_us or tx.now_us,
        },
    )


def list_evidence(tx: Tx, effect_id: EffectId) -> list[Evidence]:
    """Return all that was seen of an effect, in the order it was written."""
    query = select(evidence).where(evidence.c.effect_id == effect_id)
    return [
        Evidence(
            effect_id=EffectId(row["effect_id"]),
            attempt=row["attempt"],
            epoch=row["epoch"],
            kind=row["kind"],
            detail=unpack_object(row["detail"]),
            by=row["by"],
            at_us=row["at_us"],
        )
        for row in tx.connection.execute(query.order_by(evidence.c.evidence_id)).mappings()
    ]


def count_evidence(tx: Tx, effect_id: EffectId, kind: str) -> int:
    """Count what was seen of an effect of one kind."""
    query = select(func.count()).select_from(evidence)
    query = query.where(evidence.c.effect_id == effect_id, evidence.c.kind == kind)
    return tx.connection.execute(query).scalar_one()


def list_for_run(tx: Tx, run_id: RunId) -> list[Effect]:
    """Return the effects of one run, oldest first."""
    query = select(table).where(table.c.run_id == run_id)
    rows = tx.connection.execute(query.order_by(table.c.created_us, table.c.effect_id)).mappings()
    return [effect_of(row) for row in rows]


def expect_unended(tx: Tx, run_id: RunId) -> None:
    """Say that the effects of a run that are open will be asked for."""
    tx.expect(_UNENDED, {"run_id": run_id})


def list_unended(tx: Tx, run_id: RunId) -> list[Effect]:
    """Return the effects of one run that are open or still to be decided, oldest first."""
    return [effect_of(row) for row in tx.rows(_UNENDED, {"run_id": run_id})]


def list_effects(
    tx: Tx,
    *,
    tenant: TenantId | None = None,
    workflow: str | None = None,
    states: Collection[EffectState] = (),
    limit: int = 50,
    before_us: int | None = None,
) -> list[Effect]:
    """Return effects that were proposed before `before_us`, newest first."""
    query = select(table).order_by(table.c.created_us.desc(), table.c.effect_id).limit(limit)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    if workflow is not None:
        query = query.where(table.c.workflow == workflow)
    if states:
        query = query.where(table.c.state.in_(states))
        if set(states) <= set(_OPEN):
            # In the words of the partial index, so that both databases see that it serves.
            query = query.where(text("state IN ('intent', 'ambiguous', 'probing', 'parked')"))
    if before_us is not None:
        query = query.where(table.c.created_us < before_us)
    return [effect_of(row) for row in tx.connection.execute(query).mappings()]


def effect_of(row: Row) -> Effect:
    """Build an effect from a row of its table."""
    return Effect(
        effect_id=EffectId(row["effect_id"]),
        run_id=RunId(row["run_id"]),
        step_name=StepName(row["step_name"]),
        tenant=TenantId(row["tenant"]),
        environment=row["environment"],
        workflow=row["workflow"],
        seats=unpack_seats(row["seats"]),
        tool=ToolName(row["tool"]),
        tool_version=row["tool_version"],
        pin=row["pin"],
        effect_class=EffectClass(row["effect_class"]),
        is_write=row["is_write"],
        arguments=unpack_object(row["arguments"]),
        args_digest=row["args_digest"],
        state=EffectState(row["state"]),
        epoch=row["epoch"],
        attempt=row["attempt"],
        created_us=row["created_us"],
        idem_key=row["idem_key"],
        call_digest=row["call_digest"],
        key_hash=row["key_hash"],
        key_text=row["key_text"],
        guard=None if row["guard"] is None else unpack_object(row["guard"]),
        is_in_doubt=row["is_in_doubt"],
        is_held=row["is_held"],
        decision_id=DecisionId(row["decision_id"]) if row["decision_id"] else None,
        policy_version=row["policy_version"],
        first_sent_us=row["first_sent_us"],
        send_deadline_us=row["send_deadline_us"],
        intent_us=row["intent_us"],
        outcome_us=row["outcome_us"],
        external_id=row["external_id"],
        result=unpack(row["result"]),
        error_code=row["error_code"],
        error_message=row["error_message"],
        cost_micro_usd=row["cost_micro_usd"],
        compensates=EffectId(row["compensates"]) if row["compensates"] else None,
        compensated_by=EffectId(row["compensated_by"]) if row["compensated_by"] else None,
    )


# What policy asks of the ledger. "Counted" are effects from the intent on, except those that
# certainly did nothing: calls in flight on other workers count, denied ones do not, nor does one
# whose attempt failed for sure and whose next was refused.
_COUNTED = (
    table.c.intent_us.is_not(None),
    *(table.c.state != state.value for state in NOTHING_DONE),
)


def count_tool_since(tx: Tx, effect: Effect, since_us: int) -> int:
    """Count other calls of an effect's tool by its workflow in its environment, in all runs.

    Since the beginning of the minute of an instant. `effect` is as its row stands, if it has one.
    """
    counted = counts.since(tx, _counted_with(effect), since_us)
    is_own = is_counted(effect) and (effect.intent_us or 0) >= counts.minute_of(since_us)
    return counted - is_own


def _counted_with(effect: Effect) -> counts.Counted:
    return counts.Counted(
        tenant=effect.tenant,
        workflow=effect.workflow,
        environment=effect.environment,
        tool=effect.tool,
    )


def _note_calls(tx: Tx, effect: Effect, n: int) -> None:
    # INVARIANT: what is counted has an intent.
    assert effect.intent_us is not None
    counts.add(tx, _counted_with(effect), effect.intent_us, n)


def count_same_key(
    tx: Tx,
    tenant: TenantId,
    tool: ToolName,
    key_hash: str,
    since_us: int,
    *,
    other_than: EffectId,
) -> int:
    """Count other effects with a business key since a moment, in all runs."""
    return _count(
        tx,
        *same_key(tenant, tool, key_hash, since_us),
        *_others(other_than),
    )


_LOCK_KEY = Statement(
    select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("key", type_=Text), 0)))
)


def lock_key(tx: Tx, key: str) -> None:
    """Let two parallel intents that are counted under one key see each other: the second waits.

    Before its next question, not here. SQLite has one writer at a time: nothing to do there.
    """
    if tx.dialect == "postgresql":
        tx.lock(_LOCK_KEY, {"key": key})


def note_duplicate(
    tx: Tx, tenant: TenantId, tool: ToolName, key_hash: str, *, since_us: int
) -> None:
    """Count a business key's effects after the intent of one more was written.

    A chain of duplicates goes on while each is within the window (`since_us`) of the one before;
    nothing is written for a key without a second effect.
    """
    key = (dup.c.tenant == tenant, dup.c.tool == tool, dup.c.key_hash == key_hash)
    first_us = tx.connection.execute(
        select(dup.c.first_us).where(*key, dup.c.last_us >= since_us)
    ).scalar()
    counted, first_us, last_us = tx.connection.execute(
        select(func.count(), func.min(table.c.intent_us), func.max(table.c.intent_us)).where(
            *same_key(tenant, tool, key_hash, since_us if first_us is None else first_us),
            *_COUNTED,
        )
    ).one()
    if counted > 1:
        row = {"tenant": tenant, "tool": tool, "key_hash": key_hash}
        tx.upsert(dup, row | {"n": counted, "first_us": first_us, "last_us": last_us})


def same_key(
    tenant: TenantId, tool: ToolName, key_hash: str, since_us: int
) -> tuple[ColumnElement[bool], ...]:
    """Return the condition for effects of a business key whose intent came since a moment."""
    return (
        table.c.tenant == tenant,
        table.c.key_hash == key_hash,
        table.c.tool == tool,
        table.c.intent_us >= since_us,
    )


def _others(effect_id: EffectId | None) -> tuple[ColumnElement[bool], ...]:
    return () if effect_id is None else (table.c.effect_id != effect_id,)


def _count(tx: Tx, *conditions: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(table).where(*conditions, *_COUNTED)
    return tx.connection.execute(query).scalar_one()


def _mutable(effect: Effect) -> dict[str, object]:
    return {
        "state": effect.state,
        "epoch": effect.epoch,
        "attempt": effect.attempt,
        "call_digest": effect.call_digest,
        "guard": pack_optional(effect.guard),
        "is_in_doubt": effect.is_in_doubt,
        "is_held": effect.is_held,
        "decision_id": effect.decision_id,
        "policy_version": effect.policy_version,
        "first_sent_us": effect.first_sent_us,
        "send_deadline_us": effect.send_deadline_us,
        "intent_us": effect.intent_us,
        "outcome_us": effect.outcome_us,
        "external_id": effect.external_id,
        "result": pack_optional(effect.result),
        "error_code": effect.error_code,
        "error_message": effect.error_message,
        "cost_micro_usd": effect.cost_micro_usd,
        "compensated_by": effect.compensated_by,
    }
