"""The effect protocol as a table: which event each state takes, and where it leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest

from interlock.calls import protocol
from interlock.calls.protocol import (
    MAX_ATTEMPTS,
    Answered,
    Decided,
    EffectView,
    Event,
    GiveUp,
    Intend,
    Lost,
    Park,
    Probe,
    Probed,
    Rechecked,
    Settled,
    Undone,
    Verdict,
)
from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState as S
from interlock.domain.errors import ConflictError
from interlock.domain.tool import EffectClass

INTEND = Intend(epoch=1, now_us=10, deadline_us=20)
LOST = Lost(epoch=2)


def _answered(verdict: Verdict) -> Answered:
    return Answered(epoch=1, attempt=1, verdict=verdict)


def _decided(outcome: Outcome) -> Event:
    return Decided(outcome=outcome)


EVENTS: Mapping[str, Event] = {
    "allow": _decided(Outcome.ALLOW),
    "deny": _decided(Outcome.DENY),
    "draft": _decided(Outcome.DRAFT),
    "ask": _decided(Outcome.NEEDS_APPROVAL),
    "intend": INTEND,
    **{f"answered {verdict}": _answered(verdict) for verdict in Verdict},
    "lost": LOST,
    "probe": Probe(),
    "found none": Probed(found=0, is_quiet=True),
    "found none too early": Probed(found=0, is_quiet=False),
    "found one": Probed(found=1, is_quiet=False),
    "found two": Probed(found=2, is_quiet=True),
    "rechecked one": Rechecked(found=1),
    "rechecked two": Rechecked(found=2),
    "give up": GiveUp(),
    "park": Park(),
    "settled done": Settled(answer="done"),
    "settled absent": Settled(answer="absent"),
    "settled abandoned": Settled(answer="abandoned"),
    "undone": Undone(),
}
_DECISIONS = {"allow": S.AUTHORIZED, "deny": S.DENIED, "draft": S.DRAFTED, "ask": S.PROPOSED}
_LOOKS_DONE = {"rechecked two": S.PARKED}
_LOOKS_UNDONE = {"rechecked one": S.PARKED, "rechecked two": S.PARKED}
TABLE: Mapping[S, Mapping[str, S]] = {
    S.PROPOSED: {**_DECISIONS, "intend": S.INTENT},
    S.AUTHORIZED: {**_DECISIONS, "intend": S.INTENT},
    S.INTENT: {
        "answered succeeded": S.SUCCEEDED,
        "answered not_sent": S.FAILED_DEFINITE,
        "answered nothing_done": S.FAILED_DEFINITE,
        "answered conflict": S.FAILED_DEFINITE,
        "answered guard_refused": S.AMBIGUOUS,
        "answered in_progress": S.AMBIGUOUS,
        "answered key_reused": S.AMBIGUOUS,
        "answered unknown": S.AMBIGUOUS,
        "lost": S.AMBIGUOUS,
    },
    S.FAILED_DEFINITE: {**_DECISIONS, "intend": S.INTENT, **_LOOKS_UNDONE},
    S.AMBIGUOUS: {"intend": S.INTENT, "probe": S.PROBING, "park": S.PARKED},
    S.PROBING: {
        "found none": S.FAILED_DEFINITE,
        "found none too early": S.AMBIGUOUS,
        "found one": S.SUCCEEDED,
        "found two": S.PARKED,
        "park": S.PARKED,
        "lost": S.AMBIGUOUS,
    },
    S.PARKED: {
        "settled done": S.CONFIRMED_DONE,
        "settled absent": S.CONFIRMED_ABSENT,
        "settled abandoned": S.ABANDONED,
    },
    S.SUCCEEDED: {"undone": S.COMPENSATED, **_LOOKS_DONE},
    S.CONFIRMED_DONE: {"undone": S.COMPENSATED, **_LOOKS_DONE},
    S.COMPENSATED: _LOOKS_DONE,
    S.CONFIRMED_ABSENT: _LOOKS_UNDONE,
    S.DENIED: _LOOKS_UNDONE,
    S.DRAFTED: _LOOKS_UNDONE,
}
PAIRS = list(product(S, EVENTS))


def view(state: S, effect_class: EffectClass = EffectClass.KEYED, **more: object) -> EffectView:
    """Return a row of the first owner at its first attempt; its key lives for a minute."""
    plain = EffectView(
        effect_class=effect_class,
        state=state,
        epoch=1,
        attempt=1,
        first_sent_us=10,
        key_ttl_us=60_000_000,
    )
    # A dataclass checks nothing at run time; the keys are typed by their use in these tests.
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("state", "name"), PAIRS, ids=[f"{state}-{name}" for state, name in PAIRS])
def test_a_state_takes_exactly_the_events_of_the_table(state: S, name: str) -> None:
    """Everything else is refused and cannot be written."""
    expected = TABLE.get(state, {}).get(name)

    if expected is None:
        with pytest.raises(ConflictError, match=f"the effect is `{state}`"):
            protocol.step(view(state), EVENTS[name])
    else:
        assert expected is protocol.step(view(state), EVENTS[name]).state


def test_every_kind_of_event_and_every_state_is_in_the_table() -> None:
    """Of the final states only one that was given up says nothing that could prove wrong."""
    assert set(Event.__args__) == {type(event) for event in EVENTS.values()}
    assert {S.ABANDONED} == set(S) - set(TABLE)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (S.INTENT, Answered(epoch=2, attempt=1, verdict=Verdict.SUCCEEDED)),
        (S.INTENT, Answered(epoch=1, attempt=2, verdict=Verdict.SUCCEEDED)),
        (S.INTENT, Lost(epoch=1)),
        (S.PROPOSED, Intend(epoch=0, now_us=10, deadline_us=20)),
    ],
    ids=["another owner's answer", "another attempt's", "lost to itself", "an old owner"],
)
def test_an_event_of_another_owner_or_attempt_is_refused(state: S, event: Event) -> None:
    """Only who holds the newest epoch moves the row, and only for the attempt it names."""
    with pytest.raises(ConflictError):
        protocol.step(view(state), event)


@pytest.mark.parametrize("effect_class", EffectClass)
def test_only_a_read_is_given_up_and_only_a_write_is_parked(effect_class: EffectClass) -> None:
    """A person is asked about what may have changed something, and about nothing else."""
    ambiguous = view(S.AMBIGUOUS, effect_class)
    refused: Event = Park() if effect_class is EffectClass.READ else GiveUp()
    taken: Event = GiveUp() if effect_class is EffectClass.READ else Park()
    end = S.FAILED_DEFINITE if effect_class is EffectClass.READ else S.PARKED

    with pytest.raises(ConflictError):
        protocol.step(ambiguous, refused)
    assert end is protocol.step(ambiguous, taken).state


@pytest.mark.parametrize("name", _DECISIONS)
@pytest.mark.parametrize("effect_class", EffectClass)
def test_only_a_read_of_unknown_outcome_is_decided_again(
    effect_class: EffectClass, name: str
) -> None:
    """A write may have been done, which no decision takes back."""
    ambiguous = view(S.AMBIGUOUS, effect_class)

    if effect_class is EffectClass.READ:
        assert _DECISIONS[name] is protocol.step(ambiguous, EVENTS[name]).state
    else:
        with pytest.raises(ConflictError):
            protocol.step(ambiguous, EVENTS[name])


def test_an_intent_is_the_next_attempt_and_keeps_the_time_of_the_first() -> None:
    """The key's life counts from the first send, the deadline from this one."""
    first = protocol.step(view(S.AUTHORIZED, attempt=0, first_sent_us=None), INTEND)
    failed = protocol.step(first, _answered(Verdict.NOT_SENT))

    second = protocol.step(failed, Intend(epoch=3, now_us=70, deadline_us=90))

    assert (1, 1, 10, 20) == _attempt(first)
    assert (3, 2, 10, 90) == _attempt(second)
    assert (True, False) == (failed.is_unsent, second.is_unsent)


