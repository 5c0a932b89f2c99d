"""The effect protocol: a pure function of an effect's state and an event; it sees no world.

`step` says which state follows an event, `recover` what to do about an unknown outcome. Whatever
they refuse cannot be written: every change of an effect row goes through them.

```
proposed   -decided->  authorized | denied | drafted        stays proposed while a person is asked
authorized -intend->   intent                               (proposed may be intended at once)
intent     -answered-> succeeded | failed_definite | ambiguous
intent     -lost->     ambiguous                            a newer epoch took over
failed_definite -intend-> intent                            next attempt, same key, bounded
ambiguous  -intend->   intent                               read, keyed, conditional: a resend
ambiguous  -probe->    probing -probed-> succeeded | ambiguous | failed_definite | parked
ambiguous  -decided->  as a new one                         only a read, which is never in doubt
ambiguous  -give up->  failed_definite                      only a read, which is never parked
ambiguous  -park->     parked -settled-> confirmed_done | confirmed_absent | abandoned
succeeded | confirmed_done -undone-> compensated
an end  -rechecked-> parked                     outside there is more than the row says
```

Once an attempt's outcome is unknown the row is in doubt, until it succeeded or a probe found
nothing: that a resend did nothing does not say what the attempt before it did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, assert_never

from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError
from interlock.domain.tool import EffectClass

MAX_ATTEMPTS = 4
KEY_MARGIN = 0.8
"""A key is used for at most this share of its life, counted from the first send."""


class Verdict(StrEnum):
    """What one attempt's reply means, as `record.classify` reads it from the tool's contract."""

    SUCCEEDED = "succeeded"
    NOT_SENT = "not_sent"
    NOTHING_DONE = "nothing_done"
    CONFLICT = "conflict"
    GUARD_REFUSED = "guard_refused"
    IN_PROGRESS = "in_progress"
    KEY_REUSED = "key_reused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectView:
    """What the protocol knows of an effect row and its tool.

    Times are microseconds. `guard_until_us` is when a one-time link dies (None: never).
    `is_in_doubt` if an attempt may have been done; `is_unsent` if the last one never left;
    `is_guard_refused` if a request of this row was refused by its guard, `is_key_reused` if the
    tool knows its key with another body.
    """

    effect_class: EffectClass
    state: EffectState
    epoch: int = 0
    attempt: int = 0
    first_sent_us: int | None = None
    send_deadline_us: int | None = None
    key_ttl_us: int | None = None
    guard_until_us: int | None = None
    lag_us: int = 0
    has_probe: bool = False
    is_in_doubt: bool = False
    is_unsent: bool = False
    is_guard_refused: bool = False
    is_key_reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Policy answered without a send: the strictest outcome."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Intend:
    """The next attempt is about to be sent by the owner of `epoch`."""

    epoch: int
    now_us: int
    deadline_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An attempt was answered, or its answer will never come."""

    epoch: int
    attempt: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The owner of the attempt is gone and `epoch` took over.

    If nobody saw it end, it may begin to send until `until_us` yet.
    """

    epoch: int
    until_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe is about to be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A probe answered how many effects it found; `is_quiet` if the old request cannot act now."""

    found: int
    is_quiet: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechecked:
    """A second look, long after the call, found more effects than the row says."""

    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """A read was asked often enough; nothing outside depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Park:
    """Only a person may settle this now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A person settled a parked effect."""

    answer: Literal["done", "absent", "abandoned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """A compensating effect succeeded."""


Event = (
    Decided
    | Intend
    | Answered
    | Lost
    | Probe
    | Probed
    | Rechecked
    | GiveUp
    | Park
    | Settled
    | Undone
)

_S = EffectState
_DECIDED = {
    Outcome.ALLOW: _S.AUTHORIZED,
    Outcome.DENY: _S.DENIED,
    Outcome.DRAFT: _S.DRAFTED,
    Outcome.NEEDS_APPROVAL: _S.PROPOSED,
}
_ANSWERED = {
    Verdict.SUCCEEDED: _S.SUCCEEDED,
    Verdict.NOT_SENT: _S.FAILED_DEFINITE,
    Verdict.NOTHING_DONE: _S.FAILED_DEFINITE,
    Verdict.CONFLICT: _S.FAILED_DEFINITE,
    Verdict.GUARD_REFUSED: _S.AMBIGUOUS,
    Verdict.IN_PROGRESS: _S.AMBIGUOUS,
    Verdict.KEY_REUSED: _S.AMBIGUOUS,
    Verdict.UNKNOWN: _S.AMBIGUOUS,
}
_SETTLED = {
    "done": _S.CONFIRMED_DONE,
    "absent": _S.CONFIRMED_ABSENT,
    "abandoned": _S.ABANDONED,
}


_IN_DOUBT = frozenset({_S.AMBIGUOUS, _S.PROBING, _S.PARKED})
_NOT_DONE = frozenset({_S.FAILED_DEFINITE, _S.CONFIRMED_ABSENT, _S.DENIED, _S.DRAFTED})
_DONE = frozenset({_S.SUCCEEDED, _S.CONFIRMED_DONE, _S.COMPENSATED})

_FROM: dict[type[Event], frozenset[EffectState]] = {
    Decided: frozenset({_S.PROPOSED, _S.AUTHORIZED, _S.FAILED_DEFINITE, _S.AMBIGUOUS}),
    Intend: frozenset({_S.PROPOSED, _S.AUTHORIZED, _S.FAILED_DEFINITE, _S.AMBIGUOUS}),
    Answered: frozenset({_S.INTENT}),
    Lost: frozenset({_S.INTENT, _S.PROBING}),
    Probe: frozenset({_S.AMBIGUOUS}),
    Probed: frozenset({_S.PROBING}),
    Rechecked: _NOT_DONE | _DONE,
    GiveUp: frozenset({_S.AMBIGUOUS}),
    Park: frozenset({_S.AMBIGUOUS, _S.PROBING}),
    Settled: frozenset({_S.PARKED}),
    Undone: frozenset({_S.SUCCEEDED, _S.CONFIRMED_DONE}),
}


def step(view: EffectView, event: Event) -> EffectView:
    """Return the row after an event; raises `ConflictError` for what the protocol refuses."""
    if view.state not in _FROM[type(event)] or not _is_allowed(view, event):
        raise ConflictError(
            f"the effect is `{view.state}` (epoch {view.epoch}, attempt {view.attempt}) and cannot"
            f" take `{type(event).__name__.lower()}`"
        )
    match event:
        case Intend():
            return _intended(view, event)
        case Answered(verdict=verdict):
            return _answered(view, verdict)
        case Lost(epoch=epoch, until_us=until_us):
            return replace(
                view,
                state=_S.AMBIGUOUS,
                epoch=epoch,
                send_deadline_us=max(view.send_deadline_us or 0, until_us or 0) or None,
                is_in_doubt=_is_write(view),
            )
        case _:
            after = replace(view, state=_state_after(event))
            return replace(after, is_in_doubt=after.is_in_doubt and after.state in _IN_DOUBT)


def _is_allowed(view: EffectView, event: Event) -> bool:
    """Say what a state alone does not: whose event it is, and whether the class permits it."""
    match event:
        case Intend(epoch=epoch, now_us=now_us):
            if view.state is _S.AMBIGUOUS and recover(view, now_us=now_us) != "resend":
                return False
            if view.state is _S.FAILED_DEFINITE and not may_retry(view):
                return False
            return epoch >= view.epoch
        case Answered(epoch=epoch, attempt=attempt):
            return (epoch, attempt) == (view.epoch, view.attempt)
        case Lost(epoch=epoch):
            return epoch > view.epoch
        case Decided():
            # What may have been done is not made undone by a refusal.
            return view.state is not _S.AMBIGUOUS or not _is_write(view)
        case GiveUp():
            return not _is_write(view)
        case Park():
            return _is_write(view)
        case Rechecked(found=found):
            return is_surplus(view, found=found)
        case _:
            return True


def _state_after(
    event: Decided | Probe | Probed | Rechecked | GiveUp | Park | Settled | Undone,
) -> EffectState:
    match event:
        case Decided(outcome=outcome):
            return _DECIDED[outcome]
        case Probe():
            return _S.PROBING
        case Probed():
            return _probed(event)
        case GiveUp():
            return _S.FAILED_DEFINITE
        case Park() | Rechecked():
            return _S.PARKED
        case Settled(answer=answer):
            return _SETTLED[answer]
        case Undone():
            return _S.COMPENSATED
        case _:
            assert_never(event)


Recovery = Literal["resend", "probe", "park", "give_up"]
"""What to do about an unknown outcome."""


def recover(view: EffectView, *, now_us: int) -> Recovery:
    """Say how an ambiguous effect goes on, as its class allows.

    A read is sent again a bounded number of times, then given up. `keyed` and `conditional` are
    sent again while key or guard lives; then they are probed if they can be, else parked. `blind`
    is never sent again.
    """
    if view.is_key_reused:
        return "park"
    match view.effect_class:
        case EffectClass.READ:
            return "resend" if _has_attempts(view) else "give_up"
        case EffectClass.KEYED:
            if _has_attempts(view) and _is_key_alive(view, now_us):
                return "resend"
        case EffectClass.CONDITIONAL:
            if _has_attempts(view) and _is_guard_usable(view, now_us):
                return "resend"
        case EffectClass.PROBED | EffectClass.BLIND:
            pass
        case _:
            assert_never(view.effect_class)
    can_probe = view.has_probe and view.effect_class is not EffectClass.BLIND
    return "probe" if can_probe else "park"


def quiet_at_us(view: EffectView) -> int:
    """Return when the last request can no longer act and the outside shows what it did."""
    return (view.send_deadline_us or 0) + view.lag_us


def is_surplus(view: EffectView, *, found: int) -> bool:
    """Whether outside there is more than a row says that has ended.

    One that a person gave up, or has yet to settle, says nothing of what is there.
    """
    return (view.state in _DONE and found > 1) or (view.state in _NOT_DONE and found > 0)


def may_retry(view: EffectView) -> bool:
    """Whether an attempt that provably did nothing may be followed by another.

    Not if a guard refused the row: it would refuse the next attempt as well. A blind call is
    followed by another only if it never left.
    """
    is_repeatable = view.effect_class is not EffectClass.BLIND or view.is_unsent
    return (
        view.state is _S.FAILED_DEFINITE
        and _has_attempts(view)
        and is_repeatable
        and not view.is_guard_refused
    )


def _intended(view: EffectView, event: Intend) -> EffectView:
    return replace(
        view,
        state=_S.INTENT,
        epoch=event.epoch,
        attempt=view.attempt + 1,
        first_sent_us=event.now_us if view.first_sent_us is None else view.first_sent_us,
        send_deadline_us=event.deadline_us,
        is_unsent=False,
    )


def _answered(view: EffectView, verdict: Verdict) -> EffectView:
    state = _ANSWERED[verdict]
    if view.is_in_doubt and state is _S.FAILED_DEFINITE:
        state = _S.AMBIGUOUS
    return replace(
        view,
        state=state,
        is_in_doubt=state is _S.AMBIGUOUS and _is_write(view),
        is_unsent=verdict is Verdict.NOT_SENT,
        is_guard_refused=view.is_guard_refused or verdict is Verdict.GUARD_REFUSED,
        is_key_reused=verdict is Verdict.KEY_REUSED,
    )


def _probed(event: Probed) -> EffectState:
    if event.found == 1:
        return _S.SUCCEEDED
    if event.found > 1:
        return _S.PARKED
    return _S.FAILED_DEFINITE if event.is_quiet else _S.AMBIGUOUS


def _is_write(view: EffectView) -> bool:
    return view.effect_class is not EffectClass.READ


def _has_attempts(view: EffectView) -> bool:
    return view.attempt < MAX_ATTEMPTS


def _is_key_alive(view: EffectView, now_us: int) -> bool:
    if view.first_sent_us is None or view.key_ttl_us is None:
        return view.first_sent_us is None
    return now_us - view.first_sent_us < KEY_MARGIN * view.key_ttl_us


def _is_guard_usable(view: EffectView, now_us: int) -> bool:
    is_alive = view.guard_until_us is None or now_us < view.guard_until_us
    return is_alive and not view.is_guard_refused
