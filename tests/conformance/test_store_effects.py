"""The ledger: rows move by compare-and-set, and policy's facts are counted from them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise, product

import pytest

from interlock.domain.effect import Effect, EffectState, Evidence
from interlock.domain.errors import ConflictError, NotFoundError
from interlock.domain.ids import DecisionId, EffectId, RunId, TenantId, ToolName
from interlock.store import counts, effects, questions, tallies
from interlock.store.engine import Database
from interlock.store.questions import DuplicateKey
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_race import both
from tests.conformance.store_rows import (
    HOUR_US,
    SECOND_US,
    TENANT,
    TOOL,
    WORKFLOW,
    effect,
    intent,
    running,
)

RUN, OTHER_RUN = RunId("run-1"), RunId("run-2")
OTHER_TOOL = ToolName("desk.issue.read")
ABSENT = EffectId("absent")
ANOTHER = effect(OTHER_RUN, "another")


def insert_all(db: Database, *rows: Effect) -> None:
    """Insert effects."""
    with db.transaction("insert") as tx:
        for row in rows:
            effects.insert(tx, row)


def test_effect_comes_back_as_it_was_written(db: Database) -> None:
    """Every member survives, those that are set late too; nothing is there before."""
    full = replace(
        effect(RUN),
        state=EffectState.SUCCEEDED,
        call_digest="sha256:call",
        guard={"link": "https://x"},
        decision_id=DecisionId("d1"),
        policy_version="p1",
        first_sent_us=1,
        send_deadline_us=2,
        intent_us=3,
        outcome_us=4,
        external_id="42",
        result={"id": 42, "tags": []},
        error_code="a.b",
        error_message="why",
        cost_micro_usd=5,
        compensates=EffectId("c"),
        compensated_by=EffectId("b"),
    )
    plain = effect(RUN, "plain")

    insert_all(db, full, plain)

    with db.reading() as tx:
        assert full == effects.get(tx, full.effect_id)
        assert plain == effects.find(tx, plain.effect_id)
        assert effects.find(tx, ABSENT) is None
        with pytest.raises(NotFoundError):
            effects.get(tx, ABSENT)


def test_step_has_one_effect(db: Database) -> None:
    """The same effect cannot be inserted twice."""
    insert_all(db, effect(RUN))

    with pytest.raises(ConflictError):
        insert_all(db, effect(RUN))


def test_move_writes_what_changed_and_returns_the_row(db: Database) -> None:
    """A move sets state, epoch, attempt and outcome; identity and arguments stay."""
    before = effect(RUN)
    insert_all(db, before)
    after = replace(
        before,
        state=EffectState.INTENT,
        epoch=2,
        attempt=1,
        guard={"etag": "v1"},
        intent_us=START_US,
        arguments={"title": "reworded"},
    )

    moved = db.run("move", lambda tx: effects.move(tx, before, after))

    assert replace(after, arguments=before.arguments) == moved
    with db.reading() as tx:
        assert moved == effects.get(tx, before.effect_id)


@pytest.mark.parametrize("stale", [{"state": EffectState.DENIED}, {"epoch": 9}, {"attempt": 9}])
def test_move_from_a_stale_view_is_refused(db: Database, stale: dict[str, int]) -> None:
    """A move that believes another state, epoch or attempt raises and writes nothing."""
    row = effect(RUN)
    insert_all(db, row)
    believed = Effect(**{name: getattr(row, name) for name in Effect.__slots__} | stale)

    with pytest.raises(ConflictError):
        db.run("move", lambda tx: effects.move(tx, believed, intent(RUN)))

    with db.reading() as tx:
        assert row == effects.get(tx, row.effect_id)


def test_of_two_moves_at_once_one_wins(db: Database) -> None:
    """Two workers that both saw `proposed` cannot both write their intent."""
    row = effect(RUN)
    insert_all(db, row)

    def move(_: int) -> bool:
        try:
            db.run("test.move", lambda tx: effects.move(tx, row, intent(RUN)))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert [False, True] == sorted(threads.map(move, range(2)))


def test_effect_is_compensated_once(db: Database) -> None:
    """A second live compensation is refused; one after those that did nothing is not."""
    target = EffectId("target")
    denied = replace(effect(RUN, "undo-1"), compensates=target, state=EffectState.DENIED)
    failed = replace(effect(RUN, "undo-2"), compensates=target, state=EffectState.FAILED_DEFINITE)
    live = replace(effect(RUN, "undo-3"), compensates=target)
    second = replace(effect(RUN, "undo-4"), compensates=target)
    drafted = replace(effect(RUN, "undo-5"), compensates=target, state=EffectState.DRAFTED)
    insert_all(db, denied, failed, drafted, live)

    with pytest.raises(ConflictError, match="has another undo"):
        insert_all(db, second)


def test_a_failed_compensation_is_not_tried_again_beside_another(db: Database) -> None:
    """While it paused another one began: its next attempt is refused, and it stays as it was."""
    target = EffectId("target")
    failed = replace(effect(RUN, "undo-1"), compensates=target, state=EffectState.FAILED_DEFINITE)
    insert_all(db, failed, replace(effect(RUN, "undo-2"), compensates=target))

    with pytest.raises(ConflictError, match="has another undo"):
        db.run(
            "move",
            lambda tx: effects.move(tx, failed, replace(failed, state=EffectState.INTENT)),
        )

    with db.reading() as tx:
        assert failed == effects.get(tx, failed.effect_id)


def test_evidence_is_kept_in_order(db: Database, clock: ManualClock) -> None:
    """Evidence comes back as written, in order; without a time it has the transaction's."""
    first = Evidence(effect_id=ABSENT, attempt=1, epoch=1, kind="reply", detail={"status": 500})
    second = replace(first, kind="probed", detail={}, by="ada", at_us=5)
    with db.transaction("evidence") as tx:
        effects.add_evidence(tx, first)
        effects.add_evidence(tx, second)

    with db.reading() as tx:
        listed = effects.list_evidence(tx, ABSENT)
        counts = [effects.count_evidence(tx, ABSENT, kind) for kind in ("probed", "owner.lost")]

    assert [replace(first, at_us=clock.now_us()), second] == listed
    assert [1, 0] == counts


