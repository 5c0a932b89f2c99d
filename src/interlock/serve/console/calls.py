"""The stations of each tool call of a run: proposal, contract, policy, approval, sends, effect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from interlock.domain.approval import Approval
from interlock.domain.effect import Effect, EffectState, Evidence
from interlock.domain.ids import EffectId, RunId
from interlock.serve.console import words
from interlock.store import approvals, decisions, effects
from interlock.store.decisions import RecordedDecision
from interlock.store.tx import Tx

CONTRACT_CODES = ("contract.", "json.", "tool.unknown")

_UNSENT = frozenset(
    {
        EffectState.PROPOSED,
        EffectState.AUTHORIZED,
        EffectState.DENIED,
        EffectState.DRAFTED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stations:
    """All that was recorded about one call, oldest first.

    `contract` says what the contract said, as far as the call came.
    """

    effect: Effect
    decisions: tuple[RecordedDecision, ...]
    approvals: tuple[Approval, ...]
    evidence: tuple[Evidence, ...]

    @property
    def answers(self) -> list[tuple[str, RecordedDecision | Approval]]:
        """Return decisions and approvals in their order, each after what led to it."""
        dated: list[tuple[int, str, RecordedDecision | Approval]] = [
            *((d.at_us, "decision", d) for d in self.decisions),
            *((a.asked_us, "person", a) for a in self.approvals),
        ]
        dated.sort(key=lambda item: item[:2])
        return [(kind, item) for _, kind, item in dated]

    @property
    def contract(self) -> words.Status:
        """Return whether the arguments fit the tool's contract."""
        code = self.effect.error_code or ""
        if self.effect.state is EffectState.DENIED and code.startswith(CONTRACT_CODES):
            return words.Status("Broken", "cross", "bad")
        return words.Status("Fits", "check", "ok")

    @property
    def was_sent(self) -> bool:
        """Return whether any attempt may have left."""
        return self.effect.state not in _UNSENT


def of_runs(tx: Tx, run_ids: Iterable[RunId]) -> dict[EffectId, Stations]:
    """Return the stations of every call of these runs."""
    found: dict[EffectId, Stations] = {}
    for run_id in run_ids:
        decided: dict[EffectId | None, list[RecordedDecision]] = {}
        for decision in decisions.list_for_run(tx, run_id):
            decided.setdefault(decision.effect_id, []).append(decision)
        for effect in effects.list_for_run(tx, run_id):
            of_it = tuple(decided.get(effect.effect_id, ()))
            asked = any(d.decision.groups for d in of_it)
            found[effect.effect_id] = Stations(
                effect=effect,
                decisions=of_it,
                approvals=tuple(approvals.list_for_effect(tx, effect.effect_id)) if asked else (),
                evidence=tuple(effects.list_evidence(tx, effect.effect_id)),
            )
    return found
