"""Every order of events in a small world keeps the promises of each class; broken rules do not.

The whole search, with more crashes and expiries, is the proof `protocol-model`.
"""

from __future__ import annotations

import pytest

from interlock.domain.tool import EffectClass
from proofs.protocol_mutants import MUTANTS
from proofs.protocol_world import LATE, Rules, first, search


@pytest.mark.parametrize(
    ("effect_class", "is_key_probed"),
    [*((c, False) for c in EffectClass), (EffectClass.KEYED, True)],
)
def test_no_order_of_events_breaks_a_promise(
    effect_class: EffectClass, *, is_key_probed: bool
) -> None:
    """Done at most once, never `failed` or `denied` though done, no read parked, nothing stuck.

    What policy refuses is over, no pause comes twice, and nothing is tried that is refused.
    """
    found = search(first(effect_class, crashes=1, expiries=1, is_key_probed=is_key_probed), Rules())

    assert found.trace is None
    assert found.states > 900


def test_what_a_worker_doubles_that_was_paused_for_too_long_comes_to_a_person() -> None:
    """It sends past every deadline; nothing else lets a `probed` call be done twice unseen."""
    found = search(first(EffectClass.PROBED, crashes=1, expiries=1), LATE)

    assert found.trace is None
    assert found.states > 900


@pytest.mark.parametrize("name", MUTANTS)
def test_the_search_finds_what_is_broken(name: str) -> None:
    """Each rule that is left out leads to a state that breaks a promise."""
    effect_class, rules = MUTANTS[name]

    found = search(first(effect_class, crashes=1, expiries=1, is_key_probed=True), rules)

    assert found.trace is not None
