from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import DecisionId, RunId, ToolName, idempotency_key_of
from interlock.domain.run import Run, RunState, TriggerRef
from interlock.domain.trace import ModelUse
from interlock.observe import questions
from interlock.observe.questions import Cause, DuplicatesAnswer, Summary
from interlock.store import approvals, decisions, effects, runs, spans, triggers
from interlock.store.engine import Database
from interlock.store.questions import KeyedEffect
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance import store_rows as rows

WINDOW_US = 24 * rows.HOUR_US


def delivered(
    tx: Tx, key: str, *, source: str = "desk", body: str = "sha256:1", parent: Run | None = None
) -> Run:
    """Accept a run for a delivery of a source."""
    request = rows.request(key, parent=parent)
    trigger = TriggerRef(kind="webhook" if source == "desk" else "cron", source=source, key=key)
    run_id, _ = triggers.accept(tx, replace(request, trigger=trigger), body_digest=body)
    return runs.get(tx, run_id)


def deliver_and_write(tx: Tx, *, key: str) -> None:
    """Accept a delivery whose body is its own, and write its effect."""
    write(tx, delivered(tx, key, body=f"sha256:{key}"))


def write(tx: Tx, run: Run, step: str = "file", *, attempt: int = 1) -> Effect:
    """Write the intent of one more effect with the same business key."""
    plain = rows.effect(run.run_id, step)
    effect = replace(
        plain,
        state=EffectState.INTENT,
        attempt=attempt,
        created_us=tx.now_us,
        intent_us=tx.now_us,
        idem_key=idempotency_key_of(plain.effect_id),
    )
    effects.insert(tx, effect)
    effects.note_duplicate(tx, rows.TENANT, rows.TOOL, "key-hash", since_us=tx.now_us - WINDOW_US)
    return effect


def asked(db: Database) -> DuplicatesAnswer:
    """Ask why there were duplicates in the last hours."""
    with db.reading() as tx:
        return questions.why_duplicates(tx, rows.TENANT, START_US - WINDOW_US)


def test_no_duplicates_is_an_answer(db: Database) -> None:
    """A key that was written once is no duplicate."""
    db.run("test", lambda tx: write(tx, delivered(tx, "k1")))

    answer = asked(db)

    assert ((), "No business key was written more than once.") == (answer.groups, answer.paragraph)


def test_planted_incident_of_thirty_seven_names_its_cause(db: Database, clock: ManualClock) -> None:
    """37 events of one source make 37 tickets: the answer counts and explains them."""
    for number in range(37):
        key = f"k{number}"
        db.run("test", partial(deliver_and_write, key=key))
        clock.advance(60)

    (group,) = asked(db).groups

    assert ("several_events", 37, 37) == (group.cause, group.n, len(group.rows))
    assert (
        "One trigger received several different events about the same thing: 37 effects with 37 "
        "idempotency keys; 37 runs; 37 deliveries from webhook desk (37); 0 approved by a person; "
        "1 policy version."
    ) == group.why
    assert asked(db).paragraph == (
        "1 business key written more than once, 37 effects in all. Most often `vpn is down` by "
        "`desk.issue.create`: 37 times between 2023-11-14T22:13:20.000Z and "
        f"2023-11-14T22:49:20.000Z. {group.why}"
    )


def same_run(tx: Tx) -> None:
    """Two steps of one run."""
    run = delivered(tx, "k1")
    write(tx, run, "a")
    write(tx, run, "b")


def parent_and_child(tx: Tx) -> None:
    """A run and its child."""
    run = delivered(tx, "k1")
    write(tx, run)
    write(tx, delivered(tx, "k2", source="handoff", parent=run))


def same_body_twice(tx: Tx) -> None:
    """One event under two delivery ids."""
    write(tx, delivered(tx, "k1"))
    write(tx, delivered(tx, "k2"))


def webhook_and_cron(tx: Tx) -> None:
    """Two triggers for one thing."""
    write(tx, delivered(tx, "k1"))
    write(tx, delivered(tx, "k2", source="nightly", body="sha256:2"))


def two_events(tx: Tx) -> None:
    """Two events of one source."""
    write(tx, delivered(tx, "k1"))
    write(tx, delivered(tx, "k2", body="sha256:2"))


@pytest.mark.parametrize(
    ("plant", "cause"),
    [
        (same_run, "repeated_in_run"),
        (parent_and_child, "handoff"),
        (same_body_twice, "redelivery"),
        (webhook_and_cron, "two_triggers"),
        (two_events, "several_events"),
    ],
)
def test_cause_follows_from_where_the_effects_came_from(
    db: Database, plant: object, cause: Cause
) -> None:
    """Runs, tree, deliveries and bodies tell the causes apart."""
    db.run("test", plant)  # type: ignore[arg-type]  # parametrized

    assert [cause] == [group.cause for group in asked(db).groups]