def test_effects_are_listed(db: Database) -> None:
    """A run's effects oldest first; the ledger newest first, by tenant, workflow, state, time."""
    one, two = intent(RUN, "one"), intent(RUN, "two", at_us=START_US + SECOND_US)
    done = replace(intent(OTHER_RUN, at_us=START_US + 2 * SECOND_US), state=EffectState.SUCCEEDED)
    insert_all(db, two, done, one)

    with db.reading() as tx:
        lists = {
            "run": effects.list_for_run(tx, RUN),
            "all": effects.list_effects(tx, tenant=TENANT, workflow=WORKFLOW),
            "open": effects.list_effects(tx, states=(EffectState.INTENT, EffectState.PARKED)),
            "done": effects.list_effects(tx, states=(EffectState.SUCCEEDED,)),
            "before": effects.list_effects(tx, before_us=done.created_us, limit=1),
            "foreign": effects.list_effects(tx, tenant=TenantId("other")),
        }

    assert {
        "run": [one, two],
        "all": [done, two, one],
        "open": [two, one],
        "done": [done],
        "before": [two],
        "foreign": [],
    } == lists


COUNTED = {
    EffectState.PROPOSED: False,
    EffectState.AUTHORIZED: False,
    EffectState.DENIED: False,
    EffectState.DRAFTED: False,
    EffectState.INTENT: True,
    EffectState.SUCCEEDED: True,
    EffectState.FAILED_DEFINITE: False,
    EffectState.AMBIGUOUS: True,
    EffectState.PROBING: True,
    EffectState.PARKED: True,
    EffectState.CONFIRMED_DONE: True,
    EffectState.CONFIRMED_ABSENT: False,
    EffectState.ABANDONED: True,
    EffectState.COMPENSATED: True,
}


@pytest.mark.parametrize("state", EffectState)
def test_facts_count_from_the_intent_on(db: Database, state: EffectState) -> None:
    """Calls in flight and of unknown outcome count; those that certainly did nothing do not.

    Also not one whose attempt failed for sure and whose next was refused or waits for people.
    """
    insert_all(db, replace(effect(RUN), state=state, intent_us=START_US))

    with db.reading() as tx:
        so_far = tallies.of_run(tx, RUN, TOOL)
        found = {
            so_far.calls,
            effects.count_tool_since(tx, ANOTHER, START_US),
            so_far.writes,
            effects.count_same_key(tx, TENANT, TOOL, "key-hash", START_US, other_than=ABSENT),
        }

    assert {int(COUNTED[state])} == found


