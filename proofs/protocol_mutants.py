"""Broken forms of the effect protocol, and of what surrounds it; the search must refuse each."""

from __future__ import annotations

from dataclasses import replace

from interlock.calls import protocol
from interlock.calls.protocol import EffectView, Recovery, Verdict
from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState
from interlock.domain.tool import EffectClass
from proofs.protocol_world import DONE, LATE, Rules, World

_FOR_EVER_US = 10**9


def _always_resent(view: EffectView, *, now_us: int) -> Recovery:
    """Send whatever is unknown again."""
    del now_us
    return "resend" if view.attempt < protocol.MAX_ATTEMPTS else "park"


def _forced(view: EffectView, event: protocol.Event) -> EffectView:
    """Let every resend pass, as if the class did not matter."""
    if isinstance(event, protocol.Intend) and view.state is EffectState.AMBIGUOUS:
        as_new = protocol.step(replace(view, state=EffectState.AUTHORIZED), event)
        return replace(as_new, is_in_doubt=True)
    return protocol.step(view, event)


def _forgetful(view: EffectView, event: protocol.Event) -> EffectView:
    """Forget that an earlier attempt may have been done."""
    return protocol.step(replace(view, is_in_doubt=False), event)


def _of_anyone(view: EffectView, event: protocol.Event) -> EffectView:
    """Take an answer whoever's it is."""
    if isinstance(event, protocol.Answered):
        event = replace(event, epoch=view.epoch, attempt=view.attempt)
    return protocol.step(view, event)


def _hopeful(view: EffectView, event: protocol.Event) -> EffectView:
    """Take silence, or an error of the server, for a failure."""
    if isinstance(event, protocol.Answered) and event.verdict is Verdict.UNKNOWN:
        event = replace(event, verdict=Verdict.NOTHING_DONE)
    return protocol.step(view, event)


def _literal(view: EffectView, event: protocol.Event) -> EffectView:
    """Take the guard's refusal of a resend for proof that nothing was done."""
    if isinstance(event, protocol.Answered) and event.verdict is Verdict.GUARD_REFUSED:
        event = replace(event, verdict=Verdict.CONFLICT)
        view = replace(view, is_in_doubt=False)
    return protocol.step(view, event)


def _eternal(view: EffectView, event: protocol.Event) -> EffectView:
    """Believe that a key lives for ever."""
    after = protocol.step(replace(view, key_ttl_us=_FOR_EVER_US), event)
    return replace(after, key_ttl_us=view.key_ttl_us)


def _eternally(view: EffectView, *, now_us: int) -> Recovery:
    return protocol.recover(replace(view, key_ttl_us=_FOR_EVER_US), now_us=now_us)


def _given_up(view: EffectView) -> protocol.Event:
    """Take a refusal of the next read for the failure of the last one."""
    if view.state is EffectState.AMBIGUOUS and view.effect_class is EffectClass.READ:
        return protocol.GiveUp()
    return Rules().refusal(view)


def _denied(view: EffectView) -> protocol.Event:
    """Take a refusal of the next attempt for proof that the last one did nothing."""
    del view
    return protocol.Decided(outcome=Outcome.DENY)


def _redecided(view: EffectView, event: protocol.Event) -> EffectView:
    """Let policy decide again what may have been done."""
    if isinstance(event, protocol.Decided):
        view = replace(view, state=EffectState.PROPOSED)
    return protocol.step(view, event)


def _may_undo_unknown(world: World) -> bool:
    return world.row.state in DONE | {EffectState.AMBIGUOUS}


_RESENT = Rules(step=_forced, recover=_always_resent)

MUTANTS = {
    "no fence: an answer of another epoch is taken": (
        EffectClass.PROBED,
        Rules(step=_of_anyone, is_anyone_heard=True),
    ),
    "a probe without quiet time": (EffectClass.PROBED, Rules(is_quiet=lambda _world: True)),
    "blind is sent again after a timeout": (EffectClass.BLIND, _RESENT),
    "probed is sent again without a probe": (EffectClass.PROBED, _RESENT),
    "silence or an error is a failure": (EffectClass.BLIND, Rules(step=_hopeful)),
    "a resend's failure settles the first attempt": (EffectClass.KEYED, Rules(step=_forgetful)),
    "a refused guard proves that nothing was done": (
        EffectClass.CONDITIONAL,
        Rules(step=_literal),
    ),
    "a key is used past its life": (
        EffectClass.KEYED,
        Rules(step=_eternal, recover=_eternally),
    ),
    "the key is made from the attempt": (EffectClass.KEYED, Rules(is_key_of_attempt=True)),
    "an approval is used up with the outcome": (
        EffectClass.BLIND,
        Rules(is_approval_used_late=True),
    ),
    "the intent is written after the send": (EffectClass.BLIND, Rules(is_intent_late=True)),
    "a stop is read only when deciding": (EffectClass.KEYED, Rules(is_stop_read_early=True)),
    "a retry without an intent": (EffectClass.KEYED, Rules(is_retried_unwritten=True)),
    "what may not have been done is undone": (
        EffectClass.KEYED,
        Rules(may_undo=_may_undo_unknown),
    ),
    "a resend is not looked at again after its pause": (
        EffectClass.KEYED,
        Rules(is_decided_after_pause=False),
    ),
    "a refused read has failed": (EffectClass.READ, Rules(refusal=_given_up)),
    "a refusal settles what may have been done": (
        EffectClass.KEYED,
        Rules(refusal=_denied, step=_redecided),
    ),
    "one attempt is paused after twice": (EffectClass.KEYED, Rules(is_paused_once=False)),
    "a worker that wakes late sends": (EffectClass.PROBED, Rules(is_late_sent=True)),
    "a second look before the late worker sends": (
        EffectClass.PROBED,
        replace(LATE, may_recheck=lambda world: world.row.state in DONE),
    ),
}
