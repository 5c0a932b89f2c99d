"""Undo: the declared compensations of a run's effects, latest first, each an effect itself."""

from __future__ import annotations

from dataclasses import dataclass

from interlock.calls.durable import Durable
from interlock.calls.pipeline import call_tool
from interlock.calls.road import CallState, Proposal, Road
from interlock.domain.canonical import Json
from interlock.domain.effect import Effect, EffectState
from interlock.domain.errors import InputError
from interlock.domain.ids import EffectId, RunId, StepName
from interlock.domain.pointer import fill
from interlock.domain.principal import Seat
from interlock.domain.release import Release
from interlock.store import effects, runs
from interlock.store.engine import Tx

_DONE = frozenset({EffectState.SUCCEEDED, EffectState.CONFIRMED_DONE})
_OPEN = frozenset({EffectState.INTENT, EffectState.AMBIGUOUS, EffectState.PARKED})
_NO_COMPENSATION = "its tool declares no compensation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What became of one effect: undone, or left to people with the reason."""

    effect_id: EffectId
    tool: str
    is_undone: bool
    why: str | None = None


async def compensate(
    road: Road, durable: Durable, run_id: RunId, *, seat: Seat
) -> tuple[Undo, ...]:
    """Undo the succeeded writes of a run and its children, latest first.

    Each undo takes the road under `seat`, policy and approvals included. An effect without a
    declared compensation is listed; one of unknown outcome, or a failed undo, stops everything
    earlier from being undone.
    """
    live, todo = await durable.read(lambda tx: (road.live.at(tx), _writes(tx, run_id)))
    undone: list[Undo] = []
    for effect in todo:
        undo = await _undo(road, durable, live.release, effect, seat)
        undone.append(undo)
        if not undo.is_undone and undo.why != _NO_COMPENSATION:
            undone.extend(
                _left(later, "an effect after it is not undone") for later in todo[len(undone) :]
            )
            break
    return tuple(undone)


def preview(tx: Tx, release: Release, run_id: RunId) -> tuple[Undo, ...]:
    """Say which effects of a run an undo would undo, latest first; changes nothing."""
    previews: list[Undo] = []
    for effect in _writes(tx, run_id):
        tool = release.tool_version(effect.tool, effect.tool_version)
        can = tool is not None and tool.compensation is not None and effect.state in _DONE
        previews.append(
            Undo(
                effect_id=effect.effect_id,
                tool=effect.tool,
                is_undone=can,
                why=None if can else _NO_COMPENSATION,
            )
        )
    return tuple(previews)


def _writes(tx: Tx, run_id: RunId) -> list[Effect]:
    tree = [run_id, *(child.run_id for child in runs.descendants(tx, run_id))]
    found = [
        effect
        for member in tree
        for effect in effects.list_for_run(tx, member)
        if effect.is_write and effect.compensates is None and effect.state in _DONE | _OPEN
    ]
    return sorted(found, key=lambda e: (e.outcome_us or e.created_us, e.effect_id), reverse=True)


async def _undo(road: Road, durable: Durable, release: Release, effect: Effect, seat: Seat) -> Undo:
    if effect.state in _OPEN:
        return _left(effect, f"its outcome is `{effect.state}`")
    tool = release.tool_version(effect.tool, effect.tool_version)
    if tool is None or tool.compensation is None:
        return _left(effect, _NO_COMPENSATION)
    documents: dict[str, Json] = {"in": effect.arguments, "out": effect.result}
    try:
        arguments = fill(tool.compensation.args, documents)
    except InputError as error:
        return _left(effect, f"its undo cannot be worded: {error.message}")
    result = await call_tool(
        road,
        durable,
        Proposal(
            step_name=StepName(f"undo/{effect.effect_id}"),
            tool=tool.compensation.tool,
            version=tool.compensation.version,
            arguments=arguments,
            seats=(seat,),
            parent_span="run",
            compensates=effect.effect_id,
        ),
    )
    if result.state is CallState.SUCCEEDED:
        return Undo(effect_id=effect.effect_id, tool=effect.tool, is_undone=True)
    return _left(effect, f"{result.code}: {result.message}")


def _left(effect: Effect, why: str) -> Undo:
    return Undo(effect_id=effect.effect_id, tool=effect.tool, is_undone=False, why=why)