def test_facts_count_only_what_they_name(db: Database) -> None:
    """Run, tool, workflow, environment, time, key and the effect itself each narrow a count."""
    row = intent(RUN)
    insert_all(
        db,
        row,
        replace(intent(RUN, "b"), tool=OTHER_TOOL, is_write=False, key_hash=None),
        replace(intent(OTHER_RUN, "c", at_us=START_US - HOUR_US)),
        replace(intent(OTHER_RUN, "d"), environment="prod"),
        replace(intent(OTHER_RUN, "e"), tenant=TenantId("other")),
    )

    with db.reading() as tx:
        so_far = tallies.of_run(tx, RUN, TOOL)
        found = (
            so_far.calls,
            so_far.writes,
            effects.count_tool_since(tx, ANOTHER, START_US),
            effects.count_tool_since(tx, row, START_US),
            effects.count_tool_since(tx, ANOTHER, START_US - HOUR_US),
            effects.count_same_key(
                tx, TENANT, TOOL, "key-hash", START_US, other_than=row.effect_id
            ),
        )

    assert (1, 1, 1, 0, 2, 1) == found


def test_tally_follows_calls_from_state_to_state(db: Database) -> None:
    """From whatever state to whatever other, what is counted is what the rows say."""
    row = intent(RUN)
    insert_all(db, row)
    walk = [state for pair in product(EffectState, EffectState) for state in pair]

    found: list[tuple[tallies.Tally, tallies.Tally]] = []
    for before, after in pairwise([row.state, *walk]):
        old = replace(row, state=before)
        with db.transaction("test.move") as tx:
            moved = effects.move(tx, old, replace(row, state=after))
            alone = tallies.of_run(tx, RUN, TOOL, other_than=moved)
        with db.reading() as tx:
            found.append((tallies.of_run(tx, RUN, TOOL), alone))

    nothing = tallies.Tally(calls=0, writes=0, failures=0, done=frozenset())
    assert [(standing(state), nothing) for state in walk] == found


@pytest.mark.parametrize("state", EffectState)
def test_count_over_runs_follows_a_call_from_state_to_state(
    db: Database, state: EffectState
) -> None:
    """Whichever states it passes, it counts once while it may have done something."""
    row = intent(RUN)
    insert_all(db, row)

    found: list[int] = []
    for before, after in ((row.state, state), (state, state), (state, EffectState.INTENT)):
        old, new = replace(row, state=before), replace(row, state=after)
        with db.transaction("test.move") as tx:
            effects.move(tx, old, new)
        with db.reading() as tx:
            found.append(effects.count_tool_since(tx, ANOTHER, START_US))

    assert [COUNTED[state], COUNTED[state], True] == found


def test_count_over_runs_begins_with_a_minute(db: Database) -> None:
    """A call counts until the whole of its minute is too old; what is older may be deleted."""
    at_us = counts.minute_of(START_US)
    insert_all(db, replace(intent(RUN), intent_us=at_us))

    with db.transaction("test.read") as tx:
        found = [
            effects.count_tool_since(tx, ANOTHER, at_us + counts.MINUTE_US - 1),
            effects.count_tool_since(tx, ANOTHER, at_us + counts.MINUTE_US),
        ]
        kept = counts.delete_some(tx, before_us=at_us, limit=10)
        deleted = counts.delete_some(tx, before_us=at_us + 1, limit=10)

    assert ([1, 0], 0, 1) == (found, kept, deleted)


def standing(state: EffectState) -> tallies.Tally:
    """Return the tally of a run with one call in a state."""
    is_done = state in {EffectState.SUCCEEDED, EffectState.CONFIRMED_DONE}
    has_failed = state in {
        EffectState.FAILED_DEFINITE,
        EffectState.AMBIGUOUS,
        EffectState.PROBING,
        EffectState.PARKED,
        EffectState.CONFIRMED_ABSENT,
        EffectState.ABANDONED,
    }
    return tallies.Tally(
        calls=int(COUNTED[state]),
        writes=int(COUNTED[state]),
        failures=int(has_failed),
        done=frozenset({TOOL}) if is_done else frozenset(),
    )