@pytest.mark.parametrize("verdict", [Verdict.NOT_SENT, Verdict.NOTHING_DONE, Verdict.CONFLICT])
def test_a_resend_that_did_nothing_leaves_the_row_in_doubt(verdict: Verdict) -> None:
    """It says nothing of the attempt before it."""
    after = protocol.step(view(S.INTENT, is_in_doubt=True), _answered(verdict))

    assert (S.AMBIGUOUS, True) == (after.state, after.is_in_doubt)


@pytest.mark.parametrize("event", [_answered(Verdict.UNKNOWN), LOST], ids=["unknown", "lost"])
@pytest.mark.parametrize("effect_class", EffectClass)
def test_an_unknown_outcome_puts_a_write_in_doubt(effect_class: EffectClass, event: Event) -> None:
    """A read changes nothing, so there is nothing to doubt."""
    after = protocol.step(view(S.INTENT, effect_class), event)

    assert (S.AMBIGUOUS, effect_class is not EffectClass.READ) == (after.state, after.is_in_doubt)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (S.INTENT, _answered(Verdict.SUCCEEDED)),
        (S.PROBING, EVENTS["found none"]),
        (S.PARKED, EVENTS["settled absent"]),
    ],
    ids=["succeeded", "found nothing", "settled"],
)
def test_what_is_known_ends_the_doubt(state: S, event: Event) -> None:
    """A success, a probe in time, or a person's word."""
    assert not protocol.step(view(state, is_in_doubt=True), event).is_in_doubt


