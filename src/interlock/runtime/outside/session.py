"""The run of one session of an outside agent: makes its calls, finishes those left, and ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from interlock.calls.pipeline import Told, WaitsFor, call_tool
from interlock.calls.record import result_of
from interlock.calls.road import CallResult, Proposal
from interlock.domain.canonical import Json
from interlock.domain.effect import EffectState
from interlock.domain.errors import IntakeFullError
from interlock.domain.ids import RunId, StepName, ToolName, effect_id_of
from interlock.domain.run import Expired, JournalEntry, RunOutcome, RunState
from interlock.observe import emit
from interlock.runtime.outside.desk import Asked, Desk, Desks, Pending, key_conflict
from interlock.runtime.outside.purse import Purse
from interlock.runtime.steps import Walk
from interlock.store import effects, journal, runs, spans, tokens, waits
from interlock.store.tx import Tx
from interlock.store.waits import Wait

MOST_CALLS = 10_000
"""How many calls a session may make: all that it has recorded is kept with its run."""
_TOGETHER = 50
"""How many calls that have ended are put away at once."""
END_TOPIC = "session/end"
"""Signal that ends a session before its token does."""
WITHDRAWN_TOPIC = "client/withdrawn"
"""Signals that nobody waits for: who takes a session up looks which of its calls have one."""
_ASKED = "session.call"
_NOTE = "#asked"
_BEGIN = StepName("#session")
_WITH_PEOPLE: Mapping[EffectState, WaitsFor] = MappingProxyType(
    {EffectState.PROPOSED: "approval", EffectState.PARKED: "person"}
)
_WAITS: Mapping[str, WaitsFor] = MappingProxyType(
    {"rate": "rate", "breaker": "server", "kill": "switch"}
)
"""What waits of a call are for that its row does not say, by what follows its step's name."""


@dataclass(slots=True, kw_only=True)
class _Calls:
    """The calls of a session that this segment knows: by key, and how many were put away.

    `withdrawn` are the keys of those that were taken back before this segment began.
    """

    by_key: dict[str, Asked]
    ended: set[str]
    past: int
    withdrawn: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """Return how many calls the session has made."""
        return self.past + len(self.by_key)


async def run_session(walk: Walk, desks: Desks) -> RunOutcome:
    """Take calls until the session is ended or its last token is over, and nothing is open.

    Every call is noted with its first write. Whoever owns the run next finds there what is open,
    asks for it again, and so goes on where the ledger stands. What has ended is put away, some at
    once, so that the owner of a long session reads no more than that of a new one.
    """
    durable, run = walk.durable, walk.run
    calls = await durable.read(lambda tx: _load(tx, run.run_id))
    durable.note(_BEGIN, lambda tx: _open(tx, walk), kind="session.begin")

    async def answer(call: Asked, told: Told) -> CallResult:
        return await _answer(walk, call, told, calls)

    purse = await Purse.of(walk, parent_span=_agent(walk))
    left_open = await _reopened(walk, calls)
    desk = desks.at(run.run_id)
    desk.open(answer, purse.ask)
    try:
        for call in left_open:
            desk.begin(call)
        return await _until_end(walk, desk, idle_s=desks.idle_s)
    finally:
        desks.drop(run.run_id, desk)
        await desk.close()


