"""Undo: the declared compensations of a run's effects, latest first, each an effect itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from interlock.calls import reconcile
from interlock.calls.durable import Durable
from interlock.calls.pipeline import call_tool
from interlock.calls.road import CallState, Proposal, Road
from interlock.domain.canonical import Json
from interlock.domain.effect import Effect, EffectState
from interlock.domain.errors import ConflictError, InputError
from interlock.domain.ids import EffectId, RunId, StepName
from interlock.domain.pointer import fill
from interlock.domain.principal import Seat
from interlock.domain.release import Release
from interlock.domain.tool import Compensation
from interlock.store import effects, runs
from interlock.store.tx import Tx

TODO = StepName("undo#todo")
"""Under this name a run records once what it undoes, and when it began to."""

_DONE = frozenset({EffectState.SUCCEEDED, EffectState.CONFIRMED_DONE})
_OPEN = reconcile.UNKNOWN | {EffectState.PARKED}
_HOUR_US = 3_600_000_000
_BLOCKED = "an effect after it is not undone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What became of one effect: undone, or left to people with the reason."""

    effect_id: EffectId
    tool: str
    is_undone: bool
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """Why an effect is not undone; `is_blocking` if nothing before it may be undone either."""

    why: str
    is_blocking: bool = True


async def compensate(
    road: Road, durable: Durable, run_id: RunId, *, seat: Seat
) -> tuple[Undo, ...]:
    """Undo the succeeded writes of a run and its children, latest first.

    Each undo takes the road under `seat`, policy and approvals included. An effect without a
    declared compensation is listed; one of unknown outcome, or a failed undo, stops everything
    earlier from being undone. What is to be undone is recorded once, before the first undo.
    """
    recorded = await durable.commit(TODO, lambda tx: _todo(tx, run_id), kind="undo.begin")
    # INVARIANT: only `_todo` writes what is recorded under this name.
    assert isinstance(recorded, dict)
    ids, began_us = recorded["effects"], recorded["at_us"]
    assert isinstance(ids, list)
    assert isinstance(began_us, int)
    undone: list[Undo] = []
    is_blocked = False
    for effect_id in ids:
        effect = await durable.read(partial(effects.get, effect_id=EffectId(str(effect_id))))
        if is_blocked:
            undone.append(_undo_of(effect, _BLOCKED))
            continue
        left = await _undo(road, durable, effect, seat, began_us=began_us)
        undone.append(_undo_of(effect, None if left is None else left.why))
        is_blocked = left is not None and left.is_blocking
    return tuple(undone)


def preview(tx: Tx, release: Release, run_id: RunId) -> tuple[Undo, ...]:
    """Say which effects of a run an undo would undo now, latest first; changes nothing."""
    previews: list[Undo] = []
    is_blocked = False
    for effect in _writes(tx, run_id):
        if is_blocked:
            previews.append(_undo_of(effect, _BLOCKED))
            continue
        worded = _worded(release, effect, began_us=tx.now_us)
        left = worded if isinstance(worded, _Left) else None
        previews.append(_undo_of(effect, None if left is None else left.why))
        is_blocked = left is not None and left.is_blocking
    return tuple(previews)


def _todo(tx: Tx, run_id: RunId) -> Json:
    ids: list[Json] = [effect.effect_id for effect in _writes(tx, run_id)]
    return {"effects": ids, "at_us": tx.now_us}


def _writes(tx: Tx, run_id: RunId) -> list[Effect]:
    tree = [run_id, *(child.run_id for child in runs.descendants(tx, run_id))]
    found = [
        effect
        for member in tree
        for effect in effects.list_for_run(tx, member)
        if effect.is_write and effect.compensates is None and effect.state in _DONE | _OPEN
    ]
    return sorted(found, key=lambda e: (e.outcome_us or e.created_us, e.effect_id), reverse=True)


async def _undo(
    road: Road, durable: Durable, effect: Effect, seat: Seat, *, began_us: int
) -> _Left | None:
    """Undo one effect; return why not if it is not undone."""
    if effect.state in {EffectState.COMPENSATED, EffectState.CONFIRMED_ABSENT}:
        # Undone before this stretch of the run began, or settled by now: there is nothing to undo.
        return None
    release = (await durable.read(road.live.at)).release
    worded = _worded(release, effect, began_us=began_us)
    if isinstance(worded, _Left):
        return worded
    compensation, arguments = worded
    proposal = Proposal(
        step_name=StepName(f"undo/{effect.effect_id}"),
        tool=compensation.tool,
        version=compensation.version,
        arguments=arguments,
        seats=(seat,),
        parent_span="run",
        compensates=effect.effect_id,
    )
    try:
        result = await call_tool(road, durable, proposal)
    except ConflictError as error:
        # Another undo of this effect came first, and is not over or may have been done.
        return _Left(why=error.message)
    if result.state is CallState.SUCCEEDED:
        return None
    return _Left(why=f"{result.code}: {result.message}")


def _worded(
    release: Release, effect: Effect, *, began_us: int
) -> tuple[Compensation, Json] | _Left:
    """Return the compensation and its arguments, or why there is none."""
    if effect.state not in _DONE:
        return _Left(why=f"its outcome is `{effect.state}`")
    tool = release.tool_version(effect.tool, effect.tool_version)
    if tool is None or tool.compensation is None or tool.is_irreversible:
        return _Left(why="its tool declares no compensation", is_blocking=False)
    undo = tool.compensation
    if began_us > (effect.outcome_us or effect.created_us) + undo.within_h * _HOUR_US:
        return _Left(why=f"it was done more than {undo.within_h} hours ago", is_blocking=False)
    documents: dict[str, Json] = {"in": effect.arguments, "out": effect.result}
    try:
        return undo, fill(undo.args, documents)
    except InputError as error:
        return _Left(why=f"its undo cannot be worded: {error.message}")


def _undo_of(effect: Effect, why: str | None) -> Undo:
    return Undo(effect_id=effect.effect_id, tool=effect.tool, is_undone=why is None, why=why)