def test_effect_that_did_not_happen_explains_nothing(db: Database) -> None:
    """A definite failure of another source is listed, but is no cause."""

    def plant(tx: Tx) -> None:
        same_run(tx)
        failed = write(tx, delivered(tx, "k9", source="nightly"))
        effects.move(tx, failed, replace(failed, state=EffectState.FAILED_DEFINITE))

    db.run("test", plant)

    (group,) = asked(db).groups

    assert ("repeated_in_run", 3) == (group.cause, len(group.rows))


def test_approver_is_counted(db: Database) -> None:
    """The figures say how many a person had approved."""

    def plant(tx: Tx) -> None:
        run = delivered(tx, "k1")
        write(tx, run, "a")
        effect = write(tx, run, "b")
        approval = rows.approval(effect)
        approvals.put(tx, approval, tenant=rows.TENANT)
        approvals.use(tx, approval.approval_id, effect.effect_id, 1)

    db.run("test", plant)

    assert "1 approved by a person" in asked(db).groups[0].why


def test_rows_without_a_recorded_delivery_are_of_unknown_cause(db: Database) -> None:
    """Where the event's body is not known, redelivery cannot be told from two events."""
    db.run("test", two_events)
    rows_found = asked(db).groups[0].rows
    bare = tuple(replace(row, body_digest=None) for row in rows_found)

    causes = [questions.cause_of(bare), questions.cause_of(bare[:1]), questions.cause_of(())]

    assert ["unknown", "unknown", "unknown"] == causes


def test_one_effect_sent_twice_is_a_retry() -> None:
    """One run, one effect, several attempts: that is the protocol at work."""
    row = rows_of_one_effect(attempt=2)

    assert "retry" == questions.cause_of((row,))


def rows_of_one_effect(*, attempt: int) -> KeyedEffect:
    """Return one row as the store gives it."""
    effect = rows.effect(RunId("r1"))
    return KeyedEffect(
        effect_id=effect.effect_id,
        state=EffectState.SUCCEEDED,
        key_text="k",
        idem_key=effect.idem_key,
        external_id=None,
        attempt=attempt,
        intent_us=1,
        step_name="file",
        seats=(),
        run_id=RunId("r1"),
        parent_id=None,
        root_id=RunId("r1"),
        workflow="triage",
        trigger_kind="webhook",
        trigger_source="desk",
        trigger_key="k1",
        body_digest="sha256:1",
        policy_version=None,
        outcome=None,
        approvals=(),
    )


def test_summary_counts_runs_calls_decisions_and_cost(db: Database) -> None:
    """The figures of one tenant since a moment; what others did is not in them."""

    def plant(tx: Tx) -> None:
        run = delivered(tx, "k1")
        effect = write(tx, run)
        effects.move(tx, effect, replace(effect, cost_micro_usd=5, outcome_us=tx.now_us))
        approvals.put(tx, rows.approval(effect), tenant=rows.TENANT)
        decisions.put(
            tx,
            decision_id=DecisionId("d1"),
            run_id=run.run_id,
            effect_id=effect.effect_id,
            decision=Decision(outcome=Outcome.ALLOW, reasons=()),
            request=PolicyRequest(
                seats=(rows.SEAT,), environment="dev", tool=rows.TOOL, arguments={}, facts=Facts()
            ),
            tool=ToolName("desk.issue.create"),
            tool_version=1,
        )
        spans.put_model_use(
            tx,
            ModelUse(
                run_id=run.run_id,
                span_key="m",
                provider="p",
                model="m",
                input_tokens=1,
                output_tokens=1,
                cost_micro_usd=7,
                price_version="v",
                is_estimated=False,
                at_us=tx.now_us,
            ),
        )

    db.run("test", plant)

    with db.reading() as tx:
        found = questions.summary(tx, rows.TENANT, START_US)
        later = questions.summary(tx, rows.TENANT, START_US + 1)

    assert found == Summary(
        since_us=START_US,
        runs={RunState.QUEUED: 1},
        tool_calls=1,
        effects={EffectState.INTENT: 1},
        decisions={Outcome.ALLOW: 1},
        approvals_open=1,
        cost_micro_usd=12,
    )
    assert (0, {}, 0) == (later.tool_calls, later.runs, later.cost_micro_usd)
