"""A small world around the effect protocol: two workers, one tool, every order of events.

Rows are moved by `protocol.step` and `protocol.recover` alone. Two rows meet only where they may
use the same approval, so one effect, with all that can befall it, stands for all; the other one is
`rival`. The run's own fence is left out: what is shown holds by the rows of effects alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from interlock.calls import protocol
from interlock.calls.protocol import EffectView, Recovery, Verdict
from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError
from interlock.domain.tool import EffectClass

S = EffectState
SETTLED = frozenset({S.CONFIRMED_DONE, S.CONFIRMED_ABSENT})
DONE = frozenset({S.SUCCEEDED, S.CONFIRMED_DONE})
REFUSED = frozenset({S.DENIED, S.PARKED})
END = REFUSED | SETTLED | {S.SUCCEEDED, S.FAILED_DEFINITE, S.COMPENSATED}
DEADLINE_US = 1
NOW_US = 0
KEY_TTL_US = 2
STALE = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """A request on its way: it acts at most once and no later than its deadline.

    `is_deaf` if the process that sent it is dead, so that nobody hears the answer.
    """

    epoch: int
    attempt: int
    deadline_us: int
    is_deaf: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """One state: the row, what is on its way, what was done and received outside.

    `owner` is the epoch that holds the run; `stale` that of the other worker, which held it before
    and does not know. `unsent` is an intent of the owner that has not left; `asleep` are those of
    workers that were taken for dead. `crashes`, `expiries` and `faults` are what may still happen.
    Before each further attempt the owner pauses; `paused` is the attempt after which it last did.
    `is_due` if a second look is to come, which is followed only if the rules know it.
    `bug` is what the road runs into if the protocol refuses what it relies on.
    """

    row: EffectView
    owner: int = 1
    stale: int = 0
    unsent: Sent | None = None
    asleep: tuple[Sent, ...] = ()
    on_the_way: tuple[Sent, ...] = ()
    replies: tuple[tuple[Sent, Verdict], ...] = ()
    applied: int = 0
    received: int = 0
    approval_of: str = ""
    stopped_at: int | None = None
    undone: int = 0
    is_pausing: bool = False
    paused: int = 0
    is_due: bool = False
    bug: str | None = None
    crashes: int = 2
    expiries: int = 2
    faults: int = 1


def _recover(view: EffectView, *, now_us: int) -> Recovery:
    return protocol.recover(view, now_us=now_us)


def _refusal(view: EffectView) -> protocol.Event:
    """Return what follows if policy refuses the next attempt."""
    if view.state is S.AMBIGUOUS and view.effect_class is not EffectClass.READ:
        return protocol.Park()
    return protocol.Decided(outcome=Outcome.DENY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a mutant may break; by default what production does."""

    step: Callable[[EffectView, protocol.Event], EffectView] = protocol.step
    recover: Callable[..., Recovery] = _recover
    is_quiet: Callable[[World], bool] = field(
        default=lambda world: protocol.quiet_at_us(world.row) <= NOW_US
    )
    may_undo: Callable[[World], bool] = field(default=lambda world: world.row.state in DONE)
    refusal: Callable[[EffectView], protocol.Event] = _refusal
    may_recheck: Callable[[World], bool] | None = None
    is_decided_after_pause: bool = True
    is_paused_once: bool = True
    is_anyone_heard: bool = False
    is_late_sent: bool = False
    is_approval_used_late: bool = False
    is_key_of_attempt: bool = False
    is_intent_late: bool = False
    is_stop_read_early: bool = False
    is_retried_unwritten: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How many states were visited, and the shortest way to a broken promise, if there is one."""

    states: int
    trace: tuple[str, ...] | None


def first(
    effect_class: EffectClass,
    *,
    crashes: int = 2,
    expiries: int = 2,
    faults: int = 1,
    is_key_probed: bool = False,
) -> World:
    """Return the world before the first intent; `is_key_probed` gives a keyed tool a probe."""
    probed = {EffectClass.PROBED, EffectClass.CONDITIONAL}
    if is_key_probed:
        probed.add(EffectClass.KEYED)
    row = EffectView(
        effect_class=effect_class,
        state=S.AUTHORIZED,
        epoch=1,
        key_ttl_us=KEY_TTL_US if effect_class is EffectClass.KEYED else None,
        has_probe=effect_class in probed,
    )
    return World(row, crashes=crashes, expiries=expiries, faults=faults)


def search(start: World, rules: Rules) -> Found:
    """Visit every state that can be reached, nearest first, up to the first broken promise."""
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        moves = [
            (name, _plain(after, rules))
            for name, after in _moves(world, rules)
            if after is not None
        ]
        broken = _broken(world, rules, is_stuck=not moves)
        if broken is not None:
            return Found(states=len(came_from), trace=_trace(came_from, world, broken))
        for name, after in moves:
            if after not in came_from:
                came_from[after] = (world, name)
                queue.append(after)
    return Found(states=len(came_from), trace=None)


def _broken(world: World, rules: Rules, *, is_stuck: bool) -> str | None:
    row = world.row
    if world.bug is not None:
        return world.bug
    if any(sent.attempt > row.attempt for sent in world.on_the_way):
        return "sent without an intent"
    if world.stopped_at is not None and row.attempt > world.stopped_at:
        return "intended after the stop"
    if is_stuck and row.state not in END and not _is_held(world):
        return "stuck"
    if row.effect_class is EffectClass.READ:
        return "a read is parked" if row.state is S.PARKED else None
    if world.is_due:
        return None  # what was done too often is found by the second look
    return _broken_write(world, rules)


def _broken_write(world: World, rules: Rules) -> str | None:
    row = world.row
    if world.applied > 1 and (rules.may_recheck is None or row.state is not S.PARKED):
        return "done twice"
    if row.effect_class is EffectClass.BLIND and world.received > 1:
        return "blind received twice"
    if row.state is S.SUCCEEDED and world.applied != 1:
        return "succeeded without an effect"
    may_act = world.on_the_way or world.asleep
    if row.state in {S.FAILED_DEFINITE, S.DENIED} and (world.applied or may_act):
        return "failed or denied, and was or may be done"
    if world.approval_of == "rival" and (world.received or world.on_the_way):
        return "one approval, two calls"
    is_with_person = rules.may_recheck is not None and row.state in SETTLED | {S.PARKED}
    is_known = row.state is S.COMPENSATED or is_with_person
    if world.undone > 1 or (world.undone and not is_known):
        return "undone twice, or not known to be done"
    return None


def _is_held(world: World) -> bool:
    """Whether nothing was sent and nothing will be: it wants a new approval."""
    never_sent = world.row.state is S.AUTHORIZED and not world.received
    return never_sent and world.approval_of == "rival"


def _moves(world: World, rules: Rules) -> Iterator[tuple[str, World | None]]:
    row = world.row
    yield from _outside(world, rules)
    yield from _losses(world, rules)
    for index, sent in enumerate(world.asleep):
        left = world.asleep[:index] + world.asleep[index + 1 :]
        yield "a worker wakes and sends", _on_its_way(replace(world, asleep=left), sent)
    for reply in world.replies:
        yield f"answer {reply[1]}", _answered(world, reply, rules)
    if world.stopped_at is None and row.state not in END:
        yield "stop", replace(world, stopped_at=row.attempt)
    if not world.approval_of and row.effect_class is not EffectClass.READ:
        yield "the rival is sent", replace(world, approval_of="rival")
    if world.stale:
        yield "stale worker intends", _intend(world, rules, epoch=world.stale)
    if rules.may_undo(world):
        undone = replace(world, undone=world.undone + 1)
        yield "undo", _stepped(undone, protocol.Undone(), rules) or undone
    if row.state is S.PARKED:
        answer = protocol.Settled(answer="done" if world.applied else "absent")
        # Whoever finds two leaves one.
        cleared = replace(world, applied=min(1, world.applied)) if rules.may_recheck else world
        yield f"settled {answer.answer}", _stepped(cleared, answer, rules)
    if world.is_due and rules.may_recheck is not None and rules.may_recheck(world):
        looked = replace(world, is_due=False)
        is_surplus = protocol.is_surplus(row, found=world.applied)
        event = protocol.Rechecked(found=world.applied)
        yield "second look", _stepped(looked, event, rules) if is_surplus else looked
    if world.unsent is not None:
        yield from _send(world, world.unsent)
    else:
        yield from _owner(world, rules)
    later = _later(world, rules)
    if later != world:
        yield "time passes", later


def _owner(world: World, rules: Rules) -> Iterator[tuple[str, World | None]]:
    """Let the owner do what the row asks for."""
    row = world.row
    if row.state is S.AUTHORIZED or world.is_pausing:
        yield from _decided(replace(world, is_pausing=False), rules)
        return
    if protocol.may_retry(row):
        yield "pause", _paused(world, rules)
    if row.state is S.INTENT and row.epoch != world.owner:
        yield "taken over", _stepped(world, protocol.Lost(epoch=world.owner), rules)
    elif row.state is S.INTENT and (row.send_deadline_us or 0) <= NOW_US:
        late = Sent(row.epoch, row.attempt, 0)
        yield "timeout", _answered(world, (late, Verdict.UNKNOWN), rules)
    if row.state is S.AMBIGUOUS:
        yield from _recovered(world, rules)
    if row.state is S.PROBING:
        event = protocol.Probed(found=world.applied, is_quiet=rules.is_quiet(world))
        is_due = world.is_due
        if rules.may_recheck is not None:
            is_due = is_due or (event.is_quiet and not event.found)
        yield f"probed {world.applied}", _stepped(replace(world, is_due=is_due), event, rules)


def shows(world: World) -> bool:
    """Whether the call has ended, and nobody is left who may send: when a second look is due."""
    is_ended = world.row.state in END - {S.PARKED} and not protocol.may_retry(world.row)
    return is_ended and not world.asleep and not world.on_the_way


LATE = Rules(
    is_late_sent=True,
    may_recheck=shows,
    # That no effect has two undos is the store's rule, also for one that a person settled.
    may_undo=lambda world: world.row.state in DONE and not world.undone,
)
"""A worker of another host is paused for longer than the quiet time, and sends when it wakes."""


def _paused(world: World, rules: Rules) -> World:
    """Begin the pause after an attempt, which has a name of its own in the stretch of the run."""
    if rules.is_paused_once:
        return replace(world, is_pausing=True)
    attempt = world.row.attempt
    bug = "one pause twice" if world.paused == attempt else None
    return replace(world, is_pausing=True, paused=attempt, bug=bug)


def _decided(world: World, rules: Rules) -> Iterator[tuple[str, World | None]]:
    """Decide about the next attempt, by policy and by what time has left of key and guard."""
    row = world.row
    is_unknown = row.state is S.AMBIGUOUS and rules.is_decided_after_pause
    if is_unknown and rules.recover(row, now_us=NOW_US) != "resend":
        yield "too late for a resend", world
    elif world.stopped_at is not None and not rules.is_stop_read_early:
        event = rules.refusal(row)
        refused = _stepped(world, event, rules)
        if refused is None or refused.row.state not in REFUSED:
            refused = replace(world, bug=f"refused, and `{type(event).__name__.lower()}`")
        yield "refused", refused
    else:
        yield from _intended(world, rules)


def _intended(world: World, rules: Rules) -> Iterator[tuple[str, World | None]]:
    row = world.row
    intended = _intend(world, rules, epoch=world.owner)
    yield "intend", intended
    if rules.is_intent_late and intended is not None and world.crashes:
        early = Sent(world.owner, row.attempt, NOW_US + DEADLINE_US, is_deaf=True)
        fewer = replace(world, crashes=world.crashes - 1, owner=world.owner + 1)
        yield "sent, and killed before its intent", _on_its_way(fewer, early)
    if rules.is_retried_unwritten and row.state is S.FAILED_DEFINITE:
        again = Sent(world.owner, row.attempt, NOW_US + DEADLINE_US)
        yield "sent again", _on_its_way(world, again)


def _recovered(world: World, rules: Rules) -> Iterator[tuple[str, World | None]]:
    action = rules.recover(world.row, now_us=NOW_US)
    is_stopped = world.stopped_at is not None and not rules.is_stop_read_early
    if is_stopped and action == "probe":
        action = "park"
    match action:
        case "resend":
            yield action, _paused(world, rules)
        case "probe":
            yield action, _stepped(world, protocol.Probe(), rules)
        case "park":
            yield action, _stepped(world, protocol.Park(), rules)
        case "give_up":
            yield action, _stepped(world, protocol.GiveUp(), rules)


def _stepped(world: World, event: protocol.Event, rules: Rules) -> World | None:
    try:
        return replace(world, row=rules.step(world.row, event))
    except ConflictError:
        return None


def _intend(world: World, rules: Rules, *, epoch: int) -> World | None:
    """Commit an intent, if no stop and no other use of the approval is seen in its transaction."""
    is_stopped = world.stopped_at is not None and not rules.is_stop_read_early
    is_used = world.approval_of == "rival"
    if is_stopped or (is_used and world.row.effect_class is not EffectClass.READ):
        return None
    event = protocol.Intend(epoch=epoch, now_us=NOW_US, deadline_us=NOW_US + DEADLINE_US)
    after = _stepped(world, event, rules)
    if after is None:
        return replace(world, bug="an intent that is refused") if epoch == world.owner else None
    used = world if rules.is_approval_used_late else replace(world, approval_of="row")
    row = after.row
    sent = Sent(row.epoch, row.attempt, row.send_deadline_us or 0)
    # Whoever pauses and loses the row to a stale worker goes on from where it stands then.
    intended = replace(used, row=row, is_pausing=False)
    if epoch == world.owner:
        return replace(intended, unsent=sent)
    return replace(intended, asleep=(*world.asleep, sent))


def _send(world: World, sent: Sent) -> Iterator[tuple[str, World]]:
    sure = replace(world, unsent=None)
    yield "send", _on_its_way(sure, sent)
    if world.faults:
        fewer = replace(sure, faults=world.faults - 1)
        yield "not sent", _replied(fewer, sent, Verdict.NOT_SENT)


def _on_its_way(world: World, sent: Sent) -> World:
    return replace(world, on_the_way=(*world.on_the_way, sent))


def _losses(world: World, rules: Rules) -> Iterator[tuple[str, World | None]]:
    """Hand the run to the next epoch: its owner was killed, or only taken for dead."""
    if world.row.state in END or world.owner > world.row.epoch:
        return  # an owner that has not touched the row leaves nothing
    handed = replace(world, owner=world.owner + 1, unsent=None, is_pausing=False, paused=0)
    if world.crashes:
        killed = replace(
            handed,
            crashes=world.crashes - 1,
            on_the_way=tuple(_deafened(sent, world.owner) for sent in world.on_the_way),
            replies=tuple(reply for reply in world.replies if reply[0].epoch != world.owner),
        )
        yield "owner killed", _taken_over(killed, rules)
    if world.expiries:
        asleep = world.asleep if world.unsent is None else (*world.asleep, world.unsent)
        expired = replace(handed, expiries=world.expiries - 1, stale=world.owner, asleep=asleep)
        yield "lease expired", _taken_over(expired, rules)


def _taken_over(world: World, rules: Rules) -> World | None:
    if world.row.state not in {S.INTENT, S.PROBING}:
        return world
    return _stepped(world, protocol.Lost(epoch=world.owner), rules)


def _deafened(sent: Sent, epoch: int) -> Sent:
    return replace(sent, is_deaf=True) if sent.epoch == epoch else sent


def _plain(world: World, rules: Rules) -> World:
    """Make states alike that cannot be told apart from now on.

    An answer to another attempt than the row's last is refused for ever, so who sent that attempt
    does not matter any more, nor does a worker whose epoch the row has passed. Of how many requests
    were received only the second of a blind call is news.
    """
    row = world.row
    replies = world.replies
    if not rules.is_anyone_heard:
        is_heard = row.state is S.INTENT
        replies = tuple(reply for reply in replies if is_heard and _is_last(reply[0], row))
    stale = world.stale if world.stale >= row.epoch else 0
    on_the_way = _alike(world.on_the_way, row, rules)
    asleep = _alike(world.asleep, row, rules)
    received = world.received
    if row.effect_class is not EffectClass.BLIND:
        received = min(1, received)
    before = (world.stale, world.on_the_way, world.asleep, world.replies, world.received)
    if before == (stale, on_the_way, asleep, replies, received):
        return world  # most are, and a copy costs more than the comparison
    return replace(
        world,
        stale=stale,
        on_the_way=on_the_way,
        asleep=asleep,
        replies=replies,
        received=received,
    )


def _alike(requests: tuple[Sent, ...], row: EffectView, rules: Rules) -> tuple[Sent, ...]:
    if not requests or rules.is_anyone_heard:
        return requests
    alike = (
        sent if _is_last(sent, row) else Sent(STALE, STALE, sent.deadline_us, is_deaf=True)
        for sent in requests
    )
    return tuple(sorted(alike, key=lambda sent: (sent.attempt, sent.deadline_us, sent.is_deaf)))


def _is_last(sent: Sent, row: EffectView) -> bool:
    return sent.attempt > row.attempt or (sent.epoch, sent.attempt) == (row.epoch, row.attempt)


def _later(world: World, rules: Rules) -> World:
    """Let one unit of time pass: now is always 0, what lies ahead comes nearer.

    What is over is alike, however long ago, and a request whose time is over is gone. A worker that
    wakes and finds the deadline over sends nothing.
    """
    row = world.row
    first_us = None if row.first_sent_us is None else max(-KEY_TTL_US, row.first_sent_us - 1)
    if row.effect_class is not EffectClass.KEYED and first_us is not None:
        first_us = 0
    deadline_us = None if row.send_deadline_us is None else max(0, row.send_deadline_us - 1)
    asleep = world.asleep if rules.is_late_sent else _nearer(world.asleep)
    unsent = world.unsent if world.unsent is None else next(iter(_nearer((world.unsent,))), None)
    return replace(
        world,
        row=replace(row, first_sent_us=first_us, send_deadline_us=deadline_us),
        on_the_way=_nearer(world.on_the_way),
        asleep=asleep,
        unsent=unsent,
    )


def _nearer(sent: tuple[Sent, ...]) -> tuple[Sent, ...]:
    ahead = (replace(one, deadline_us=one.deadline_us - 1) for one in sent)
    return tuple(one for one in ahead if one.deadline_us > 0)


def _outside(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """Let a request arrive, or die on its way at its deadline; its answer may be lost."""
    for index, sent in enumerate(world.on_the_way):
        left = world.on_the_way[:index] + world.on_the_way[index + 1 :]
        verdict, applied = _tool(world, rules)
        # More than two are broken already, and make no new states.
        got = replace(world, on_the_way=left, received=min(2, world.received + 1))
        yield f"arrives: {verdict}", _replied(replace(got, applied=applied), sent, verdict)
        if world.faults:
            fewer = replace(got, faults=world.faults - 1)
            yield "answer lost", replace(fewer, applied=applied)
            yield "refused without effect", _replied(fewer, sent, Verdict.NOTHING_DONE)


def _tool(world: World, rules: Rules) -> tuple[Verdict, int]:
    """Do what a tool of this class does with one more request."""
    once_more = min(2, world.applied + 1)
    match world.row.effect_class:
        case EffectClass.READ:
            return Verdict.SUCCEEDED, 0
        case EffectClass.KEYED:
            is_alive = (world.row.first_sent_us or 0) + KEY_TTL_US > NOW_US
            is_known = world.applied and is_alive and not rules.is_key_of_attempt
            return Verdict.SUCCEEDED, world.applied if is_known else once_more
        case EffectClass.CONDITIONAL if world.applied:
            return Verdict.GUARD_REFUSED, world.applied
        case _:
            return Verdict.SUCCEEDED, once_more


def _replied(world: World, sent: Sent, verdict: Verdict) -> World:
    """Put an answer on its way if anybody is there to hear it; of many the oldest is lost."""
    if sent.is_deaf:
        return world
    return replace(world, replies=(*world.replies, (sent, verdict))[-2:])


def _answered(world: World, reply: tuple[Sent, Verdict], rules: Rules) -> World | None:
    """Give an answer to the protocol; one that it refuses is late and only evidence."""
    sent, verdict = reply
    left = list(world.replies)
    if reply in left:
        left.remove(reply)
    heard = replace(world, replies=tuple(left))
    event = protocol.Answered(epoch=sent.epoch, attempt=sent.attempt, verdict=verdict)
    after = _stepped(heard, event, rules)
    if after is not None:
        return replace(after, approval_of=after.approval_of or "row")
    return None if heard == world else heard


def _trace(
    came_from: dict[World, tuple[World, str] | None], world: World, broken: str
) -> tuple[str, ...]:
    names = [broken]
    at = came_from[world]
    while at is not None:
        names.append(at[1])
        at = came_from[at[0]]
    return tuple(names[::-1])
