"""Every order of events in a small world keeps the promises of each class; broken rules do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.calls import protocol
from interlock.calls.protocol import EffectView, Recovery, Verdict
from interlock.domain.effect import EffectState
from interlock.domain.tool import EffectClass
from tests.protocol.world import Rules, search


@pytest.mark.parametrize("effect_class", EffectClass)
def test_no_order_of_events_breaks_a_promise(effect_class: EffectClass) -> None:
    """Done at most once, never `failed` though done, a read never parked, nothing stuck."""
    found = search(effect_class, Rules())

    assert found.trace is None
    assert found.states > 90


def _always_resent(view: EffectView, *, now_us: int) -> Recovery:
    """Send whatever is unknown again."""
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
    """Take silence for a failure."""
    if isinstance(event, protocol.Answered) and event.verdict is Verdict.UNKNOWN:
        event = replace(event, verdict=Verdict.NOTHING_DONE)
    return protocol.step(view, event)


def _eternal(view: EffectView, event: protocol.Event) -> EffectView:
    """Believe that a key lives for ever."""
    return replace(
        protocol.step(replace(view, key_ttl_us=10**9), event), key_ttl_us=view.key_ttl_us
    )


MUTANTS = {
    "blind is sent again": (EffectClass.BLIND, Rules(step=_forced, recover=_always_resent)),
    "probed is sent again without a probe": (
        EffectClass.PROBED,
        Rules(step=_forced, recover=_always_resent),
    ),
    "a probe without quiet time": (EffectClass.PROBED, Rules(is_quiet=lambda _world: True)),
    "a resend's failure settles the first attempt": (EffectClass.KEYED, Rules(step=_forgetful)),
    "an answer of another attempt": (EffectClass.PROBED, Rules(step=_of_anyone)),
    "a timeout is a failure": (EffectClass.BLIND, Rules(step=_hopeful)),
    "a key used past its life": (
        EffectClass.KEYED,
        Rules(
            step=_eternal,
            recover=lambda view, *, now_us: protocol.recover(
                replace(view, key_ttl_us=10**9), now_us=now_us
            ),
        ),
    ),
    "a worker that wakes late sends": (EffectClass.PROBED, Rules(is_late_sent=True)),
}


@pytest.mark.parametrize(("effect_class", "rules"), MUTANTS.values(), ids=list(MUTANTS))
def test_the_search_finds_what_is_broken(effect_class: EffectClass, rules: Rules) -> None:
    """Each rule that is left out leads to a state that breaks a promise."""
    assert search(effect_class, rules).trace is not None