RECOVERIES: Mapping[str, tuple[EffectView, protocol.Recovery]] = {
    "a read": (view(S.AMBIGUOUS, EffectClass.READ), "resend"),
    "a read, often asked": (
        view(S.AMBIGUOUS, EffectClass.READ, attempt=MAX_ATTEMPTS),
        "give_up",
    ),
    "a key that lives": (view(S.AMBIGUOUS), "resend"),
    "a key near its end": (view(S.AMBIGUOUS, key_ttl_us=70), "park"),
    "a key without a declared life": (view(S.AMBIGUOUS, key_ttl_us=None), "park"),
    "a key known with another body": (view(S.AMBIGUOUS, is_key_reused=True), "park"),
    "a key, often used": (view(S.AMBIGUOUS, attempt=MAX_ATTEMPTS), "park"),
    "a key, often used, with a probe": (
        view(S.AMBIGUOUS, attempt=MAX_ATTEMPTS, has_probe=True),
        "probe",
    ),
    "a guard": (view(S.AMBIGUOUS, EffectClass.CONDITIONAL), "resend"),
    "a guard that is alive": (
        view(S.AMBIGUOUS, EffectClass.CONDITIONAL, guard_until_us=67),
        "resend",
    ),
    "a guard that has died": (
        view(S.AMBIGUOUS, EffectClass.CONDITIONAL, guard_until_us=66, has_probe=True),
        "probe",
    ),
    "a guard that refused": (
        view(S.AMBIGUOUS, EffectClass.CONDITIONAL, is_guard_refused=True),
        "park",
    ),
    "a probe": (view(S.AMBIGUOUS, EffectClass.PROBED, has_probe=True), "probe"),
    "a lost probe": (view(S.AMBIGUOUS, EffectClass.PROBED), "park"),
    "a blind call": (view(S.AMBIGUOUS, EffectClass.BLIND, has_probe=True), "park"),
}


@pytest.mark.parametrize(("row", "expected"), RECOVERIES.values(), ids=list(RECOVERIES))
def test_an_unknown_outcome_goes_on_as_its_class_allows(
    row: EffectView, expected: protocol.Recovery
) -> None:
    """An intent is refused unless the answer is to send again."""
    assert expected == protocol.recover(row, now_us=66)
    intend = Intend(epoch=1, now_us=66, deadline_us=99)
    if expected == "resend":
        assert S.INTENT is protocol.step(row, intend).state
    else:
        with pytest.raises(ConflictError):
            protocol.step(row, intend)


RETRIES: Mapping[str, tuple[EffectView, bool]] = {
    "did nothing": (view(S.FAILED_DEFINITE), True),
    "tried often": (view(S.FAILED_DEFINITE, attempt=MAX_ATTEMPTS), False),
    "refused by its guard": (view(S.FAILED_DEFINITE, is_guard_refused=True), False),
    "blind and never sent": (view(S.FAILED_DEFINITE, EffectClass.BLIND, is_unsent=True), True),
    "blind and answered": (view(S.FAILED_DEFINITE, EffectClass.BLIND), False),
    "not failed": (view(S.AMBIGUOUS), False),
}


@pytest.mark.parametrize(("row", "expected"), RETRIES.values(), ids=list(RETRIES))
def test_an_attempt_that_did_nothing_may_be_followed_by_another(
    row: EffectView, *, expected: bool
) -> None:
    """Bounded, and never a blind call that was sent."""
    assert expected is protocol.may_retry(row)


def test_a_request_of_an_owner_that_nobody_saw_end_is_quiet_later() -> None:
    """It may begin to send after its deadline; that of one that is dead cannot."""
    sent = view(S.INTENT, send_deadline_us=20, lag_us=5)

    seen = protocol.step(sent, LOST)
    unseen = protocol.step(sent, Lost(epoch=2, until_us=70))
    long_ago = protocol.step(sent, Lost(epoch=2, until_us=10))

    assert [25, 75, 25] == [protocol.quiet_at_us(after) for after in (seen, unseen, long_ago)]


def test_a_request_is_quiet_after_its_deadline_and_the_lag() -> None:
    """Before, a probe that finds nothing proves nothing."""
    assert 25 == protocol.quiet_at_us(view(S.PROBING, send_deadline_us=20, lag_us=5))


def _attempt(row: EffectView) -> tuple[int, int, int | None, int | None]:
    return row.epoch, row.attempt, row.first_sent_us, row.send_deadline_us
