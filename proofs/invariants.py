"""Compares the ledger with what the recording tool server received and applied: I1 to I10.

A breach is a sentence that begins with its invariant. I6 says nothing: no switch is set here. I7 is
about the budget `CALLS`, which the project has to have.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise

from interlock.domain.approval import Approval
from interlock.domain.canonical import JsonObject, digest
from interlock.domain.effect import Effect, EffectState, Evidence
from interlock.domain.ids import EffectId, RunId
from interlock.domain.run import Run, RunState
from interlock.domain.tool import EffectClass
from interlock.domain.trace import SpanKind
from interlock.store import approvals, budgets, decisions, effects, journal, runs, spans
from interlock.store.decisions import RecordedDecision
from interlock.store.tx import Tx
from interlock.testing.recording import AppliedEffect, ReceivedRequest, Record

CHECKED = ("I1", "I2", "I3", "I4", "I5", "I7", "I8", "I9", "I10")
UNCHECKED: JsonObject = {"I6": "no switch is set; tests/acceptance/test_r8_kill_switch.py"}
CALLS = "calls"
"""A budget that covers every call of a project."""
CALLS_FILE = f"""
interlock: v1
kind: Budget
name: {CALLS}
title: All calls
scope: department
of: it
period: month
unit: calls
limit: 1000000
"""
_ENOUGH = 1_000_000
_DONE_ONCE = frozenset({EffectState.SUCCEEDED, EffectState.CONFIRMED_DONE, EffectState.COMPENSATED})
_NEVER_DONE = frozenset({EffectState.FAILED_DEFINITE, EffectState.CONFIRMED_ABSENT})
_UNSENT = frozenset(
    {EffectState.PROPOSED, EffectState.AUTHORIZED, EffectState.DENIED, EffectState.DRAFTED}
)
_NO_UNDO = _NEVER_DONE | {EffectState.DENIED, EffectState.DRAFTED}
_UNKNOWN = frozenset(
    {EffectState.INTENT, EffectState.AMBIGUOUS, EffectState.PROBING, EffectState.PARKED}
)
_HELD = frozenset({RunState.WAITING, RunState.DEAD_LETTERED})
_AT_MOST_ONCE = frozenset({EffectClass.KEYED, EffectClass.CONDITIONAL, EffectClass.PROBED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What an installation has on record; `intents_us` are the times of an effect's attempts."""

    runs: tuple[Run, ...]
    effects: tuple[Effect, ...]
    evidence: dict[EffectId, tuple[Evidence, ...]]
    decisions: dict[EffectId, tuple[RecordedDecision, ...]]
    approvals: dict[EffectId, tuple[Approval, ...]]
    intents_us: dict[EffectId, tuple[int, ...]]
    journal_epochs: dict[RunId, tuple[int, ...]]
    counted: tuple[int, int]
    """What the budget `CALLS` has spent and reserved."""


def export(tx: Tx) -> Ledger:
    """Read the whole ledger."""
    found = tuple(effects.list_effects(tx, limit=_ENOUGH))
    all_runs = tuple(runs.list_runs(tx, limit=_ENOUGH))
    intents: defaultdict[EffectId, list[int]] = defaultdict(list)
    for run in all_runs:
        for span in spans.list_for_run(tx, run.run_id):
            if span.kind is SpanKind.SEND and span.effect_id is not None:
                intents[span.effect_id].append(span.start_us)
    ids = [effect.effect_id for effect in found]
    return Ledger(
        runs=all_runs,
        effects=found,
        evidence={i: tuple(effects.list_evidence(tx, i)) for i in ids},
        decisions={i: tuple(decisions.list_for_effect(tx, i)) for i in ids},
        approvals={i: tuple(approvals.list_for_effect(tx, i)) for i in ids},
        intents_us={effect_id: tuple(sorted(times)) for effect_id, times in intents.items()},
        journal_epochs={run.run_id: _journal_epochs(tx, run.run_id) for run in all_runs},
        counted=budgets.totals(tx).get(CALLS, (0, 0)),
    )


def _journal_epochs(tx: Tx, run_id: RunId) -> tuple[int, ...]:
    entries = sorted(journal.load(tx, run_id).values(), key=lambda entry: entry.at_us)
    return tuple(entry.epoch for entry in entries)


def compare(ledger: Ledger, record: Record, *, triggers: Collection[str]) -> list[str]:
    """Return every breach; `triggers` are the keys of the triggers that were accepted."""
    received: defaultdict[str, list[ReceivedRequest]] = defaultdict(list)
    applied: defaultdict[str, list[AppliedEffect]] = defaultdict(list)
    for request in record.requests:
        if request.reference is not None:
            received[f"{request.method} {request.reference}"].append(request)
    for done in record.effects:
        applied[done.reference or ""].append(done)
    breaches = list(_intended_reads(ledger, received))
    known = {effect.effect_id for effect in ledger.effects}
    breaches += [f"I1: `{name}` was applied and nobody meant to" for name in applied.keys() - known]
    for effect in ledger.effects:
        if effect.is_write:
            requests = received[f"POST {effect.effect_id}"]
            times = applied[effect.effect_id]
            breaches += _intended(effect, ledger.intents_us.get(effect.effect_id, ()), requests)
            breaches += _as_intended(effect, ledger.approvals[effect.effect_id], requests)
            breaches += _done(effect, requests, times)
        breaches += _explained(effect, ledger)
    breaches += _ended(ledger, triggers)
    breaches += _budgeted(ledger)
    breaches += in_order_of_epochs(ledger)
    breaches += _undone(ledger, applied)
    return breaches


