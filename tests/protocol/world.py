"""A small world around the effect protocol: two workers, one tool, every order of events.

Rows are moved by `protocol.step` and `protocol.recover` alone. Two rows never meet, so that one
effect, with all that can befall it, stands for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from interlock.calls import protocol
from interlock.calls.protocol import EffectView, Recovery, Verdict
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError
from interlock.domain.tool import EffectClass

S = EffectState
END = frozenset({S.SUCCEEDED, S.FAILED_DEFINITE, S.PARKED})
DEADLINE_US = 1
NOW_US = 0
KEY_TTL_US = 5


@dataclass(frozen=True, slots=True)
class Sent:
    """A request on its way: it acts at most once and no later than its deadline."""

    epoch: int
    attempt: int
    deadline_us: int


@dataclass(frozen=True, slots=True)
class World:
    """One state: the row, what is on its way, what was done and received outside.

    `owner` holds the run, `zombie` was thought dead while it held an intent that it has not sent.
    """

    row: EffectView
    owner: int = 1
    is_unsent: bool = False
    zombie: Sent | None = None
    on_the_way: tuple[Sent, ...] = ()
    replies: tuple[tuple[Sent, Verdict], ...] = ()
    applied: int = 0
    received: int = 0
    crashes: int = 2
    faults: int = 1


def _recover(view: EffectView, *, now_us: int) -> Recovery:
    return protocol.recover(view, now_us=now_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a mutant may break; by default what production does."""

    step: Callable[[EffectView, protocol.Event], EffectView] = protocol.step
    recover: Callable[..., Recovery] = _recover
    is_quiet: Callable[[World], bool] = field(
        default=lambda world: protocol.quiet_at_us(world.row) <= NOW_US
    )
    is_late_sent: bool = False


def first(effect_class: EffectClass) -> World:
    """Return the world before the first intent."""
    return World(
        EffectView(
            effect_class=effect_class,
            state=S.AUTHORIZED,
            epoch=1,
            key_ttl_us=KEY_TTL_US if effect_class is EffectClass.KEYED else None,
            has_probe=effect_class in {EffectClass.PROBED, EffectClass.CONDITIONAL},
        )
    )


def search(effect_class: EffectClass, rules: Rules) -> SimpleNamespace:
    """Visit every reachable state, nearest first.

    Returns `states`, their number, and `trace`: the shortest way to a broken invariant, or None.
    """
    start = first(effect_class)
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        moves = list(_moves(world, rules))
        broken = _broken(world, is_stuck=not moves)
        if broken is not None:
            return SimpleNamespace(states=len(came_from), trace=_trace(came_from, world, broken))
        for name, after in moves:
            if after not in came_from:
                came_from[after] = (world, name)
                queue.append(after)
    return SimpleNamespace(states=len(came_from), trace=None)


def _broken(world: World, *, is_stuck: bool) -> str | None:
    row = world.row
    is_write = row.effect_class is not EffectClass.READ
    if is_write and world.applied > 1:
        return "done twice"
    if row.effect_class is EffectClass.BLIND and world.received > 1:
        return "blind received twice"
    if is_write and row.state is S.SUCCEEDED and world.applied != 1:
        return "succeeded without an effect"
    may_act = bool(world.on_the_way) or world.zombie is not None
    if is_write and row.state is S.FAILED_DEFINITE and (world.applied or may_act):
        return "failed, and was or may be done"
    if row.state is S.PARKED and not is_write:
        return "a read is parked"
    if is_stuck and row.state not in END:
        return "stuck"
    return None