def test_failures_are_counted_since_the_last_success(db: Database) -> None:
    """The last calls in a row that did not succeed; calls in flight and denied ones are aside."""
    states = [
        EffectState.PARKED,
        EffectState.SUCCEEDED,
        EffectState.FAILED_DEFINITE,
        EffectState.AMBIGUOUS,
        EffectState.INTENT,
    ]
    rows = [
        replace(intent(RUN, str(n), at_us=START_US + n), state=state)
        for n, state in enumerate(states)
    ]
    insert_all(db, *rows, replace(effect(RUN, "denied"), state=EffectState.DENIED))

    with db.reading() as tx:
        found = [tallies.of_run(tx, RUN, tool) for tool in (TOOL, OTHER_TOOL)]

    assert [2, 0] == [so_far.failures for so_far in found]


def test_done_tools_are_those_that_succeeded(db: Database) -> None:
    """Only successes of the named runs count, also those that a person confirmed."""
    insert_all(
        db,
        replace(intent(RUN, "a"), state=EffectState.SUCCEEDED),
        replace(intent(OTHER_RUN), state=EffectState.CONFIRMED_DONE, tool=OTHER_TOOL),
        replace(intent(RUN, "b"), state=EffectState.AMBIGUOUS, tool=ToolName("x")),
        replace(intent(RunId("run-3")), state=EffectState.SUCCEEDED, tool=ToolName("y")),
    )

    with db.reading() as tx:
        done = tallies.done_tools(tx, [RUN, OTHER_RUN])
        so_far = tallies.of_run(tx, RUN, TOOL)

    assert frozenset({TOOL, OTHER_TOOL}) == done
    assert frozenset({TOOL}) == so_far.done


def test_parallel_intents_with_one_key_see_each_other(db: Database) -> None:
    """With the key's lock held, the second of two intents counts the first."""
    keys = iter([RUN, OTHER_RUN])

    def intend(tx: Tx) -> int:
        row = intent(next(keys))
        effects.lock_key(tx, "key-hash")
        count = effects.count_same_key(
            tx, TENANT, TOOL, "key-hash", START_US, other_than=row.effect_id
        )
        effects.insert(tx, row)
        return count

    assert {0, 1} == set(both(db, intend))


def note(db: Database, row: Effect) -> None:
    """Write an intent and note its business key, with a window of one hour."""
    with db.transaction("intent") as tx:
        effects.insert(tx, row)
        since_us = (row.intent_us or 0) - HOUR_US
        effects.note_duplicate(tx, TENANT, TOOL, "key-hash", since_us=since_us)


def test_duplicates_are_noted_from_the_second_on(db: Database) -> None:
    """A chain goes on while each is within the window of the one before, then starts anew."""
    moments = [START_US + minutes * 60 * SECOND_US for minutes in (0, 50, 100, 300, 301)]
    noted: list[list[DuplicateKey]] = []

    for n, at_us in enumerate(moments):
        note(db, intent(RUN, str(n), at_us=at_us))
        with db.reading() as tx:
            noted.append(questions.recent_duplicates(tx, TENANT, START_US))

    def key(n: int, first: int, last: int) -> list[DuplicateKey]:
        return [
            DuplicateKey(
                tool=TOOL,
                key_hash="key-hash",
                n=n,
                first_us=moments[first],
                last_us=moments[last],
            )
        ]

    assert [[], key(2, 0, 1), key(3, 0, 2), key(3, 0, 2), key(2, 3, 4)] == noted


def test_retry_of_an_effect_is_no_duplicate(db: Database) -> None:
    """A key whose one effect is tried again stays unnoted: rows are counted, not attempts."""
    run = running(db)
    row = intent(run.run_id)
    note(db, row)

    with db.transaction("retry") as tx:
        failed = effects.move(tx, row, replace(row, state=EffectState.FAILED_DEFINITE))
        effects.move(tx, failed, replace(row, attempt=2))
        effects.note_duplicate(tx, TENANT, TOOL, "key-hash", since_us=0)

    with db.reading() as tx:
        assert [] == questions.recent_duplicates(tx, TENANT, 0)