def _intended(
    effect: Effect, intents_us: tuple[int, ...], requests: list[ReceivedRequest]
) -> Iterator[str]:
    """I1: the n-th request of a row came after its n-th intent."""
    if len(requests) > len(intents_us) or len(intents_us) != effect.attempt:
        yield (
            f"I1: {_name(effect)} has {len(intents_us)} intents, is at attempt {effect.attempt}"
            f" and was received {len(requests)} times"
        )
    for request, intent_us in zip(requests, intents_us, strict=False):
        if request.at_us < intent_us:
            yield f"I1: {_name(effect)} was received before its intent"


def _intended_reads(ledger: Ledger, received: dict[str, list[ReceivedRequest]]) -> Iterator[str]:
    """I1 for reads, which do not carry the id of their effect: never more than were intended."""
    attempts: Counter[str] = Counter()
    for effect in ledger.effects:
        if not effect.is_write:
            attempts[f"GET {effect.arguments.get('reference')}"] += effect.attempt
    for name, requests in received.items():
        if name.startswith("GET ") and len(requests) > attempts[name]:
            yield f"I1: `{name}` was received {len(requests)} times for {attempts[name]} intents"


def _as_intended(
    effect: Effect, approved: tuple[Approval, ...], requests: list[ReceivedRequest]
) -> Iterator[str]:
    """I2: what was received is what the row holds, and what people approved."""
    body = digest({"reference": effect.effect_id, "text": effect.arguments.get("text")})
    if any(request.body_hash != body for request in requests):
        yield f"I2: {_name(effect)} was received with another body"
    used = [approval for approval in approved if approval.answered_by is not None]
    if requests and approved and effect.call_digest not in {a.digest for a in used}:
        yield f"I2: {_name(effect)} was sent without the approval that it needed"


def _done(
    effect: Effect, requests: list[ReceivedRequest], applied: list[AppliedEffect]
) -> Iterator[str]:
    """I3 and I4: how often it may have been done, by its class and by its state."""
    times = len(applied)
    if effect.effect_class in _AT_MOST_ONCE and times > 1:
        yield f"I3: {_name(effect)} was applied {times} times"
    if effect.effect_class is EffectClass.BLIND and len(requests) > 1:
        yield f"I3: {_name(effect)} was received {len(requests)} times"
    if effect.state in _DONE_ONCE and times != 1:
        yield f"I4: {_name(effect)} was applied {times} times"
    if effect.state in _NEVER_DONE | _UNSENT and times:
        yield f"I4: {_name(effect)} was applied {times} times"
    if effect.state in _UNSENT and requests:
        yield f"I4: {_name(effect)} was received"


def _ended(ledger: Ledger, triggers: Collection[str]) -> Iterator[str]:
    """I5: each accepted trigger has one run, which has ended or waits for a person."""
    keys = Counter(r.request.trigger.key for r in ledger.runs if r.request.parent_id is None)
    for key in sorted(set(triggers) | set(keys)):
        if keys[key] != 1:
            yield f"I5: the trigger `{key}` has {keys[key]} runs"
    for run in ledger.runs:
        if not run.state.is_final and run.state not in _HELD:
            yield f"I5: the run of `{run.request.trigger.key}` is still `{run.state}`"
        if run.error_code == "internal":
            yield f"I5: the run of `{run.request.trigger.key}` failed with `{run.error_code}`"


def _budgeted(ledger: Ledger) -> Iterator[str]:
    """I7: what may have been done is counted once, what was surely not done is not; reads more."""
    spent, reserved = ledger.counted
    sent = [effect for effect in ledger.effects if effect.attempt]
    held = sum(effect.is_held for effect in sent)
    done = sum(effect.state not in _NEVER_DONE | _UNSENT and not effect.is_held for effect in sent)
    # Each attempt of a read whose answer was lost counts.
    lost = sum(e.attempt for e in sent if e.effect_class is EffectClass.READ)
    if reserved != held:
        yield f"I7: {reserved} calls are reserved, and {held} are open"
    if not done <= spent <= done + lost:
        yield f"I7: {spent} calls are spent, and {done} to {done + lost} were made"


def in_order_of_epochs(ledger: Ledger) -> Iterator[str]:
    """I8: no owner wrote after a later one had; a late answer is evidence and changes nothing."""
    owned = {run.run_id: run.epoch for run in ledger.runs}
    for effect in ledger.effects:
        seen = ledger.evidence[effect.effect_id]
        epochs = [e.epoch for e in seen if not e.kind.startswith("late.")]
        if epochs != sorted(epochs) or effect.epoch > owned[effect.run_id]:
            yield f"I8: {_name(effect)} was written in the epochs {epochs}"
    for run_id, written in ledger.journal_epochs.items():
        if list(written) != sorted(written):
            yield f"I8: the journal of `{run_id}` was written in the epochs {list(written)}"