def _moves(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    for name, after in _all_moves(world, rules):
        if after is not None:
            yield name, after


def _all_moves(world: World, rules: Rules) -> Iterator[tuple[str, World | None]]:
    row = world.row
    yield from _outside(world)
    yield from _zombie(world)
    for reply in world.replies:
        yield f"answer {reply[1]}", _answered(world, reply, rules)
    if world.crashes and row.state in {S.INTENT, S.PROBING}:
        yield "owner lost", _lost(world, rules)
    if world.is_unsent:
        yield from _send(world)
        return
    if row.state is S.AUTHORIZED or (row.state is S.FAILED_DEFINITE and protocol.may_retry(row)):
        yield "intend", _intend(world, rules)
    if row.state is S.INTENT and NOW_US >= (row.send_deadline_us or 0):
        late = Sent(row.epoch, row.attempt, 0)
        yield "timeout", _answered(world, (late, Verdict.UNKNOWN), rules)
    if row.state is S.AMBIGUOUS:
        yield from _recovered(world, rules)
    if row.state is S.PROBING:
        event = protocol.Probed(found=world.applied, is_quiet=rules.is_quiet(world))
        yield f"probed {world.applied}", _stepped(world, event, rules)
    later = _later(world, rules)
    if later != world:
        yield "time passes", later


def _later(world: World, rules: Rules) -> World:
    """Let one unit of time pass: now is always 0, what lies ahead comes nearer.

    What is over is alike, however long ago, and a request whose time is over is gone.
    """
    row = world.row
    first_us = None if row.first_sent_us is None else max(-KEY_TTL_US, row.first_sent_us - 1)
    if row.effect_class is not EffectClass.KEYED and first_us is not None:
        first_us = 0
    ahead = [replace(sent, deadline_us=sent.deadline_us - 1) for sent in world.on_the_way]
    zombie = world.zombie
    if zombie is not None:
        zombie = replace(zombie, deadline_us=max(0, zombie.deadline_us - 1))
        if zombie.deadline_us == 0 and not rules.is_late_sent:
            zombie = None
    deadline_us = None if row.send_deadline_us is None else max(0, row.send_deadline_us - 1)
    return replace(
        world,
        row=replace(row, first_sent_us=first_us, send_deadline_us=deadline_us),
        on_the_way=tuple(sent for sent in ahead if sent.deadline_us > 0),
        zombie=zombie,
    )


def _recovered(world: World, rules: Rules) -> Iterator[tuple[str, World | None]]:
    action = rules.recover(world.row, now_us=NOW_US)
    if action == "resend":
        yield action, _intend(world, rules)
    elif action == "probe":
        yield action, _stepped(world, protocol.Probe(), rules)
    elif action == "park":
        yield action, _stepped(world, protocol.Park(), rules)
    else:
        yield action, _stepped(world, protocol.GiveUp(), rules)


def _stepped(world: World, event: protocol.Event, rules: Rules) -> World | None:
    try:
        return replace(world, row=rules.step(world.row, event))
    except ConflictError:
        return None


def _intend(world: World, rules: Rules) -> World | None:
    event = protocol.Intend(epoch=world.owner, now_us=NOW_US, deadline_us=NOW_US + DEADLINE_US)
    after = _stepped(world, event, rules)
    return None if after is None else replace(after, is_unsent=True)


def _send(world: World) -> Iterator[tuple[str, World]]:
    row = world.row
    sent = Sent(row.epoch, row.attempt, row.send_deadline_us or 0)
    sure = replace(world, is_unsent=False)
    yield "send", replace(sure, on_the_way=(*world.on_the_way, sent))
    if world.faults:
        fewer = replace(sure, faults=world.faults - 1)
        yield "not sent", _replied(fewer, sent, Verdict.NOT_SENT)


def _lost(world: World, rules: Rules) -> World | None:
    """Hand the run on; if the intent was not sent yet, the old owner may still wake and send."""
    row, owner = world.row, world.owner + 1
    asleep = Sent(row.epoch, row.attempt, row.send_deadline_us or 0) if world.is_unsent else None
    handed = replace(
        world,
        owner=owner,
        is_unsent=False,
        zombie=asleep or world.zombie,
        crashes=world.crashes - 1,
    )
    return _stepped(handed, protocol.Lost(epoch=owner), rules)


def _zombie(world: World) -> Iterator[tuple[str, World]]:
    """Wake a stopped worker; one that finds its deadline over is gone in `_later`."""
    if world.zombie is None:
        return
    woken = replace(world, zombie=None)
    yield "zombie sends", replace(woken, on_the_way=(*world.on_the_way, world.zombie))


def _outside(world: World) -> Iterator[tuple[str, World]]:
    """Let a request arrive, or die on its way at its deadline; its answer may be lost."""
    for index, sent in enumerate(world.on_the_way):
        left = world.on_the_way[:index] + world.on_the_way[index + 1 :]
        gone = replace(world, on_the_way=left)
        verdict, applied = _tool(world)
        # More than two are broken already, and make no new states.
        got = replace(gone, received=min(2, world.received + 1))
        yield f"arrives: {verdict}", _replied(replace(got, applied=applied), sent, verdict)
        if world.faults:
            fewer = replace(got, faults=world.faults - 1)
            yield "answer lost", replace(fewer, applied=applied)
            yield "refused without effect", _replied(fewer, sent, Verdict.NOTHING_DONE)


def _replied(world: World, sent: Sent, verdict: Verdict) -> World:
    """Put an answer on its way; of many the oldest is lost."""
    return replace(world, replies=(*world.replies, (sent, verdict))[-2:])


def _tool(world: World) -> tuple[Verdict, int]:
    """Do what a tool of this class does with one more request."""
    match world.row.effect_class:
        case EffectClass.READ:
            return Verdict.SUCCEEDED, 0
        case EffectClass.KEYED:
            is_known = NOW_US < (world.row.first_sent_us or 0) + KEY_TTL_US
            return Verdict.SUCCEEDED, 1 if is_known else min(2, world.applied + 1)
        case EffectClass.CONDITIONAL if world.applied:
            return Verdict.GUARD_REFUSED, world.applied
        case _:
            return Verdict.SUCCEEDED, min(2, world.applied + 1)


def _answered(world: World, reply: tuple[Sent, Verdict], rules: Rules) -> World | None:
    """Give an answer to the protocol; one that it refuses is late and only evidence."""
    sent, verdict = reply
    left = list(world.replies)
    if reply in left:
        left.remove(reply)
    heard = replace(world, replies=tuple(left))
    event = protocol.Answered(epoch=sent.epoch, attempt=sent.attempt, verdict=verdict)
    return _stepped(heard, event, rules) or (None if heard == world else heard)


def _trace(
    came_from: dict[World, tuple[World, str] | None], world: World, broken: str
) -> list[str]:
    names = [broken]
    at = came_from[world]
    while at is not None:
        names.append(at[1])
        at = came_from[at[0]]
    return names[::-1]
