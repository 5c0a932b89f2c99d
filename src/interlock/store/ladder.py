"""Levels that were earned: part of the live release, so each change of one is the next release.

A level is lowered in the transaction that records the cause. Who asks for a promotion waits here
for a second person; each change stays, a promotion with its evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import delete, func, select

from interlock.domain.autonomy import SYSTEM, Rung, rung_key
from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Outcome
from interlock.domain.errors import ConflictError
from interlock.domain.ids import ToolName, WorkflowName
from interlock.domain.ladder import lowered
from interlock.domain.release import Release
from interlock.domain.run import Run
from interlock.domain.tool import Environment
from interlock.store import registry
from interlock.store.columns import pack_optional, unpack
from interlock.store.tables.calls import decision as decisions
from interlock.store.tables.ladder import autonomy_ask as asks
from interlock.store.tables.ladder import autonomy_step as steps
from interlock.store.tables.runs import run as runs
from interlock.store.tx import Tx

BOUNDARIES = ("label-clearance", "tenant-data", "tenant-tools")
"""The default guardrails about where data and tools belong."""
BOUNDARY_DENIALS = 3
HOUR_US = 3_600_000_000
AFTER_VIOLATION = 1
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """A level that changed: in which release, by whom, why and, if it was raised, on what."""

    workflow: str
    environment: str
    release: int
    before: int
    after: int
    by: str
    confirmed_by: str | None
    reason: str
    evidence: JsonObject | None
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedLevel:
    """A promotion that one person asks for, of exactly these versions."""

    level: int
    versions: str
    by: str
    reason: str
    at_us: int


def rung_of(tx: Tx, workflow: WorkflowName | str, environment: Environment | str) -> Rung | None:
    """Return the live rung of a workflow in an environment; None if it has nothing to do there."""
    number = registry.live_number(tx)
    if not number:
        return None
    return registry.get_release(tx, number).ladder.get(rung_key(workflow, environment))


def lower(tx: Tx, wanted: Mapping[str, int], *, reason: str, by: str = SYSTEM) -> list[LevelChange]:
    """Lower rungs (`workflow@environment`) at most to a level each; return those that changed.

    That is the next release. Another one that comes in between is looked at again.
    """
    for _ in range(_TRIES):
        number = registry.live_number(tx)
        if not number:
            return []
        live = registry.get_release(tx, number)
        ladder = {
            key: lowered(rung, wanted[key], since=number + 1, by=by, reason=reason)
            for key, rung in live.ladder.items()
            if key in wanted
        }
        changed = {key: rung for key, rung in ladder.items() if rung != live.ladder[key]}
        if not changed:
            return []
        try:
            release = _put(tx, live, changed, by=by)
        except ConflictError:
            continue
        return [
            _note(tx, key, release.number, live.ladder[key], rung) for key, rung in changed.items()
        ]
    raise ConflictError("other releases came in between; try again")


def lift(tx: Tx, key: str, rung: Rung, *, evidence: JsonObject) -> LevelChange:
    """Raise a rung by a promotion that two people have signed; raises `ConflictError` on a race."""
    live = registry.get_release(tx, registry.live_number(tx))
    before = live.ladder[key]
    raised = replace(rung, since=live.number + 1)
    release = _put(tx, live, {key: raised}, by=rung.by, confirmed_by=rung.confirmed_by)
    return _note(tx, key, release.number, before, raised, evidence=evidence)


def note_carried(tx: Tx, before: Release, after: Release) -> None:
    """Note the levels that an apply has changed."""
    for key, rung in after.ladder.items():
        was = before.ladder.get(key)
        if was is not None and was.level != rung.level:
            _note(tx, key, after.number, was, rung)


def quarantined(tx: Tx, bindings: Mapping[str, str]) -> list[LevelChange]:
    """Lower the workflows that call quarantined tools (`tool@environment`), in the same place."""
    live = registry.get_release(tx, registry.live_number(tx))
    wanted = {
        rung_key(flow.name, environment): AFTER_VIOLATION
        for name, _, environment in (key.partition("@") for key in bindings)
        for flow in live.callers(ToolName(name))
    }
    named = ", ".join(f"`{key}`" for key in sorted(bindings))
    return lower(tx, wanted, reason=f"a tool that it calls is quarantined: {named}")


def after_denial(tx: Tx, run: Run, decision: Decision) -> list[LevelChange]:
    """Lower a workflow whose calls a boundary has denied again and again within an hour.

    Called once the decision is written; anything but such a denial changes nothing.
    """
    at_boundary = sorted(set(BOUNDARIES) & set(decision.policy_ids))
    if decision.outcome is not Outcome.DENY or not at_boundary:
        return []
    request = run.request
    query = (
        select(func.count())
        .select_from(decisions.join(runs, runs.c.run_id == decisions.c.run_id))
        .where(
            decisions.c.at_us > tx.now_us - HOUR_US,
            decisions.c.outcome == Outcome.DENY,
            decisions.c.policy_ids.contains(f'"{at_boundary[0]}"', autoescape=True),
            runs.c.tenant == request.tenant,
            runs.c.workflow == request.workflow,
            runs.c.environment == request.environment,
        )
    )
    if tx.connection.execute(query).scalar_one() < BOUNDARY_DENIALS:
        return []
    reason = f"`{at_boundary[0]}` denied {BOUNDARY_DENIALS} of its calls within an hour"
    return violated(tx, request.workflow, request.environment, reason)


def violated(
    tx: Tx, workflow: WorkflowName | str, environment: Environment | str, reason: str
) -> list[LevelChange]:
    """Lower a workflow that did, or was made to do, what it must not."""
    return lower(tx, {rung_key(workflow, environment): AFTER_VIOLATION}, reason=reason)


def history(
    tx: Tx, workflow: WorkflowName | str, environment: Environment | str, *, limit: int = 50
) -> list[LevelChange]:
    """Return how a level changed, the newest change first."""
    query = (
        select(steps)
        .where(steps.c.workflow == workflow, steps.c.environment == environment)
        .order_by(steps.c.at_us.desc(), steps.c.step_id.desc())
        .limit(limit)
    )
    found = []
    for row in tx.connection.execute(query).mappings():
        evidence = unpack(row["evidence"])
        values = {name: value for name, value in row.items() if name != "step_id"}
        found.append(
            LevelChange(**values | {"evidence": evidence if isinstance(evidence, dict) else None})
        )
    return found


def find_asked(tx: Tx, workflow: str, environment: str) -> AskedLevel | None:
    """Return the promotion that somebody asks for, None if nobody does."""
    query = select(asks).where(asks.c.workflow == workflow, asks.c.environment == environment)
    row = tx.connection.execute(query).mappings().first()
    if row is None:
        return None
    return AskedLevel(
        **{name: row[name] for name in ("level", "versions", "by", "reason", "at_us")}
    )


def put_asked(
    tx: Tx, workflow: str, environment: str, *, level: int, versions: str, by: str, reason: str
) -> AskedLevel:
    """Note that somebody asks for a promotion, in place of whoever asked before."""
    drop_asked(tx, workflow, environment)
    asked = {"level": level, "versions": versions, "by": by, "reason": reason, "at_us": tx.now_us}
    tx.insert(asks, {"workflow": workflow, "environment": environment, **asked})
    return AskedLevel(level=level, versions=versions, by=by, reason=reason, at_us=tx.now_us)


def drop_asked(tx: Tx, workflow: str, environment: str) -> None:
    """Forget what somebody asked for."""
    tx.connection.execute(
        delete(asks).where(asks.c.workflow == workflow, asks.c.environment == environment)
    )


def _put(
    tx: Tx,
    live: Release,
    changed: Mapping[str, Rung],
    *,
    by: str,
    confirmed_by: str | None = None,
) -> Release:
    release = replace(live, ladder={**live.ladder, **changed})
    if confirmed_by is None:
        return registry.put_release(tx, release, by=by)
    return registry.put_release(tx, release, by=confirmed_by, asked_by=by)


def _note(
    tx: Tx, key: str, release: int, before: Rung, after: Rung, *, evidence: JsonObject | None = None
) -> LevelChange:
    workflow, _, environment = key.partition("@")
    change = LevelChange(
        workflow=workflow,
        environment=environment,
        release=release,
        before=before.level,
        after=after.level,
        by=after.by,
        confirmed_by=after.confirmed_by,
        reason=after.reason,
        evidence=evidence,
        at_us=tx.now_us,
    )
    tx.connection.execute(
        steps.insert().values(
            step_id=tx.new_id(),
            workflow=workflow,
            environment=environment,
            release=release,
            before=before.level,
            after=after.level,
            by=after.by,
            confirmed_by=after.confirmed_by,
            reason=after.reason,
            evidence=pack_optional(evidence),
            at_us=tx.now_us,
        )
    )
    return change