def _undone(ledger: Ledger, applied: dict[str, list[AppliedEffect]]) -> Iterator[str]:
    """I9: undone at most once, only what was done, latest first, one undo after the other."""
    by_id = {effect.effect_id: effect for effect in ledger.effects}
    undos_of: defaultdict[EffectId, list[Effect]] = defaultdict(list)
    in_run: defaultdict[RunId, list[tuple[Effect, Effect]]] = defaultdict(list)
    for undo in ledger.effects:
        original = by_id.get(undo.compensates) if undo.compensates else None
        if original is not None:
            undos_of[original.effect_id].append(undo)
            in_run[undo.run_id].append((undo, original))
        elif undo.compensates:
            yield f"I9: {_name(undo)} undoes what is not on record"
    for effect in ledger.effects:
        yield from _undone_once(effect, undos_of[effect.effect_id], applied)
    unknown = [e for e in ledger.effects if e.is_write and e.state in _UNKNOWN]
    for pairs in in_run.values():
        sent = [(undo, original) for undo, original in pairs if undo.attempt]
        yield from _latest_first(sent, applied)
        yield from _not_past_unknown(sent, unknown)


def _undone_once(
    original: Effect, undos: list[Effect], applied: dict[str, list[AppliedEffect]]
) -> Iterator[str]:
    """Whether what the tool server saw of an effect's undos is one undo of something done."""
    done = applied.get(original.effect_id, [])
    undone = [one for undo in undos for one in applied.get(undo.effect_id, [])]
    if len(undone) > 1:
        yield f"I9: {_name(original)} was undone {len(undone)} times"
    if undone and (not done or done[0].id > undone[0].id):
        yield f"I9: {_name(original)} was undone before it was done"
    if sum(undo.state not in _NO_UNDO for undo in undos) > 1:
        yield f"I9: {_name(original)} has {len(undos)} undos, more than one of which may be done"
    by = [undo.effect_id for undo in undos if undo.state in _DONE_ONCE]
    wanted = [original.compensated_by] if original.state is EffectState.COMPENSATED else []
    if by != wanted:
        yield f"I9: {_name(original)} was undone by {by}, and says by {wanted}"
    for undo in undos:
        times = (original.outcome_us, undo.intent_us)
        is_known = original.state in _DONE_ONCE and original.outcome_us is not None
        if undo.attempt and not (is_known and (times[0] or 0) <= (times[1] or 0)):
            yield f"I9: {_name(undo)} was sent and {_name(original)} had not been done"


def _latest_first(
    sent: list[tuple[Effect, Effect]], applied: dict[str, list[AppliedEffect]]
) -> Iterator[str]:
    """Whether one run undid in reverse order, each undo after the one before it was over."""
    sent = sorted(sent, key=lambda pair: (pair[0].intent_us or 0, pair[0].created_us))
    for (before, later), (after, earlier) in pairwise(sent):
        if (later.outcome_us or 0) < (earlier.outcome_us or 0):
            yield f"I9: {_name(later)} was undone before {_name(earlier)}, which was done later"
        is_over = before.state in _DONE_ONCE and before.outcome_us is not None
        if not is_over or (before.outcome_us or 0) > (after.intent_us or 0):
            yield f"I9: {_name(after)} was sent before {_name(before)} was over"
    seen = [
        (one.id, original) for undo, original in sent for one in applied.get(undo.effect_id, [])[:1]
    ]
    for (_, first), (_, second) in pairwise(sorted(seen, key=lambda pair: pair[0])):
        if (first.outcome_us or 0) < (second.outcome_us or 0):
            yield f"I9: the tool server saw {_name(first)} undone before {_name(second)}"


def _not_past_unknown(sent: list[tuple[Effect, Effect]], unknown: list[Effect]) -> Iterator[str]:
    """Whether nothing was undone from before an effect whose outcome nobody knows to this day."""
    for undo, original in sent:
        for effect in unknown:
            done_us, undone_us = original.outcome_us or 0, undo.intent_us or 0
            is_between = done_us < effect.created_us < undone_us
            if effect.run_id == original.run_id and is_between and effect is not undo:
                yield f"I9: {_name(original)} was undone past {_name(effect)}"


def _explained(effect: Effect, ledger: Ledger) -> Iterator[str]:
    """I10: a call that was sent leads to a person, a policy version and an earlier decision."""
    if not effect.attempt:
        return
    user = next((r.request.user for r in ledger.runs if r.run_id == effect.run_id), None)
    decided = [
        decision
        for decision in ledger.decisions[effect.effect_id]
        if effect.intent_us is not None and decision.at_us <= effect.intent_us
    ]
    if user is None or effect.policy_version is None or effect.decision_id is None or not decided:
        yield f"I10: {_name(effect)} leads to no person, policy version or decision"


def _name(effect: Effect) -> str:
    return f"the {effect.effect_class} effect `{effect.effect_id}` (`{effect.state}`)"