async def _reopened(walk: Walk, calls: _Calls) -> list[Asked]:
    """Return the calls that an earlier segment has left open; note which have ended."""
    durable, run_id = walk.durable, walk.run.run_id
    calls.ended = {key for key in calls.by_key if durable.recorded(step_of(key)) is not None}
    opened = [call for key, call in calls.by_key.items() if key not in calls.ended]
    if opened:
        names = {withdrawal_of(call.key): call.key for call in opened}
        found = await durable.read(lambda tx: waits.sent(tx, run_id, names))
        calls.withdrawn = frozenset(names[name] for name in found)
    return opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How a call of a session stands, without anything being done about it.

    `asked_us` and `changed_us` are when it was noted, and when its row last said something else.
    """

    asked: Asked
    stands: CallResult | Pending
    asked_us: int
    changed_us: int


def look(tx: Tx, run_id: RunId, key: str) -> Seen | None:
    """Return how a call of a session stands; None if none of this key was noted."""
    entries = journal.find(tx, run_id, (_note(key), step_of(key)))
    note = entries.get(_note(key))
    if note is None:
        return None
    asked = _asked(note)
    stands = noted(tx, run_id, asked)
    # INVARIANT: what has a note stands somewhere.
    assert stands is not None
    effect = effects.find(tx, effect_id_of(run_id, step_of(key)))
    times = [entry.at_us for entry in entries.values()]
    if effect is not None:
        times += [effect.created_us, effect.intent_us or 0, effect.outcome_us or 0]
    return Seen(asked=asked, stands=stands, asked_us=note.at_us, changed_us=max(times))


def standing(tx: Tx, run_id: RunId, asked: Asked) -> CallResult | Pending | None:
    """Return how a call of a session ended, or what its run waits for; None if it is to be made.

    Raises `KeyTakenError` if its key is that of another call.
    """
    found = noted(tx, run_id, asked)
    if isinstance(found, Pending) and wait_of(tx, run_id, asked.key) is None:
        return None
    return found


def noted(tx: Tx, run_id: RunId, asked: Asked) -> CallResult | Pending | None:
    """Return how a call of a session stands; None if it was never noted, so will not be made.

    Raises `KeyTakenError` if its key is that of another call.
    """
    note, step = _note(asked.key), step_of(asked.key)
    entries = journal.find(tx, run_id, (note, step))
    if note not in entries:
        return None
    if _asked(entries[note]).digest != asked.digest:
        raise key_conflict(asked.key)
    if step in entries:
        return CallResult.from_journal(entries[step].value)
    effect = effects.find(tx, effect_id_of(run_id, step))
    if effect is not None and runs.get(tx, run_id).state.is_final:
        # Its row was ended with the run, or left to a person.
        return result_of(effect)
    wait = wait_of(tx, run_id, asked.key)
    told = None if wait is None else _WAITS.get(_kind_of(wait))
    if effect is None:
        return Pending(key=asked.key, waits_for=told or "reply")
    # While it is taken up, or stands still, its run is in no wait.
    waits_for = told or _WITH_PEOPLE.get(effect.state) or "reply"
    return Pending(key=asked.key, waits_for=waits_for, effect_id=effect.effect_id)


def wait_of(tx: Tx, run_id: RunId, key: str) -> Wait | None:
    """Return the wait that a call of a waiting run is in; None if it is in none."""
    begin = f"{step_of(key)}#"
    return next((one for one in waits.list_waits(tx, run_id) if one.name.startswith(begin)), None)


def _kind_of(wait: Wait) -> str:
    return wait.name.partition("#")[2].partition(".")[0]


def _load(tx: Tx, run_id: RunId) -> _Calls:
    entries = journal.load(tx, run_id, kinds=(_ASKED,)).values()
    return _Calls(
        by_key={call.key: call for call in map(_asked, entries)},
        ended=set(),
        past=journal.count_past(tx, run_id, ending=_NOTE),
    )


def find_asked(tx: Tx, run_id: RunId, key: str) -> Asked | None:
    """Return a call of a session by its key, as it was asked for."""
    note = journal.find(tx, run_id, (_note(key),)).get(_note(key))
    return None if note is None else _asked(note)


async def _answer(walk: Walk, call: Asked, told: Told, calls: _Calls) -> CallResult:
    durable, before = walk.durable, calls.by_key.get(call.key)
    if before is not None and before.digest != call.digest:
        raise key_conflict(call.key)
    if before is None:
        may_be_past = calls.past and not call.is_new
        past = await durable.read(partial(_past, walk, call)) if may_be_past else None
        if past is not None:
            return past
        if len(calls.ended) >= _TOGETHER:
            await _put_away(walk, calls)
        if calls.count >= MOST_CALLS:
            raise IntakeFullError(
                f"this session has made {MOST_CALLS} calls; open another", retry_after_s=0
            )
        durable.note(_note(call.key), lambda _tx: call.to_json(), kind=_ASKED)
        calls.by_key[call.key] = call
    proposal = Proposal(
        step_name=step_of(call.key),
        tool=call.tool,
        arguments=call.arguments,
        seats=walk.run.request.deciding,
        parent_span=_agent(walk),
        is_withdrawn=call.key in calls.withdrawn,
    )
    result = await call_tool(walk.services.road, durable, proposal, told=told)
    calls.ended.add(call.key)
    return result


def _past(walk: Walk, call: Asked, tx: Tx) -> CallResult | None:
    """Return how a call of which this segment knows nothing ended, if it was made before."""
    found = noted(tx, walk.run.run_id, call)
    # INVARIANT: only what has ended is put away; all else is loaded with the claim.
    assert not isinstance(found, Pending)
    return found


async def _put_away(walk: Walk, calls: _Calls) -> None:
    ended, calls.ended = calls.ended, set()
    for key in ended:
        calls.past += calls.by_key.pop(key, None) is not None
    await walk.durable.put_away([step_of(key) for key in ended])


async def _until_end(walk: Walk, desk: Desk, *, idle_s: float) -> RunOutcome:
    durable, run_id = walk.durable, walk.run.run_id
    while True:
        with durable.in_flight():
            await desk.quiet(idle_s)
        until_us = await durable.read(lambda tx: tokens.last_expiry(tx, run_id))
        # Named by its time: a token that came meanwhile is another wait, and an old one is over.
        name = StepName(f"#end.{until_us}")
        ended = await durable.wait(name, END_TOPIC, until_us=until_us)
        is_over = isinstance(ended, Expired)
        if is_over and await durable.read(lambda tx: tokens.last_expiry(tx, run_id)) > until_us:
            continue
        # What is under way is not cut off, and what people still have to answer is not taken back,
        # because their agent has left.
        await desk.settled()
        state = "expired" if is_over else "closed"
        return RunOutcome(state=RunState.SUCCEEDED, end_state=state)


def _open(tx: Tx, walk: Walk) -> Json:
    (seat,) = walk.run.request.seats
    agent = walk.release.agents.get(seat.agent)
    version = None if agent is None else agent.version
    spans.put(
        tx,
        emit.agent_span(
            walk.run.run_id, _agent(walk), seat=seat, start_us=tx.now_us, agent_version=version
        ),
    )
    return None


def _agent(walk: Walk) -> str:
    return str(walk.run.request.agent)


def withdrawal_of(key: str) -> str:
    """Return the key of the signal that says that a call was taken back."""
    return f"{WITHDRAWN_TOPIC}/{key}"


def step_of(key: str) -> StepName:
    """Return the step of a session that makes the call of a key."""
    return StepName(f"call/{key}")


def _note(key: str) -> StepName:
    return StepName(f"call/{key}{_NOTE}")


def _asked(entry: JournalEntry) -> Asked:
    # INVARIANT: `_answer` writes what is recorded of this kind.
    assert isinstance(entry.value, dict)
    found = entry.value
    return Asked(
        key=str(found["key"]), tool=ToolName(str(found["tool"])), arguments=found["arguments"]
    )
