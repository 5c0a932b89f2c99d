"""The run of a second look: is an effect there more often than the ledger has it?

`calls.reconcile` starts it where a lost worker was not seen to end and may send after all.
"""

from __future__ import annotations

from functools import partial
from itertools import count

from interlock.calls import protocol, reconcile
from interlock.calls.durable import Durable
from interlock.calls.pipeline import call_tool
from interlock.calls.road import Road, view_of
from interlock.domain.canonical import Json
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import EffectId, StepName
from interlock.domain.run import RunOutcome, RunState
from interlock.domain.tool import ToolVersion
from interlock.observe import emit
from interlock.store import effects, journal, runs
from interlock.store.tx import Tx

_PAUSE_US = 60_000_000


async def recheck(road: Road, durable: Durable, effect_id: EffectId, *, at_us: int) -> RunOutcome:
    """Look for an effect once more and park it if it is there too often.

    Not before `at_us`, nor before its call has ended and shows. The run fails if nothing is found
    out: then a person has to look.
    """
    await _until_it_shows(road, durable, effect_id, at_us)
    for n in range(1, reconcile.MAX_PROBES + 1):
        effect, tool = await durable.read(partial(_known, road, effect_id))
        probe = None if tool is None else tool.effect.probe
        if probe is None:
            return _unanswered(f"`{effect.tool}@{effect.tool_version}` has no probe any more")
        # It could be worded for the first look, and is filled from the same row.
        question = reconcile.question_of(effect, probe, n, parent_span=emit.ROOT_KEY)
        answer = await call_tool(road, durable, question)
        items = reconcile.found_by(effect, probe, answer)
        if items is not None:
            note = partial(_note, road, effect_id, found=len(items), asked=answer.effect_id)
            output = await durable.commit(
                StepName("recheck#found"), note, kind="call.rechecked", tool=effect.tool
            )
            # INVARIANT: only `_note` writes what is recorded under this name.
            assert isinstance(output, dict)
            end_state = "doubled" if output["is_doubled"] else "confirmed"
            return RunOutcome(state=RunState.SUCCEEDED, output=output, end_state=end_state)
        asked_us = await durable.now_us(StepName(f"recheck#asked.{n}"))
        await durable.sleep(StepName(f"recheck#pause.{n}"), asked_us + _PAUSE_US)
    return _unanswered(f"{reconcile.MAX_PROBES} probes did not tell")


async def _until_it_shows(road: Road, durable: Durable, effect_id: EffectId, at_us: int) -> None:
    """Wait until a call has ended and the outside shows what it did."""
    due_us = at_us
    for n in count(1):
        await durable.sleep(StepName(f"recheck#due.{n}"), due_us)
        later = await durable.commit(
            StepName(f"recheck#shows.{n}"),
            partial(_shows_later, road, effect_id, n=n),
            kind="call.recheck",
        )
        if later is None:
            return
        due_us = int(str(later))


def _shows_later(road: Road, effect_id: EffectId, tx: Tx, *, n: int) -> Json:
    """Return when to look again; None if the call has ended and what it did shows by now."""
    effect, tool = _known(road, effect_id, tx)
    run = runs.get(tx, effect.run_id)
    is_ended = run.state.is_final or journal.find(tx, run.run_id, (effect.step_name,))
    if not is_ended:
        # Half a minute first, an hour in the end.
        return tx.now_us + round(15.0 * 2.0 ** min(n, 8) * 1_000_000)
    shows_us = protocol.quiet_at_us(view_of(effect, tool))
    return shows_us if shows_us > tx.now_us else None


def _note(road: Road, effect_id: EffectId, tx: Tx, *, found: int, asked: EffectId) -> Json:
    # The row of its run after one's own, as every child locks its parent's.
    runs.lock_any(tx, effects.get(tx, effect_id).run_id)
    effect, tool = _known(road, effect_id, tx)
    after = reconcile.note_recheck(tx, effect, tool, found=found, asked=asked)
    is_doubled = after.state is EffectState.PARKED and effect.state is not EffectState.PARKED
    return {"effect_id": effect_id, "found": found, "is_doubled": is_doubled}


def _known(road: Road, effect_id: EffectId, tx: Tx) -> tuple[Effect, ToolVersion | None]:
    effect = effects.get(tx, effect_id)
    return effect, road.live.at(tx).release.tool_version(effect.tool, effect.tool_version)


def _unanswered(why: str) -> RunOutcome:
    return RunOutcome(state=RunState.FAILED, error_code="recheck.unanswered", error_message=why)
